"""Validation loss: always over the same tokens, the first ones of the held-out split."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from gemstones.suite.runs import Run
from gemstones.training.data import Tokens

if TYPE_CHECKING:
    from gemstones.training.parallel import Parallel


class Windowed(Protocol):
    """Tokens of which windows can be taken."""

    def window(self, start: int, length: int) -> NDArray[np.int64]: ...


def windows(tokens: Windowed, numbers: Iterable[int], context_length: int) -> torch.Tensor:
    """(numbers, context_length + 1) token ids of some windows, whose inputs adjoin."""
    rows = [tokens.window(number * context_length, context_length + 1) for number in numbers]
    return torch.from_numpy(np.stack(rows))


@torch.no_grad()
def token_losses(
    model: Callable[[torch.Tensor], torch.Tensor],
    rows: torch.Tensor,
    autocast: torch.autocast,
    micro_batch_size: int | None = None,
) -> torch.Tensor:
    """(rows · context,) cross-entropies in nats of all but the first token of (rows, context + 1) token ids."""
    losses = []
    for some in torch.split(rows, micro_batch_size or len(rows)):
        with autocast:
            logits = model(some[:, :-1])  # (rows, context, vocabulary)
        losses.append(functional.cross_entropy(logits.flatten(0, 1).float(), some[:, 1:].flatten(), reduction="none"))
    return torch.cat(losses)


def validation_loss(
    parallel: Parallel, tokens: Tokens, run: Run, autocast: torch.autocast, micro_batch_size: int | None = None
) -> float:
    """Mean cross-entropy over the first `run.validation_tokens`, in nats per token, summed in double precision.

    Parameters
    ----------
    tokens : the held-out split.
    micro_batch_size : sequences that a process takes at a time; by default its part of a batch of the run.
    """
    count = min(run.validation_tokens, len(tokens) - 1) // run.context_length
    sums = torch.zeros(2, dtype=torch.float64, device=parallel.device)
    for first in range(0, count, run.batch_size):
        batch = range(first, min(first + run.batch_size, count))
        mine = list(batch[parallel.part :: parallel.parts])
        counted = len(mine) * run.context_length
        # All processes take as many steps, since most strategies exchange weights in each.
        mine += [first] * (-(-len(batch) // parallel.parts) - len(mine))  # not counted
        rows = windows(tokens, mine, run.context_length).to(parallel.device)
        losses = token_losses(parallel.model, rows, autocast, micro_batch_size)
        sums[0] += losses[:counted].sum(dtype=torch.float64)
        sums[1] += counted
    total, number = parallel.total(sums).tolist()
    return float(total / number)
