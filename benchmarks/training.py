"""Tokens per second of a training step: ours, the step of litgpt's `pretrain` under Fabric, and a plain loop as in nanoGPT.

All three train the same model (litgpt's GPT, the suite's shapes) on the same tokens, with AdamW, clipping and a loss that is read at
every step. Each has a process of its own, and they take turns, so that a busy machine slows all of them. On a GPU (bf16) the share of
its peak (MFU) and the memory, against what the planner says, are given too. Then what else a run costs, measured here and carried
over to a model of 1.1B parameters between two checkpoints, and how long a job takes to start.

Example:
  OMP_NUM_THREADS=1 python benchmarks/training.py --shapes 64x4 256x4
  python benchmarks/training.py --compile --shapes 1024x28 1792x18 --batch-size 16 --context 2048 --vocabulary 50304 --head-size 128 --steps 10
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from lightning.fabric import Fabric
from litgpt.utils import chunked_cross_entropy
from torch.nn import functional

from gemstones.cluster.memory import step_memory_bytes
from gemstones.study import Training
from gemstones.suite import counting
from gemstones.suite.counting import Architecture
from gemstones.suite.runs import Run
from gemstones.suite.shapes import parse
from gemstones.training import checkpoint
from gemstones.training.data import Tokens
from gemstones.training.initialization import initialize
from gemstones.training.job import Job
from gemstones.training.metrics import Metrics
from gemstones.training.model import build_model
from gemstones.training.optimizer import decays
from gemstones.training.trainer import Trainer

# Dense bf16 FLOP/s by the makers' data sheets.
PEAK = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "MI250X": 191.5e12}
Step = Callable[[], float]
# The authors' 1792x18 on 32 nodes: seconds a step as they recorded them, steps and validation between two checkpoints.
BILLION, SECONDS_PER_STEP, EVERY, VALIDATION_TOKENS = "1792x18", 1.953, 477, 100_000_000


def make_run(shape: str, options: argparse.Namespace) -> Run:
    width, depth = parse(shape)
    precision = "bf16-mixed" if torch.cuda.is_available() else "32-true"
    return Run(
        name=shape, phase="main", width=width, depth=depth, scaling_depth=depth, head_size=options.head_size,
        vocabulary_size=options.vocabulary, context_length=options.context, scale_embeddings=True, truncation=3.0,
        batch_size=options.batch_size, lr=1e-4, warmup_tokens=1, beta1=0.9, beta2=0.95, epsilon=1e-8, weight_decay=0.1,
        gradient_clipping=1.0, precision=precision, seed=0, evaluate_every=10**6, steps=10**6,
        validation_tokens=16 * options.batch_size * options.context,
    )  # fmt: skip


def make_shards(folder: Path, options: argparse.Namespace) -> Path:
    """A manifest of random tokens."""
    needed = 64 * options.batch_size * options.context
    splits = {}
    for split in ("train", "validation"):
        tokens = np.random.default_rng(0).integers(0, options.vocabulary, needed).astype("uint16")
        tokens.tofile(folder / f"{split}.bin")
        splits[split] = {"documents": 1, "tokens": needed, "shards": [{"file": f"{split}.bin", "tokens": needed}]}
    manifest = folder / "manifest.json"
    content = {"dtype": "uint16", "splits": splits, "tokens_sha256": "0" * 64, "vocabulary_size": options.vocabulary}
    manifest.write_text(json.dumps(content))
    return manifest


def plain(run: Run, shards: Path, device: torch.device) -> Step:
    """As in nanoGPT: random windows of a memory map, autocast, clipping, torch's AdamW; no framework."""
    model = build_model(run)
    initialize(model, run)
    model.to(device)
    optimizer = torch.optim.AdamW(
        groups(model, run), lr=run.lr, betas=(run.beta1, run.beta2), fused=device.type == "cuda"
    )
    tokens = np.memmap(shards.parent / "train.bin", "uint16", mode="r")
    generator = np.random.default_rng(0)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=run.precision == "bf16-mixed")

    def step() -> float:
        starts = generator.integers(0, len(tokens) - run.context_length - 1, run.batch_size)
        rows = [torch.from_numpy(tokens[i : i + run.context_length + 1].astype(np.int64)) for i in starts]
        batch = torch.stack(rows).to(device, non_blocking=True)
        with autocast:
            logits = model(batch[:, :-1])
            loss = functional.cross_entropy(logits.reshape(-1, logits.size(-1)), batch[:, 1:].reshape(-1))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), run.gradient_clipping)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def litgpts(run: Run, shards: Path, device: torch.device) -> Step:
    """As in litgpt 0.5.13's `pretrain`: Fabric, chunked cross-entropy, Fabric's clipping, torch's AdamW; not compiled."""
    fabric = Fabric(accelerator=device.type, devices=1, precision=run.precision)
    with fabric.init_module():
        model = build_model(run)
    initialize(model.cpu(), run)
    model = fabric.setup(model)
    optimizer = torch.optim.AdamW(
        groups(model, run), lr=run.lr, betas=(run.beta1, run.beta2), fused=device.type == "cuda"
    )
    optimizer = fabric.setup_optimizers(optimizer)
    tokens = Tokens(shards, "train")
    number = 0

    def step() -> float:
        nonlocal number
        rows = [
            torch.from_numpy(tokens.window(((number + i) % 512) * run.context_length, run.context_length + 1))
            for i in range(run.batch_size)
        ]
        number += run.batch_size
        batch = fabric.to_device(torch.stack(rows))
        logits = model(batch[:, :-1].contiguous())
        loss = chunked_cross_entropy(logits, batch[:, 1:].contiguous())
        fabric.backward(loss)
        fabric.clip_gradients(model, optimizer, max_norm=run.gradient_clipping)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def groups(model: torch.nn.Module, run: Run) -> list[dict[str, object]]:
    named = list(model.named_parameters())
    return [
        {"params": [weight for name, weight in named if decays(name.removeprefix("_forward_module."), run) is decay],
         "weight_decay": run.weight_decay if decay else 0.0}
        for decay in (True, False)
    ]  # fmt: skip


