"""Validation loss: always over the same tokens, the first ones of the held-out split."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from gemstones.training.data import Tokens

if TYPE_CHECKING:
    from gemstones.training.parallel import Parallel


def windows(tokens: Tokens, validation_tokens: int, context_length: int, batch_size: int) -> Iterator[torch.Tensor]:
    """(≤ batch_size, context_length + 1) token ids: windows with adjoining inputs over the first `validation_tokens`."""
    count = min(validation_tokens, len(tokens) - 1) // context_length
    for first in range(0, count, batch_size):
        rows = range(first, min(first + batch_size, count))
        yield torch.from_numpy(np.stack([tokens.window(row * context_length, context_length + 1) for row in rows]))


@torch.no_grad()
def mean_loss(parallel: Parallel, batches: list[torch.Tensor], autocast: torch.autocast) -> float:
    """Mean cross-entropy in nats per token, summed in double precision.

    Parameters
    ----------
    batches : each (batch, context_length + 1) token ids, on the model's device.
    """
    device = parallel.device
    # All processes take as many steps, since most strategies exchange weights in each.
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    for batch in batches:
        rows = batch[parallel.part :: parallel.parts]
        counted = len(rows)
        if counted < -(-len(batch) // parallel.parts):
            rows = torch.cat([rows, batch[:1]])  # not counted
        with autocast:
            logits = parallel.model(rows[:, :-1])
        targets = rows[:, 1:]
        losses = functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")
        sums[0] += losses[: counted * targets.shape[1]].sum(dtype=torch.float64)
        sums[1] += counted * targets.shape[1]
    total, count = parallel.total(sums).tolist()
    return float(total / count)
