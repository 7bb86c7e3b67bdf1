"""The training loop: brings one run to the checkpoints that are missing. This module needs torch and a model."""

from __future__ import annotations

import ctypes
import logging
import math
import os
import resource
import time
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch.nn import functional

from gemstones.errors import UserError
from gemstones.study import Training
from gemstones.suite.runs import Run
from gemstones.training import checkpoint, parallel
from gemstones.training.checkpoint import Checkpoint, Saver
from gemstones.training.data import Batches, Tokens
from gemstones.training.deadline import Deadline, OutOfTime
from gemstones.training.evaluate import validation_loss
from gemstones.training.initialization import initialize
from gemstones.training.model import build_model
from gemstones.training.optimizer import build_optimizer, learning_rate
from gemstones.training.record import Record, said
from gemstones.training.watch import ACTS, Stopped, Watcher

log = logging.getLogger(__name__)

LOG_EVERY = 50


class Trainer:
    """Model, optimizer and data of a run; `step` counts its updates and decides the next batch and learning rate.

    Roll-backs shift what is read by `skipped` batches, and multiply the learning rate by `lr_factor`.
    """

    def __init__(self, run: Run, shards: Path, settings: Training = Training(), initial: bool = True) -> None:
        """With `initial` weights, unless a checkpoint is to be restored: drawing them takes a minute at 2B parameters."""
        if "OMP_NUM_THREADS" not in os.environ:
            # Runs are trained side by side, and two sets of spinning threads on the same cores are 30 times slower.
            torch.set_num_threads(1)
        _keep_freed_memory()
        self.strategy, self.parallel = settings.strategy, parallel.of(settings.strategy)
        torch.manual_seed(run.seed)
        self.run = run
        self.step, self.skipped, self.lr_factor, self.roll_backs = 0, 0, 1.0, 0
        self.watcher = Watcher(settings.watch)
        self.saver = Saver()
        self.device = self.parallel.device
        self.micro_batch_size = settings.micro_batch_size
        self.autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=run.precision == "bf16-mixed")
        self.parallel.wrap(lambda: build_model(run))
        if initial:
            self.initialize()
        self.loss = mean_loss
        if settings.compile:
            self._compile()
        self.optimizer = build_optimizer(self.parallel.module, run)
        self.batches = Batches(Tokens(shards, "train"), run.batch_size, run.context_length, run.seed)
        self.held_out = Tokens(shards, "validation")

    def initialize(self) -> None:
        """Draw the full initial weights, the same whatever the strategy, and load them."""
        model = build_model(self.run)
        initialize(model, self.run)
        self.parallel.load_weights({name: weight.detach() for name, weight in model.named_parameters()})

    def update(self) -> dict[str, Any]:
        """One optimizer step; gives its row of metrics, with the loss of the batch before the update.

        Where loss or gradient norm is not finite, the weights and the step are as before.
        """
        began = time.perf_counter()
        run, lr = self.run, self.lr_factor * learning_rate(self.run, self.step)
        rows = self.batches.batch(self.step + self.skipped, self.parallel.part, self.parallel.parts)
        batch = torch.from_numpy(rows).to(self.device, non_blocking=True)
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        parts = torch.split(batch, self.micro_batch_size or len(batch))
        for i, part in enumerate(parts):
            with self.parallel.accumulate(last=i == len(parts) - 1):
                with self.autocast:
                    logits = self.parallel.model(part[:, :-1])  # (batch, context, vocabulary)
                    loss = self.loss(logits, part[:, 1:])
                    loss = loss * (len(part) / len(batch)) if len(parts) > 1 else loss
                loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        self.parallel.sync()
        norm = self.parallel.clip(run.gradient_clipping)
        loss_nats, gradient_norm = self.parallel.total(total).item() / self.parallel.parts, norm.item()
        step = self.step + 1
        if math.isfinite(loss_nats) and math.isfinite(gradient_norm):
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            self.optimizer.step()
            self.step = step
        seconds = time.perf_counter() - began
        return {
            "kind": "train",
            "step": step,
            "tokens": step * run.tokens_per_step,
            "loss": loss_nats,
            "lr": lr,
            "gradient_norm": gradient_norm,
            "seconds": round(seconds, 6),
            "tokens_per_second": round(run.tokens_per_step / seconds),
            "memory_bytes": self._memory(),
        }

    def _compile(self) -> None:
        """Layer by layer, since all have the same code: a deep model takes as long as a shallow one."""
        for layer in self.parallel.module.transformer.h:
            layer.forward = torch.compile(layer.forward)
        self.loss = torch.compile(mean_loss)

    def _memory(self) -> int:
        """The most that this process has held so far: of its device's memory, or on a CPU of the machine's."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def validate(self) -> dict[str, Any]:
        """The row of metrics of an evaluation."""
        loss = validation_loss(self.parallel, self.held_out, self.run, self.autocast, self.micro_batch_size)
        return {
            "kind": "validation",
            "step": self.step,
            "tokens": self.step * self.run.tokens_per_step,
            "loss": loss,
            "validation_set": "validation",
        }

    def state(self, identity: str) -> dict[str, Any]:
        """All that the next steps depend on; the place in the data is the step itself and what was skipped.

        Its tensors are in memory that the next call uses again.
        """
        generators = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            generators["cuda"] = torch.cuda.get_rng_state()
        return {
            "identity": identity,
            "step": self.step,
            "skipped": self.skipped,
            "lr_factor": self.lr_factor,
            "roll_backs": self.roll_backs,
            "watch": self.watcher.state(),
            "model": self.parallel.weights(),
            "optimizer": self.parallel.moments(self.optimizer),
            "generators": generators,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.parallel.load_weights(state["model"])
        self.parallel.load_moments(self.optimizer, state["optimizer"])
        self.step, self.skipped = state["step"], state["skipped"]
        self.lr_factor, self.roll_backs = state["lr_factor"], state["roll_backs"]
        self.watcher.restore(state["watch"])
        torch.set_rng_state(state["generators"]["cpu"])
        if self.device.type == "cuda" and "cuda" in state["generators"]:
            torch.cuda.set_rng_state(state["generators"]["cuda"])


def mean_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in nats per token of (batch, context, vocabulary) logits and (batch, context) token ids."""
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def advance(
    run: Run,
    shards: Path,
    checkpoints: Path,
    metrics: Path,
    *,
    identity: str,
    missing: list[int],
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
    try:
        for target in missing:
            above = trainer.step if record.begun else -1
            resumed = trainer.parallel.first(partial(checkpoint.newest, checkpoints, target, above))
            if resumed:
                _restore(trainer, resumed, identity)
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
            _train_to(target, trainer, checkpoints, record, deadline, identity, settings.keep_checkpoints == "all")
    finally:
        record.close()
        trainer.saver.wait()


def _train_to(
    target: int, trainer: Trainer, checkpoints: Path, record: Record, deadline: Deadline, identity: str, keep_all: bool
) -> None:
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
            _roll_back(trainer, checkpoints, record, identity, row["step"], events)
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
        _save(trainer, checkpoints, identity, milestone=step == target, keep_all=keep_all)
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


def _roll_back(
    trainer: Trainer, checkpoints: Path, record: Record, identity: str, step: int, events: list[dict[str, Any]]
) -> None:
    """Go back some checkpoints, and read on after the batch of `step`, the one at which something went wrong."""
    policy, roll_backs = trainer.watcher.policy, trainer.roll_backs
    after, lr_factor = trainer.skipped + step, trainer.lr_factor * policy.roll_back_lr_factor
    trainer.parallel.first(trainer.saver.wait)
    source = trainer.parallel.first(partial(checkpoint.before, checkpoints, step, policy.roll_back_checkpoints))
    if source is None:
        _stop(trainer, record, step, events, "no checkpoint to roll back to")
    _restore(trainer, source, identity)
    # Or the next job would go on from what was left behind.
    trainer.parallel.first(partial(checkpoint.discard, checkpoints, source.step))
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


def _save(trainer: Trainer, checkpoints: Path, identity: str, milestone: bool, keep_all: bool) -> None:
    """Copy the state and write the copy while training goes on; waits until the one before is written."""
    trainer.parallel.first(trainer.saver.wait)
    state, step = trainer.state(identity), trainer.step

    def save() -> None:
        checkpoint.save(checkpoints, step, state, milestone=milestone)
        if not keep_all:
            checkpoint.prune(checkpoints, step)

    if trainer.parallel.rank == 0:
        trainer.saver.start(save)


def _restore(trainer: Trainer, source: Checkpoint, identity: str | None) -> None:
    state = checkpoint.load(source)
    if identity is not None and state["identity"] != identity:
        raise UserError(f"{source.path}: this checkpoint belongs to another recipe or corpus; remove it")
    trainer.restore(state)


def _keep_freed_memory() -> None:
    """Have glibc keep what is freed: faulting in new pages each step takes a fifth of a tiny model's time on a CPU."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # not so in other C libraries
        trim_threshold, mmap_threshold = -1, -3
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_threshold, 2**25)
