"""The training loop: brings one run to the checkpoints that are missing. This module needs torch and a model."""

from __future__ import annotations

import ctypes
import logging
import math
import os
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from gemstones import __version__
from gemstones.errors import UserError
from gemstones.study import Training
from gemstones.suite.runs import Run
from gemstones.training import checkpoint, evaluate
from gemstones.training.checkpoint import Checkpoint
from gemstones.training.data import Batches, Tokens
from gemstones.training.initialization import initialize
from gemstones.training.metrics import Metrics, Mirror
from gemstones.training.model import build_model
from gemstones.training.optimizer import build_optimizer, get_state, learning_rate, set_state

log = logging.getLogger(__name__)

LOG_EVERY = 50


class Trainer:
    """Model, optimizer and data of a run; `step` counts its updates and decides the next batch and learning rate."""

    def __init__(self, run: Run, shards: Path) -> None:
        if "OMP_NUM_THREADS" not in os.environ:
            # Runs are trained side by side, and two sets of spinning threads on the same cores are 30 times slower.
            torch.set_num_threads(1)
        _keep_freed_memory()
        torch.manual_seed(run.seed)
        self.run = run
        self.step = 0
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=run.precision == "bf16-mixed")
        model = build_model(run)
        initialize(model, run)
        self.model = model.to(self.device)
        self.weights = list(self.model.parameters())
        self.optimizer = build_optimizer(self.model, run)
        self.batches = Batches(Tokens(shards, "train"), run.batch_size, run.context_length, run.seed)
        held_out = Tokens(shards, "validation")
        windows = evaluate.windows(held_out, run.validation_tokens, run.context_length, run.batch_size)
        self.validation = [batch.to(self.device) for batch in windows]

    def update(self) -> dict[str, Any]:
        """One optimizer step; gives its row of metrics, with the loss of the batch before the update.

        Raises
        ------
        UserError
            If loss or gradient norm is not finite; the weights are then as before.
        """
        began = time.perf_counter()
        run, lr = self.run, learning_rate(self.run, self.step)
        batch = torch.from_numpy(self.batches.batch(self.step)).to(self.device)
        inputs, targets = batch[:, :-1], batch[:, 1:]  # (batch, context)
        with self.autocast:
            logits = self.model(inputs)  # (batch, context, vocabulary)
            loss = functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.weights, run.gradient_clipping, foreach=True)
        loss_nats, gradient_norm = loss.item(), norm.item()
        if not (math.isfinite(loss_nats) and math.isfinite(gradient_norm)):
            raise UserError(
                f"{run.name}: loss {loss_nats:g} and gradient norm {gradient_norm:g} at step {self.step + 1} are not finite "
                f"(learning rate {lr:.3g}); earlier checkpoints are kept"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.step += 1
        return {
            "kind": "train",
            "step": self.step,
            "tokens": self.step * run.tokens_per_step,
            "loss": loss_nats,
            "lr": lr,
            "gradient_norm": gradient_norm,
            "seconds": round(time.perf_counter() - began, 6),
        }

    def validate(self) -> dict[str, Any]:
        """The row of metrics of an evaluation."""
        return {
            "kind": "validation",
            "step": self.step,
            "tokens": self.step * self.run.tokens_per_step,
            "loss": evaluate.mean_loss(self.model, self.validation, self.autocast),
            "validation_set": "validation",
        }

    def state(self, identity: str) -> dict[str, Any]:
        """All that the next steps depend on; the place in the data is the step itself."""
        generators = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            generators["cuda"] = torch.cuda.get_rng_state()
        return {
            "identity": identity,
            "step": self.step,
            "model": dict(self.model.state_dict()),
            "optimizer": get_state(self.optimizer, self.model),
            "generators": generators,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        set_state(self.optimizer, self.model, state["optimizer"])
        self.step = state["step"]
        torch.set_rng_state(state["generators"]["cpu"])
        if self.device.type == "cuda" and "cuda" in state["generators"]:
            torch.cuda.set_rng_state(state["generators"]["cuda"])


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
    """
    trainer = Trainer(run, shards)
    record = Metrics(metrics)
    mirror: Mirror | None = None
    try:
        for target in missing:
            resumed = checkpoint.newest(checkpoints, target, above=trainer.step if mirror else -1)
            if resumed:
                _restore(trainer, resumed, identity)
            elif mirror is None and parent:
                if not parent.intact():
                    raise UserError(
                        f"{parent.path}: damaged (its checksum is another one); remove it and train {run.parent} again"
                    )
                _restore(trainer, parent, None)
            if resumed or mirror is None:
                record.write(_start_row(trainer))
                log.info("%s: training from step %d to %d", run.name, trainer.step, target)
            if mirror is None:
                mirror = Mirror(run, metrics.parent.parent, settings, trainer.step)
            if trainer.step == run.anchor:
                _write(trainer.validate(), record, mirror)
            _train_to(
                target, trainer, checkpoints, record, mirror, identity, keep_all=settings.keep_checkpoints == "all"
            )
    finally:
        record.close()
        if mirror:
            mirror.close()


def _train_to(
    target: int, trainer: Trainer, checkpoints: Path, record: Metrics, mirror: Mirror, identity: str, keep_all: bool
) -> None:
    run = trainer.run
    log_step, log_time = trainer.step, time.perf_counter()
    while trainer.step < target:
        row = trainer.update()
        _write(row, record, mirror)
        step = trainer.step
        if step % LOG_EVERY == 0 or step == target:
            now = time.perf_counter()
            speed = (step - log_step) * run.tokens_per_step / (now - log_time)
            log.info("%s: step %d of %d, loss %.4f, %.0f tokens/s", run.name, step, target, row["loss"], speed)
            log_step, log_time = step, now
        if step % run.evaluate_every == 0 or step == target:
            if run.phase != "cooldown" or step == run.steps:
                evaluation = trainer.validate()
                _write(evaluation, record, mirror)
                log.info("%s: step %d, validation loss %.4f", run.name, step, evaluation["loss"])
            record.sync()
            checkpoint.save(checkpoints, step, trainer.state(identity), milestone=step == target)
            if not keep_all:
                checkpoint.prune(checkpoints, step)


def _restore(trainer: Trainer, source: Checkpoint, identity: str | None) -> None:
    state = checkpoint.load(source)
    if identity is not None and state["identity"] != identity:
        raise UserError(f"{source.path}: this checkpoint belongs to another recipe or corpus; remove it")
    trainer.restore(state)


def _write(row: dict[str, Any], record: Metrics, mirror: Mirror) -> None:
    record.write(row)
    mirror.write(row)


def _keep_freed_memory() -> None:
    """Have glibc keep what is freed: faulting in new pages each step takes a fifth of a tiny model's time on a CPU."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # not so in other C libraries
        trim_threshold, mmap_threshold = -1, -3
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_threshold, 2**25)


def _start_row(trainer: Trainer) -> dict[str, Any]:
    return {
        "kind": "start",
        "step": trainer.step,
        "tokens": trainer.step * trainer.run.tokens_per_step,
        "device": trainer.device.type,
        "num_nodes": 1,
        "gpus": 1,  # processes, each with one device or, on a CPU, one core
        "threads": torch.get_num_threads(),
        "torch_version": torch.__version__,
        "gemstones_version": __version__,
    }
