"""A model in training: weights, optimizer and data of a run under its strategy, a step at a time."""

from __future__ import annotations

import ctypes
import math
import os
import resource
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from gemstones import files
from gemstones.study import Training
from gemstones.suite.runs import Run
from gemstones.training import parallel
from gemstones.training.checkpoint import Saver
from gemstones.training.data import Batches, Tokens
from gemstones.training.evaluate import validation_loss
from gemstones.training.initialization import initialize
from gemstones.training.model import build_model
from gemstones.training.optimizer import build_optimizer, learning_rate
from gemstones.training.watch import Watcher


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
        copies = files.expanded(settings.shards, "training.shards") if settings.shards else None
        self.batches = Batches(Tokens(shards, "train", copies), run.batch_size, run.context_length, run.seed)
        self.held_out = Tokens(shards, "validation", copies)

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


def _keep_freed_memory() -> None:
    """Have glibc keep what is freed: faulting in new pages each step takes a fifth of a tiny model's time on a CPU."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # not so in other C libraries
        trim_threshold, mmap_threshold = -1, -3
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_threshold, 2**25)
