"""Run by each of several processes: trains a run under one strategy after another, each going on from the last one's state.

    python -m tests.unit.training.strategies MANIFEST FOLDER [--micro] [--mixed] [--compile] STRATEGY...

The first process writes FOLDER/<number>.json: the losses and gradient norms of six steps from the start, then of six steps from the
sixth one's checkpoint of the strategy before (of FOLDER/single.pt for the first), then a validation loss.
"""

import json
import sys
from pathlib import Path

import torch
from torch import distributed

from gemstones.study import Training
from gemstones.training import parallel
from gemstones.training.trainer import Trainer
from tests.unit.training.conftest import make_run

HALF, CLIPPING = 6, 9.0  # of six gradients, some are larger and some are not


def steps(trainer: Trainer, number: int) -> list[tuple[float, float]]:
    rows = [trainer.update() for _ in range(number)]
    return [(row["loss"], row["gradient_norm"]) for row in rows]


def run(
    manifest: Path,
    folder: Path,
    strategies: list[str],
    micro_batch_size: int | None = None,
    precision: str = "32-true",
    compiled: bool = False,
) -> None:
    before = folder / "single.pt"
    spec = make_run(
        precision=precision,
        depth=2,
        gradient_clipping=CLIPPING,
        validation_tokens=16 * 21,
        norm_offset=True,
        decay_final_norm=True,
    )
    for number, strategy in enumerate(strategies):
        settings = Training(strategy=strategy, micro_batch_size=micro_batch_size, compile=compiled)
        trainer = Trainer(spec, manifest, settings)
        found = {"strategy": strategy, "first": steps(trainer, HALF)}
        state, after = trainer.state("test"), folder / f"{number}.pt"
        if trainer.parallel.rank == 0:
            torch.save(state, after)
        if before.exists():
            trainer.restore(torch.load(before, weights_only=True))
            found["second"] = steps(trainer, HALF)
            found["validation"] = trainer.validate()["loss"]
        if trainer.parallel.rank == 0:
            folder.joinpath(f"{number}.json").write_text(json.dumps(found))
        if distributed.is_initialized():
            distributed.barrier()
        before = after


if __name__ == "__main__":
    parallel.connect()
    manifest, folder, *names = sys.argv[1:]
    strategies = [name for name in names if not name.startswith("--")]
    micro, precision = 1 if "--micro" in names else None, "bf16-mixed" if "--mixed" in names else "32-true"
    run(Path(manifest), Path(folder), strategies, micro, precision, "--compile" in names)
    distributed.destroy_process_group()
