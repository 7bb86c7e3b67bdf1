"""The training loop: brings one run to the checkpoints that are missing. This module needs torch and a model."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from gemstones.errors import UserError
from gemstones.study import KeepCheckpoints, Training
from gemstones.suite.runs import Run
from gemstones.training import checkpoint
from gemstones.training.checkpoint import Checkpoint
from gemstones.training.deadline import Deadline, OutOfTime
from gemstones.training.record import Record, said
from gemstones.training.trainer import Trainer
from gemstones.training.watch import ACTS, Stopped

log = logging.getLogger(__name__)

LOG_EVERY = 50


def advance(
    run: Run,
    shards: Path,
    checkpoints: Path,
    metrics: Path,
    *,
    identity: str,
    missing: list[int],
    asked: Collection[int],
    parent: Checkpoint | None,
    settings: Training,
    deadline: Deadline,
) -> None:
    """Train until every step of `missing` has its checkpoint.

    For each of them the run goes on from the newest intact checkpoint before it, from the parent's where a cooldown has
    none, or else from the start. It is evaluated and saved on the way, every `run.evaluate_every` steps.

    Parameters
    ----------
    shards : the manifest of the token shards.
    checkpoints, metrics : folder and file of the run's state.
    identity : stands in every checkpoint and must match.
    missing : ascending steps.
    asked : steps whose checkpoints are wanted for other reasons than that a job ends there.
    parent : where a cooldown branches from.
    settings : what is kept and logged.
    deadline : of the job.

    Raises
    ------
    OutOfTime
        If the job has to end before; the state is saved.
    Stopped
        If the run has gone wrong, by the policy of `settings.watch`.
    """
    trainer = Trainer(run, shards, settings, initial=False)
    record = Record(trainer, metrics, settings)
    store = _Store(checkpoints, identity, asked, settings.keep_checkpoints)
    try:
        for target in missing:
            above = trainer.step if record.begun else -1
            resumed = trainer.parallel.first(partial(checkpoint.newest, checkpoints, target, above))
            if resumed:
                _restore(trainer, resumed, identity)
                store.read_back = resumed.step
            elif not record.begun and parent:
                if not trainer.parallel.first(parent.intact):
                    raise UserError(
                        f"{parent.path}: damaged (its checksum is another one); remove it and train {run.parent} again"
                    )
                _restore(trainer, parent, None)
            elif not record.begun:
                trainer.initialize()
            if trainer.parallel.largest(bool(deadline.reason)):
                _finish(trainer, record)
                raise OutOfTime(f"{run.name}: {_reason(deadline)}; nothing was trained since the last checkpoint")
            if resumed or not record.begun:
                record.begin()
                log.info("%s: training from step %d to %d", run.name, trainer.step, target)
                if (passes := run.steps * run.batch_size / trainer.batches.windows) > 1:
                    log.info("%s: %d steps read the training tokens %.1f times", run.name, run.steps, passes)
            if trainer.step == run.anchor:
                record.write(trainer.validate())
            deadline.begin_steps()
            _train_to(target, trainer, store, record, deadline)
    finally:
        record.close()
        trainer.saver.wait()


@dataclass
class _Store:
    """Where a run's checkpoints are, and which of them stay."""

    folder: Path
    identity: str
    asked: Collection[int]
    keep: KeepCheckpoints
    read_back: int = 0  # step of a checkpoint that was read back intact

    def save(self, step: int, state: dict[str, Any], milestone: bool) -> None:
        checkpoint.save(self.folder, step, state, milestone=milestone, end=milestone and step not in self.asked)
        if self.keep != "all":
            checkpoint.prune(self.folder, step, self.read_back if self.keep == "anchors" else 0)


