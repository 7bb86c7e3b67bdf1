"""What a training process writes down: rows of metrics, their mirror, and events; of several processes, the first one does."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gemstones import __version__
from gemstones.study import Training
from gemstones.training.metrics import Metrics, Mirror

if TYPE_CHECKING:
    from gemstones.training.trainer import Trainer

log = logging.getLogger(__name__)


class Record:
    """Rows of metrics and their mirror, of the first process; the others write none."""

    def __init__(self, trainer: Trainer, metrics: Path, settings: Training) -> None:
        self._trainer, self._path, self._settings = trainer, metrics, settings
        self._metrics = Metrics(metrics) if trainer.parallel.rank == 0 else None
        self._mirror: Mirror | None = None
        self.begun = False

    def begin(self) -> None:
        """The first row after a start or a resume."""
        self.begun = True
        if self._metrics:
            start = self._start()
            self._metrics.write(start)
            if self._mirror is None:
                self._mirror = Mirror(self._trainer.run, self._path, self._settings, start)

    def _start(self) -> dict[str, Any]:
        return {
            "kind": "start",
            "time": round(time.time(), 3),
            "slurm_job_id": os.environ.get("SLURM_JOB_ID"),
            "step": self._trainer.step,
            "tokens": self._trainer.step * self._trainer.run.tokens_per_step,
            "device": self._trainer.device.type,
            "strategy": self._trainer.strategy,
            "roll_backs": self._trainer.roll_backs,
            "num_nodes": int(os.environ.get("SLURM_NNODES", "1")),
            "gpus": self._trainer.parallel.world,  # processes, each with one device or, on a CPU, one core
            "threads": torch.get_num_threads(),
            "torch_version": torch.__version__,
            "gemstones_version": __version__,
        }

    def write(self, row: dict[str, Any]) -> None:
        if self._metrics and self._mirror:
            self._metrics.write(row)
            self._mirror.write(row)

    def event(self, event: dict[str, Any]) -> None:
        """A line of `events.jsonl`, which all recipes of a run share, with the key of this one's metrics."""
        if self._metrics:
            log.warning("%s: step %s: %s", self._trainer.run.name, event["step"], said(event))
            events = Metrics(self._path.parent.parent / "events.jsonl")
            events.write({"key": self._path.stem, **event})
            events.close()

    def sync(self) -> None:
        if self._metrics:
            self._metrics.sync()

    def close(self) -> None:
        if self._metrics:
            self._metrics.close()
        if self._mirror:
            self._mirror.close()


def said(event: dict[str, Any]) -> str:
    """An event as text."""
    numbers = [
        f"{key.replace('_', ' ')} {value:.4g}" if isinstance(value, float) else f"{key.replace('_', ' ')} {value}"
        for key, value in event.items()
        if key not in ("kind", "step")
    ]
    return f"{event['kind'].replace('_', ' ')}: {', '.join(numbers)}"
