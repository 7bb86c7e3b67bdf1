"""What Snakemake costs a login node, and Slurm's controller, while the full study's jobs wait in the queue.

    python benchmarks/waiting.py [--minutes 10]

As root, on the Slurm of tests (tests/slurm/cluster.py), all of whose nodes are drained, so that jobs stay where they are. The study is
config/frontier.yaml with one node a job, since that Slurm has four. Its 42 chains begin with as many jobs in the queue. Prints the
CPU time of Snakemake and all that it starts, once all are submitted, and how often Slurm was asked.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from tests.conftest import ROOT, config_of
from tests.slurm import cluster, faults

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Of a process and of those that it started and that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS


def waiting() -> int:
    return len(faults.slurm("squeue", "--noheader", "--states", "PENDING", "--format", "%i").split())


def asked() -> int:
    """How often Slurm's controller was asked for jobs."""
    lines = [line.split() for line in faults.slurm("sdiag").splitlines() if "REQUEST_JOB_INFO" in line]
    return sum(int(part.removeprefix("count:")) for line in lines[:2] for part in line if part.startswith("count:"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    minutes = parser.parse_args().minutes
    cluster.start()
    config = config_of("frontier")
    for shape in config["plan"]["throughput"].values():
        shape["nodes"] = 1
    config["training"] = {"strategy": "fsdp2", "save_minutes_before": 2, "micro_batch_size": 4}
    config["plan"].pop("gpu_memory_gb")
    chains = 42
    nodes = ",".join(cluster.NODES)
    with tempfile.TemporaryDirectory() as name:
        project = faults.make(Path(name) / "project", config)
        data = project.training / "data"
        for path in (data / "manifest.json", data / "tokenizer.json"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")
        (data / "shards").mkdir()
        faults.slurm("scontrol", "update", f"nodename={nodes}", "state=drain", "reason=benchmark")
        command = [str(Path(sys.executable).with_name("snakemake")), "train", "--profile", "frontier"]
        command += ["--configfile", "config/study.yaml", "--rerun-triggers", "mtime"]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "GEMSTONES_ACCOUNT": cluster.ACCOUNT}
        log = (project.folder / "log").open("w")
        process = subprocess.Popen(command, cwd=project.folder, env=environment, stdout=log, stderr=log)
        try:
            began = time.monotonic()
            while waiting() < chains:
                if process.poll() is not None or time.monotonic() - began > 300:
                    raise SystemExit((project.folder / "log").read_text()[-2000:])
                time.sleep(1)
            submitted, start_up = time.monotonic() - began, cpu_seconds(process.pid)
            polls = asked()
            time.sleep(60 * minutes)
            spent, polls = cpu_seconds(process.pid) - start_up, asked() - polls
        finally:
            process.kill()
            process.wait()
            faults.slurm("scancel", "--user=root")
            faults.slurm("scontrol", "update", f"nodename={nodes}", "state=resume")
    print(
        yaml.safe_dump({"jobs submitted": chains, "seconds until then": round(submitted, 1)}, sort_keys=False), end=""
    )
    print(f"CPU time until then: {start_up:.1f} s")
    print(f"waiting for {minutes:g} minutes: {spent:.2f} CPU-s, {100 * spent / (60 * minutes):.2f} % of one core")
    print(f"calls to Slurm's controller for jobs: {polls}, {polls / minutes:.2g} a minute")


if __name__ == "__main__":
    main()
