"""SIGKILL at random moments: a run that is killed again and again ends with the same weights and losses as one that is not.

    python -m tests.kill --kills 50                                      # one process
    python -m tests.kill --kills 50 --strategy 'axonn(1,1,2)' --processes 2

Moments are drawn over three quarters of the run, each within a step or two of a random one, and every fifth within the start of the process, before
it has taken any step. Of several processes a random one is killed: the one that started the others, or one of those. Prints a line a
kill; exit status 1 if anything differs.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from gemstones.study import Data
from gemstones.suite.runs import Run
from gemstones.training import shards as shards_of
from tests.unit.training.conftest import VOCABULARY, losses, make_job, make_run

NAME = make_run().name


def corpus(folder: Path) -> Path:
    """Shards of random words."""
    generator = random.Random(0)
    words = ["".join(generator.choices("abcdefgh", k=generator.randint(1, 7))) for _ in range(100)]
    folder.mkdir(parents=True)
    for number in range(60):
        folder.joinpath(f"page-{number:02d}.txt").write_text(" ".join(generator.choices(words, k=150)) + "\n")
    settings = Data(corpus=str(folder / "*.txt"), validation_fraction=0.2, validation_tokens=256, shard_tokens=1000)
    manifest = folder / "manifest.json"
    shards_of.build(settings, VOCABULARY, manifest=manifest, tokenizer=folder / "t.json", shards=folder / "shards")
    return manifest


def start(folder: Path, shards: Path, run: Run, strategy: str, processes: int) -> tuple[subprocess.Popen[str], Path]:
    output = folder / NAME / "steps" / f"{run.steps}.json"
    command = [
        sys.executable, "-m", "gemstones", "train", make_job(run).model_dump_json(), "--data", str(shards),
        "--until", str(run.steps), "--output", str(output), "--settings", json.dumps({"wandb_mode": "disabled", "strategy": strategy, "processes": processes}),
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment), output


def family(parent: int) -> list[int]:
    """A process and those that it started."""
    found = [parent]
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(path.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(path.parent.name))
        except OSError:
            continue  # it has ended
    return found


def step(folder: Path) -> int:
    """The last step that the metrics have."""
    text = "".join(path.read_text() for path in folder.glob(f"{NAME}/metrics/*.jsonl"))
    rows = [json.loads(line) for line in text.splitlines()[-3:] if line.endswith("}")]
    return max((row["step"] for row in rows), default=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--strategy", default="single")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--steps", type=int, default=600, help="of the run")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    run = make_run(steps=options.steps, evaluate_every=7)
    generator = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shards = corpus(folder / "corpus")
        process, straight = start(folder / "straight", shards, run, options.strategy, options.processes)
        if process.wait():
            raise SystemExit(process.communicate()[1])
        torn = folder / "killed"
        for kill, moment in enumerate(sorted(generator.sample(range(1, run.steps * 3 // 4), options.kills))):
            process, killed = start(torn, shards, run, options.strategy, options.processes)
            if kill % 5 == 4:
                time.sleep(generator.uniform(0, 1.5))
            else:
                while step(torn) < moment and process.poll() is None:
                    time.sleep(0.002)
                time.sleep(generator.uniform(0, 0.02))
            if process.poll() is not None:
                raise SystemExit(f"ended before kill {kill + 1}: {process.communicate()[1]}")
            victim = generator.choice(family(process.pid))
            os.kill(victim, signal.SIGKILL)
            status = process.wait()
            role = "the process" if options.processes == 1 else "the launcher" if victim == process.pid else "a worker"
            print(f"kill {kill + 1} of {options.kills}: {role} at step {step(torn)}, exit status {status}", flush=True)
        process, killed = start(torn, shards, run, options.strategy, options.processes)
        _, errors = process.communicate()
        if process.returncode:
            raise SystemExit(errors)
        states = [
            torch.load(json.loads(path.read_text())["checkpoint"]["path"], weights_only=True)
            for path in (straight, killed)
        ]
        weights = [torch.cat([tensor.flatten() for tensor in state["model"].values()]) for state in states]
        sums = [json.loads(path.read_text())["checkpoint"]["sha256"] for path in (straight, killed)]
        same = {
            "weights": torch.equal(*weights),
            "checkpoint": sums[0] == sums[1],
            "validation losses": losses(straight) == losses(killed),
            "training losses": losses(straight, "train") == losses(killed, "train"),
        }
        print(", ".join(f"{what} {'identical' if equal else 'DIFFERENT'}" for what, equal in same.items()))
        raise SystemExit(0 if all(same.values()) else 1)


if __name__ == "__main__":
    main()