def _train_to(target: int, trainer: Trainer, store: _Store, record: Record, deadline: Deadline) -> None:
    run = trainer.run
    log_step, log_time = trainer.step, time.perf_counter()
    while trainer.step < target:
        row = trainer.update()
        events = trainer.watcher.look(row)
        # All processes do what the most alarmed of them wants: their numbers may differ in rounding.
        act = ACTS[trainer.parallel.largest(ACTS.index(trainer.watcher.act(events, trainer.roll_backs)))]
        if math.isfinite(row["loss"]) and math.isfinite(row["gradient_norm"]):
            record.write(row)
        for event in events:
            record.event(event)
        if act == "stop":
            _stop(trainer, record, row["step"], events)
        if act == "roll_back":
            _roll_back(trainer, store, record, row["step"], events)
            log_step = trainer.step
            continue
        step = trainer.step
        if step % LOG_EVERY == 0 or step == target:
            now = time.perf_counter()
            speed = (step - log_step) * run.tokens_per_step / (now - log_time)
            log.info("%s: step %d of %d, loss %.4f, %.0f tokens/s", run.name, step, target, row["loss"], speed)
            log_step, log_time = step, now
        out_of_time = bool(trainer.parallel.largest(deadline.passed()))
        if step % run.evaluate_every == 0 or step == target:
            if not run.is_cooldown or step == run.steps:
                evaluation = trainer.validate()
                record.write(evaluation)
                log.info("%s: step %d, validation loss %.4f", run.name, step, evaluation["loss"])
        elif not out_of_time:
            continue
        record.sync()
        _save(trainer, store, milestone=step == target)
        if out_of_time or step == target:
            trainer.parallel.first(trainer.saver.wait)
        if out_of_time and step < target:
            _finish(trainer, record)
            raise OutOfTime(f"{run.name}: {_reason(deadline)}; saved at step {step} of {target}, to go on from there")


def _stop(trainer: Trainer, record: Record, step: int, events: list[dict[str, Any]], why: str = "") -> NoReturn:
    """End the run for good."""
    kind = events[0]["kind"] if events else "another process"
    record.event({"kind": "stop", "step": step, "because": why or kind})

    _finish(trainer, record)
    raise Stopped(
        trainer.run.name, step, ", ".join(part for part in (said(events[0]) if events else kind, why) if part)
    )


def _finish(trainer: Trainer, record: Record) -> None:
    """Close all that is written, while the other processes wait: one that ends takes the others with it."""

    def close() -> None:
        record.close()
        trainer.saver.wait()

    trainer.parallel.first(close)


def _reason(deadline: Deadline) -> str:
    return deadline.reason or "another process has to stop"


def _roll_back(trainer: Trainer, store: _Store, record: Record, step: int, events: list[dict[str, Any]]) -> None:
    """Go back some checkpoints, and read on after the batch of `step`, the one at which something went wrong."""
    policy, roll_backs = trainer.watcher.policy, trainer.roll_backs
    after, lr_factor = trainer.skipped + step, trainer.lr_factor * policy.roll_back_lr_factor
    trainer.parallel.first(trainer.saver.wait)
    source = trainer.parallel.first(partial(checkpoint.before, store.folder, step, policy.roll_back_checkpoints))
    if source is None:
        _stop(trainer, record, step, events, "no checkpoint to roll back to")
    _restore(trainer, source, store.identity)
    # Or the next job would go on from what was left behind.
    trainer.parallel.first(partial(checkpoint.discard, store.folder, source.step))
    trainer.skipped, trainer.lr_factor, trainer.roll_backs = after - trainer.step, lr_factor, roll_backs + 1
    record.event(
        {
            "kind": "roll_back",
            "step": step,
            "to": trainer.step,
            "skipped": trainer.skipped,
            "lr_factor": trainer.lr_factor,
        }
    )
    record.begin()
    log.warning("%s: rolled back from step %d to %d, and read on after it", trainer.run.name, step, trainer.step)


def _save(trainer: Trainer, store: _Store, milestone: bool) -> None:
    """Copy the state and write the copy while training goes on; waits until the one before is written."""
    trainer.parallel.first(trainer.saver.wait)
    state, step = trainer.state(store.identity), trainer.step
    if trainer.parallel.rank == 0:
        trainer.saver.start(partial(store.save, step, state, milestone))


def _restore(trainer: Trainer, source: Checkpoint, identity: str | None) -> None:
    state = checkpoint.load(source)
    if identity is not None and state["identity"] != identity:
        raise UserError(f"{source.path}: this checkpoint belongs to another recipe or corpus; remove it")
    trainer.restore(state)