def seconds(step: Step, steps: int, device: torch.device) -> float:
    begun = time.perf_counter()
    for _ in range(steps):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - begun) / steps


def ours(run: Run, shards: Path, device: torch.device, compiled: bool = False) -> Step:
    """What a run does each step: update, watch, a row of metrics, the question whether to stop."""
    trainer = Trainer(run, shards, Training(wandb_mode="disabled", compile=compiled))
    record = Metrics(shards.parent / "metrics.jsonl")

    def step() -> float:
        row = trainer.update()
        trainer.watcher.act(trainer.watcher.look(row), 0)
        record.write(row)
        trainer.parallel.largest(False)
        return float(row["loss"])

    return step


COMPILED = "… compiled"
CONTENDERS: dict[str, Callable[[Run, Path, torch.device], Step]] = {
    "gemstones": ours, COMPILED: partial(ours, compiled=True), "litgpt pretrain": litgpts, "plain loop": plain,
}  # fmt: skip


def take_turns(name: str, run: Run, shards: Path, pipe: Connection) -> None:
    """A process of its own for each contender: it trains when it is told to, and says how long a step took."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    step = CONTENDERS[name](run, shards, device)
    while steps := pipe.recv():
        took = seconds(step, steps, device)
        pipe.send((took, torch.cuda.max_memory_allocated() if device.type == "cuda" else 0))


def compare(run: Run, shards: Path, options: argparse.Namespace) -> None:
    """Print the table of a shape."""
    context, pipes, processes = multiprocessing.get_context("spawn"), {}, []
    for name in CONTENDERS:
        if name == COMPILED and not options.compile:
            continue
        pipes[name], theirs = context.Pipe()
        processes.append(context.Process(target=take_turns, args=(name, run, shards, theirs), daemon=True))
        processes[-1].start()
    taken: dict[str, list[float]] = {name: [] for name in pipes}
    memory: dict[str, int] = {}
    for turn in range(options.turns + 1):
        for name, pipe in pipes.items():
            pipe.send(options.steps)
            took, memory[name] = pipe.recv()
            if turn:  # the first warms up
                taken[name].append(took)
    for pipe in pipes.values():
        pipe.send(0)
    for process in processes:
        process.join()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    arch = Architecture(run.head_size, run.vocabulary_size, run.context_length)
    flops = counting.flops_per_token(run.width, run.depth, arch) * run.tokens_per_step
    print(
        f"\n{run.shape}: {counting.params(run.width, run.depth, arch) / 1e6:.1f}M parameters, {run.tokens_per_step} tokens a step, {device}"
    )
    print(
        f"{'':16} {'tokens/s':>10} {'ms a step':>10} {'speed of ours to it':>20} {'FLOP/s':>9} {'MFU':>6} {'memory':>9}"
    )
    for name, times in taken.items():
        middle = statistics.median(times)
        # Turn by turn, so that what slowed one turn slowed both.
        ratio = statistics.median(theirs / own for theirs, own in zip(times, taken["gemstones"], strict=True))
        peak = next(
            (peak for key, peak in PEAK.items() if device.type == "cuda" and key in torch.cuda.get_device_name()), None
        )
        mfu = f"{flops / middle / peak:6.1%}" if peak else "     –"
        held = f"{memory[name] / 1e9:6.2f} GB" if memory[name] else "        –"
        print(
            f"{name:16} {run.tokens_per_step / middle:10.0f} {1e3 * middle:10.2f} {ratio:20.2f} {flops / middle:9.2e} {mfu} {held}"
        )
    planned = step_memory_bytes(
        run.width, run.depth, arch, sequences=run.batch_size, low_precision=run.precision == "bf16-mixed"
    )
    print(f"memory of a step by the planner: {planned / 1e9:.2f} GB (not compiled)")


def timed(act: Callable[[], object], times: int = 5) -> float:
    """Median of seconds, after a first time."""
    act()
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        act()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def overheads(run: Run, shards: Path) -> None:
    """What a run does beside its steps, and its share of a 1B model's time between two of its checkpoints."""
    trainer = Trainer(run, shards, Training(wandb_mode="disabled"))
    row = trainer.update()
    record = Metrics(shards.parent / "metrics.jsonl")
    state = trainer.state("benchmark")
    held = [tensor for kept in state["optimizer"].values() for tensor in kept.values()] + list(state["model"].values())
    size = sum(tensor.nbytes for tensor in held)
    step = timed(trainer.update)
    a_row = timed(lambda: record.write(row)) + timed(lambda: trainer.watcher.look(dict(row, step=row["step"] + 1)))
    validation = timed(trainer.validate)
    copy = timed(lambda: trainer.state("benchmark"))
    write = timed(lambda: checkpoint.save(shards.parent, 1, state, milestone=False))
    saver = checkpoint.Saver()

    def beside() -> None:
        saver.start(lambda: checkpoint.save(shards.parent, 1, state, milestone=False) and None)
        for _ in range(max(1, int(write / step))):
            trainer.update()

    slower = timed(beside, 3) / (max(1, int(write / step)) * step)
    saver.wait()
    arch = Architecture()
    params = counting.params(*parse(BILLION), arch)
    period, tokens = EVERY * SECONDS_PER_STEP, EVERY * 2048 * 2048
    ratio = (validation / run.validation_tokens) / (step / run.tokens_per_step)
    shares = {
        "a row of metrics and the watch": (a_row, EVERY * a_row / period),
        f"validation, {run.validation_tokens} tokens": (validation, VALIDATION_TOKENS * ratio / tokens),
        f"a copy of the state, {size / 1e6:.0f} MB": (copy, copy / size * 12 * params / period),
    }
    print(
        f"\n{run.shape}: beside the steps of {1e3 * step:.1f} ms; and the share of a {params / 1e9:.1f}B model's {period:.0f} seconds"
    )
    for name, (seconds_taken, share) in shares.items():
        print(f"{name:36} {1e3 * seconds_taken:10.3f} ms {share:8.2%}")
    print(f"{'together':36} {'':13} {sum(share for _, share in shares.values()):8.2%}")
    print(
        f"writing that copy, in the background: {1e3 * write:.0f} ms; steps beside it take {slower:.2f} times as long "
        f"(of the 1B model it would write {12 * params / 1e9:.1f} GB, in {write / size * 12 * params:.0f} of {period:.0f} seconds)"
    )


def start_up(run: Run, shards: Path) -> None:
    """From the start of the process to the end of its first step."""
    job = Job(run=run.model_copy(update={"steps": 1, "evaluate_every": 1, "validation_tokens": run.context_length}))
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "gemstones", "train", job.model_dump_json(), "--data", str(shards), "--until", "1",
            "--output", f"{folder}/{run.name}/steps/1.json", "--settings", '{"wandb_mode": "offline"}',
        ]  # fmt: skip
        begun = time.perf_counter()
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        print(
            f"\na job of one step with its checkpoint, validation and wandb offline: {time.perf_counter() - begun:.1f} s in all"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["32x2", "64x4", "128x4"])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--context", type=int, default=64)
    parser.add_argument("--vocabulary", type=int, default=512)
    parser.add_argument("--head-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20, help="of a turn")
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--compile", action="store_true", help="compare with `training.compile` too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shards = make_shards(Path(folder), options)
        for shape in options.shapes:
            compare(make_run(shape, options), shards, options)
        overheads(make_run(options.shapes[-1], options), shards)
        start_up(make_run(options.shapes[0], options), shards)


if __name__ == "__main__":
    main()
