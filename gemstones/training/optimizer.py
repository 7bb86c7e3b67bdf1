"""AdamW as the suite uses it, and the learning rate of every step."""

from __future__ import annotations

import inspect

import torch

from gemstones.suite.runs import Run

NORMS = {"norm_1", "norm_2", "ln_f"}


class AdamW(torch.optim.AdamW):
    """torch's AdamW without its guards against torch.compile.

    The guards import torch._dynamo, which takes 2 CPU-seconds, only to keep it out; the optimizer is never compiled.
    """

    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))
    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.AdamW.zero_grad)


def learning_rate(run: Run, step: int) -> float:
    """Learning rate of the update after `step` updates.

    Linear warm-up from 0 at the first update, then constant; a cooldown goes linearly from the peak at its anchor to
    0 at its last step.
    """
    if run.anchor is not None:
        return run.lr * (run.steps - step) / (run.steps - run.anchor)
    return run.lr * min(1.0, step * run.tokens_per_step / run.warmup_tokens)


def decays(name: str, run: Run) -> bool:
    """Whether a parameter has weight decay: norms and biases have none, but for the last norm where the recipe says so.

    By name, not by dimension: sharded weights are flat.
    """
    *modules, kind = name.split(".")
    if run.decay_final_norm and "ln_f" in modules:
        return True
    return kind != "bias" and not NORMS & set(modules)


def build_optimizer(model: torch.nn.Module, run: Run) -> AdamW:
    """AdamW with groups of parameters with and without weight decay.

    The variant is fixed: fused and other updates differ in the last bit, so a resumed run has to use the same one. Fused ones
    are three times as fast on a CPU too, and make no temporary copies.
    """
    groups: dict[tuple[bool, type], list[torch.nn.Parameter]] = {}
    for name, weight in model.named_parameters():
        # A fused update cannot mix tensors that are sharded and tensors that are not.
        groups.setdefault((decays(name, run), type(weight.data)), []).append(weight)
    return AdamW(
        [
            {"params": weights, "weight_decay": run.weight_decay if decay else 0.0}
            for (decay, _), weights in groups.items()
        ],
        lr=run.lr, betas=(run.beta1, run.beta2), eps=run.epsilon, fused=True,
    )  # fmt: skip
