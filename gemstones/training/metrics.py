"""The record of a run: one JSON object a line, flushed at once, and wandb as its mirror.

Rows are only ever appended. Where a run was resumed or replayed, a `start` row marks the joint and later rows repeat
earlier steps; readers let the later one win.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from gemstones.errors import UserError
from gemstones.study import Training
from gemstones.suite import counting
from gemstones.suite.counting import Architecture
from gemstones.suite.runs import Run

log = logging.getLogger(__name__)

# What wandb calls the keys of rows: the names of the authors' runs, and memory_bytes and validation_set.
STEP_NAMES = {"step": "optimizer_step", "tokens": "total_tokens"}
TRAIN_NAMES = STEP_NAMES | {
    "loss": "global_loss",
    "lr": "lr",
    "gradient_norm": "grad_norm",
    "seconds": "seconds/step",
    "tokens_per_second": "tokens_per_second",
    "memory_bytes": "memory_bytes",
}
VALIDATION_NAMES = STEP_NAMES | {"loss": "val_loss", "validation_set": "validation_set"}


class Metrics:
    """Appends rows to a metrics file; a torn last line, left by a kill, is cut off first."""

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                with path.open("rb+") as file:
                    content = file.read()
                    file.truncate(content.rfind(b"\n") + 1)
            self._file = path.open("a")
        except OSError as error:
            raise UserError(f"{error.filename}: cannot be written: {error.strerror}") from None

    def write(self, row: dict[str, Any]) -> None:
        """Append a row; raises UserError if it cannot be written, such as to a full disk."""
        try:
            self._file.write(json.dumps(row, allow_nan=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise UserError(f"{self._file.name}: cannot be written: {error.strerror}") from None

    def sync(self) -> None:
        """Wait until all rows are on the disk, so that no checkpoint is there without its row."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        with suppress(OSError):  # of a row that could not be written
            self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Rows of a metrics file; a torn last line, left by a kill, is dropped.

    Raises
    ------
    UserError
        If any other line is not a JSON object, naming the line.
    """
    lines = path.read_text(errors="replace").split("\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            if number < len(lines):
                raise UserError(f"{path}: line {number} is not JSON: {line[:60]}") from None
    return rows


def losses(path: Path) -> dict[str, dict[int, float]]:
    """Losses in nats per token by kind (`train`, `validation`) and step; of repeated steps the later one.

    Raises
    ------
    UserError
        If the file is not there or has no evaluation.
    """
    found: dict[str, dict[int, float]] = {"train": {}, "validation": {}}
    for row in read_metrics(path) if path.exists() else ():
        if row["kind"] in found:
            found[row["kind"]][row["step"]] = row["loss"]
    if not found["validation"]:
        raise UserError(f"{path}: no validation loss; put the file back that was written beside the checkpoints")
    return found


def last_validation_loss(path: Path, step: int) -> float:
    """The loss at the last evaluation up to a step, in nats per token; raises UserError if there is none."""
    evaluated = losses(path)["validation"]
    reached = [at for at in evaluated if at <= step]
    if not reached:
        raise UserError(
            f"{path}: no validation loss up to step {step}, though there are checkpoints beyond it; put the file back, "
            "or remove the run's checkpoints to train it again"
        )
    return evaluated[max(reached)]


class Mirror:
    """Sends rows to wandb under the names that the authors' runs use; its failures are warned of and end it, not the run.

    Each segment is a wandb run of its own, in the group of the run's name. Its config has all numbers of the run (see
    :class:`Run`), `key`, by which the run's recipe and corpus are told from others, and the segment's `start` row.
    `gemstones.losses.wandb` reads them back.
    """

    def __init__(self, run: Run, metrics: Path, settings: Training, start: Mapping[str, Any]) -> None:
        self._run: Any = None
        if settings.wandb_mode == "disabled":
            return
        try:
            import wandb

            folder = metrics.parent.parent
            folder.mkdir(parents=True, exist_ok=True)
            self._run = wandb.init(
                project=settings.wandb_project,
                group=run.name,
                name=f"{run.name}-from-{start['step']}",
                dir=folder,
                mode=settings.wandb_mode,
                tags=["cooldown" if run.is_cooldown else "pretrain"],
                config={**run.model_dump(mode="json"), **_scaling(run), "key": metrics.stem, "start": dict(start)},
                settings=wandb.Settings(
                    silent=True,
                    console="off",
                    disable_git=True,
                    disable_code=True,
                    x_disable_stats=True,
                    x_disable_meta=True,
                    x_save_requirements=False,
                ),
            )
        except Exception as error:  # whatever goes wrong there, the metrics file has it all
            self._stop(error)

    def write(self, row: dict[str, Any]) -> None:
        if self._run is None:
            return
        names = TRAIN_NAMES if row["kind"] == "train" else VALIDATION_NAMES
        try:
            self._run.log({name: row[key] for key, name in names.items()})
        except Exception as error:
            self._stop(error)

    def close(self) -> None:
        try:
            if self._run is not None:
                self._run.finish()
                self._run = None
        except Exception as error:
            self._stop(error)

    def _stop(self, error: Exception) -> None:
        log.warning("wandb: %s: %s; going on without it", type(error).__name__, error)
        self._run = None


def _scaling(run: Run) -> dict[str, float]:
    architecture = Architecture(run.head_size, run.vocabulary_size, run.context_length)
    return {
        "scaling/params": counting.params(run.width, run.depth, architecture),
        "scaling/width": run.width,
        "scaling/depth": run.depth,
        "scaling/max_lr": run.lr,
    }
