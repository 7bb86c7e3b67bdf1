"""CPU time of a dry run of the full study, and of one with more jobs, against a bare Snakefile with the same jobs.

    python benchmarks/dry_run.py [--config config/frontier.yaml] [--repeat 5] [--times 10]

The bare Snakefile has as many jobs in the same graph (chains, cooldowns, one table, fits, figures), empty shell commands and
no configuration: what Snakemake itself costs. Runs alternate; the smallest CPU time of each counts. With --times, so many times
as many training jobs are those of the same runs, in shorter segments.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from gemstones.study import load
from gemstones.suite.runs import all_runs, segments

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


def more_jobs(config: Path, times: int, folder: Path) -> Path:
    """Write the study with about so many times as many training jobs; returns its config file."""
    content = yaml.safe_load(config.read_text())
    study = load(content, str(config))
    steps = sum(run.steps - (run.anchor or 0) for run in all_runs(study))
    length = steps // (times * len(segments(study)))
    content["runs"]["main"]["evaluate_every"] = content["plan"]["segment_steps"] = length
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def bare_project(config: Path, folder: Path) -> int:
    """Write the bare Snakefile and its graph; returns its number of jobs."""
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


def compare(config: Path, repeat: int, folder: Path) -> tuple[int, float, float]:
    """Print the dry runs of a study; returns jobs and the smallest CPU-seconds of ours and of the bare one."""
    snakemake = str(Path(sys.executable).with_name("snakemake"))
    jobs = bare_project(config, folder)
    ours, bare = [], []
    for _ in range(repeat):
        ours.append(cpu_seconds([snakemake, "-n", "-q", "--configfile", str(config.resolve())], Path.cwd()))
        bare.append(cpu_seconds([snakemake, "-n", "-q"], folder))
    ratios = sorted(one / other for one, other in zip(ours, bare, strict=True))
    print(f"{jobs} jobs: ours {min(ours):.2f} CPU-s, bare {min(bare):.2f} CPU-s (smallest of {len(ours)})")
    print(f"ratio of the smallest {min(ours) / min(bare):.2f}, median of pairs {ratios[len(ratios) // 2]:.2f}")
    return jobs, min(ours), min(bare)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("config/frontier.yaml"))
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--times", type=int, default=1, help="also with so many times as many training jobs")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = [compare(arguments.config, arguments.repeat, Path(name))]
        if arguments.times > 1:
            found.append(
                compare(more_jobs(arguments.config, arguments.times, Path(name)), arguments.repeat, Path(name))
            )
            # Start-up and parsing cancel.
            (few, *least), (many, *most) = found
            ours, bare = (1000 * (late - soon) / (many - few) for soon, late in zip(least, most, strict=True))
            print(f"each job more: ours {ours:.2f} CPU-ms, bare {bare:.2f} CPU-ms")
            whole = [1000 * seconds / jobs for jobs, seconds, _ in found]
            print(f"a job in all: ours {whole[0]:.2f} CPU-ms among {few} jobs, {whole[1]:.2f} CPU-ms among {many}")


if __name__ == "__main__":
    main()
