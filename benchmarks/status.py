"""How long `gemstones status` and `gemstones ledger` take for the full study: python benchmarks/status.py

Writes 600 MB of metrics and Slurm logs to a temporary folder, as training leaves them.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from gemstones.cluster.throughput import speed
from gemstones.study import load
from gemstones.suite.runs import Run, Segment, segments

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "config/frontier.yaml"
KEY = "0123456789ab"


def rows(run: Run, first: int, last: int, job_id: str, began: float, nodes: int, seconds: float) -> str:
    head = {
        "kind": "start",
        "time": began,
        "slurm_job_id": job_id,
        "step": first,
        "tokens": first * run.tokens_per_step,
    }
    lines = [json.dumps({**head, "device": "cuda", "roll_backs": 0, "num_nodes": nodes, "gpus": 8 * nodes})]
    for step in range(first + 1, last + 1):
        loss = 2 + 8 * (step + 10) ** -0.4
        row = {"kind": "train", "step": step, "tokens": step * run.tokens_per_step, "loss": loss, "lr": run.lr}
        more = {
            "seconds": seconds,
            "tokens_per_second": round(run.tokens_per_step / seconds),
            "memory_bytes": 40_000_000_000,
        }
        lines.append(json.dumps({**row, "gradient_norm": loss / 7, **more}))
        if step % run.evaluate_every == 0 or step == last:
            lines.append(json.dumps({**row, "kind": "validation", "validation_set": "validation"}))
    return "\n".join(lines) + "\n"


def write_job(study: Path, segment: Segment, job_id: str, nodes: int, seconds: float, finished: bool) -> str:
    """A job's metrics, log and manifest; gives its row of the remembered account."""
    run, hours = segment.run, (segment.stop - segment.start) * seconds / 3600 + 0.03
    folder = study / "training" / run.name
    for name in ("metrics", "steps"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    began = time.time() - 3600 * 24 * 30 + 10 * int(job_id)
    last = segment.stop if finished else (segment.start + segment.stop) // 2
    with (folder / "metrics" / f"{KEY}.jsonl").open("a") as file:
        file.write(rows(run, segment.start, last, job_id, began, nodes, seconds))
    rule = f"train_{run.phase}"
    log = study / "logs/slurm" / f"rule_{rule}" / f"{run.name}_{segment.stop}" / f"{job_id}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("")
    if finished:
        manifest = {"run": run.name, "step": segment.stop, "key": KEY, "stopped": None}
        (folder / "steps" / f"{segment.stop}.json").write_text(json.dumps(manifest))
    state = "COMPLETED" if finished else "RUNNING"
    times = f"{began},{began},{began + 3600 * hours if finished else ''}"
    return f"{job_id},{rule},{run.name},{segment.stop},{state},{3600 * hours:.0f},{nodes},{times},0:0\n"


def write_study(study: Path, share: float) -> tuple[int, int]:
    """All runs, each up to `share` of its jobs; gives jobs and bytes."""
    frontier = load(yaml.safe_load(CONFIG.read_text()), str(CONFIG))
    plan = segments(frontier)
    lines = []
    for number, segment in enumerate(plan, start=1):
        if segment.start >= share * segment.run.steps and not segment.run.is_cooldown:
            continue
        nodes, seconds, _ = speed(frontier, segment.run)
        finished = segment.stop <= share * segment.run.steps or segment.run.is_cooldown
        lines.append(write_job(study, segment, str(number), nodes, seconds, finished))
    memory = study / "cluster/jobs.csv"
    memory.parent.mkdir(parents=True)
    head = "job_id,rule,run,step,state,elapsed_seconds,nodes,submitted,started,ended,exit_code\n"
    memory.write_text(head + "".join(lines))
    return len(lines), sum(path.stat().st_size for path in study.rglob("*.jsonl"))


def timed(*command: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "gemstones", *command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0, help="of each run that is trained")
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        jobs, size = write_study(Path(folder) / "frontier", chosen.share)
        print(f"{jobs} jobs, {size / 1e6:.0f} MB of metrics")
        options = ("--config", str(CONFIG), "--results", folder)
        status = [timed("status", *options) for _ in range(chosen.repeats)]
        print(f"status: {min(status):.2f} to {max(status):.2f} s")
        print(f"ledger: {timed('ledger', *options):.1f} s")


if __name__ == "__main__":
    main()
