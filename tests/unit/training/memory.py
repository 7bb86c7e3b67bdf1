"""Run by each of several processes: trains each run of a file under its strategy, and writes what a step's peak of memory was.

    python -m tests.unit.training.memory MANIFEST CASES.json FOLDER

CASES.json has a list of objects: `strategy`, `micro_batch_size` and `run`, the changes to the tests' run. The first process writes
FOLDER/<number>.json with the bytes that torch had allocated on the CPU.
"""

import gc
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.profiler import ProfilerActivity, profile

from gemstones.study import Training
from gemstones.training import parallel
from gemstones.training.trainer import Trainer
from tests.unit.training.conftest import make_run


def allocated(case: dict[str, Any], manifest: Path) -> int:
    """Peak of bytes in a step that is neither the first nor the last."""
    settings = Training(strategy=case["strategy"], micro_batch_size=case["micro_batch_size"])
    trainer = Trainer(make_run(**case["run"]), manifest, settings)
    trainer.update()
    trainer.update()
    weights = list(trainer.parallel.module.parameters())
    kept = [part(weight) for weight in weights for part in (local, *moments(trainer, weight))]
    there = sum(tensor.nbytes for tensor in {tensor.data_ptr(): tensor for tensor in kept}.values())
    if case["strategy"] == "ddp":  # whose gradients are views of buckets, that stay
        there += sum(weight.nbytes for weight in weights)
    else:
        trainer.optimizer.zero_grad(set_to_none=True)
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        trainer.update()
    results = profiled.profiler.kineto_results
    events = sorted(memory_events(results.experimental_event_tree()), key=lambda event: event.start_time_ns)
    live: dict[int, int] = {}
    now = peak = 0
    for event in events:
        # By address: what threads of gloo free is not seen, until the place is taken again.
        pointer, size = event.extra_fields.ptr, event.extra_fields.alloc_size
        now += max(size, 0) - live.pop(pointer, 0)
        if size > 0:
            live[pointer] = size
        peak = max(peak, now)
    return there + peak


def memory_events(events: list[Any]) -> Iterator[Any]:
    for event in events:
        if event.name == "[memory]":
            yield event
        yield from memory_events(event.children)


def local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor.detach()


def moments(trainer: Trainer, weight: torch.Tensor) -> list[Any]:
    state = trainer.optimizer.state[weight]
    return [lambda _, name=name: local(state[name]) for name in ("exp_avg", "exp_avg_sq")]


if __name__ == "__main__":
    parallel.connect()
    manifest, cases, folder = (Path(argument) for argument in sys.argv[1:])
    for number, case in enumerate(json.loads(cases.read_text())):
        peak = allocated(case, manifest)
        if parallel.connect()[0] == 0:
            folder.joinpath(f"{number}.json").write_text(json.dumps(peak))
        if distributed.is_initialized():
            distributed.barrier()
    parallel.disconnect()
