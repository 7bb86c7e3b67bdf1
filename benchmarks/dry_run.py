"""CPU time of a dry run of the full study against a bare Snakefile with the same jobs.

    python benchmarks/dry_run.py [--config config/frontier.yaml] [--repeat 5]

The bare Snakefile has as many jobs in the same graph (chains, cooldowns, one table, fits, figures), empty shell commands and
no configuration: what Snakemake itself costs. Runs alternate; the smallest CPU time of each counts.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from gemstones.study import load
from gemstones.suite.runs import segments

BARE = """
import json
with open("jobs.json") as file:
    JOBS = json.load(file)
rule all:
    input: JOBS["last"]
def parents(wildcards):
    return JOBS["after"][wildcards.job]
rule job:
    input: parents
    output: "out/{job}"
    shell: "touch {output}"
"""


def cpu_seconds(command: list[str], folder: Path) -> float:
    before = os.times()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def bare_project(config: Path, folder: Path) -> int:
    """Write the bare Snakefile and its graph; returns its number of jobs."""
    import json

    study = load(yaml.safe_load(config.read_text()), str(config))
    after = {}
    for segment in segments(study):
        after[f"{segment.run.name}.{segment.stop}"] = [f"out/{run}.{stop}" for run, stop in segment.after] or [
            "out/data"
        ]
    runs = [f"out/{name}" for name in after]
    after |= {"data": [], "suite": [], "trained": runs, "losses": ["out/trained"]}
    after |= {f"law.{fit}": ["out/losses"] for fit in study.fits}
    after |= {f"prescription.{fit}": [f"out/law.{fit}"] for fit in study.prescriptions.fits}
    after |= {"overspend": ["out/losses"], "overtraining": ["out/losses"]}
    for name, figure in study.figures.items():
        after[f"figure.{name}"] = ["out/losses", "out/suite", *(f"out/law.{fit}" for fit in figure.fits)]
    last = [f"out/{name}" for name in after if not name[0].isdigit() and name not in ("data", "trained")]
    (folder / "jobs.json").write_text(json.dumps({"after": after, "last": last}))
    (folder / "Snakefile").write_text(BARE)
    return len(after) + 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("config/frontier.yaml"))
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()
    snakemake = str(Path(sys.executable).with_name("snakemake"))
    with tempfile.TemporaryDirectory() as name:
        jobs = bare_project(arguments.config, Path(name))
        ours, bare = [], []
        for _ in range(arguments.repeat):
            ours.append(cpu_seconds([snakemake, "-n", "-q", "--configfile", str(arguments.config)], Path.cwd()))
            bare.append(cpu_seconds([snakemake, "-n", "-q"], Path(name)))
    ratios = sorted(one / other for one, other in zip(ours, bare, strict=True))
    print(f"{jobs} jobs: ours {min(ours):.2f} CPU-s, bare {min(bare):.2f} CPU-s (smallest of {len(ours)})")
    print(f"ratio of the smallest {min(ours) / min(bare):.2f}, median of pairs {ratios[len(ratios) // 2]:.2f}")


if __name__ == "__main__":
    main()
