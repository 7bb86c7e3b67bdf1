"""Validation loss: always over the same tokens, the first ones of the held-out split."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from gemstones.training.data import Tokens

if TYPE_CHECKING:
    from litgpt import GPT


def windows(tokens: Tokens, validation_tokens: int, context_length: int, batch_size: int) -> Iterator[torch.Tensor]:
    """(≤ batch_size, context_length + 1) token ids: windows with adjoining inputs over the first `validation_tokens`."""
    count = min(validation_tokens, len(tokens) - 1) // context_length
    for first in range(0, count, batch_size):
        rows = range(first, min(first + batch_size, count))
        yield torch.from_numpy(np.stack([tokens.window(row * context_length, context_length + 1) for row in rows]))


@torch.no_grad()
def mean_loss(model: GPT, batches: list[torch.Tensor], autocast: torch.autocast) -> float:
    """Mean cross-entropy in nats per token, summed in double precision.

    Parameters
    ----------
    batches : each (batch, context_length + 1) token ids, on the model's device.
    """
    total, count = torch.zeros((), dtype=torch.float64, device=batches[0].device), 0
    for batch in batches:
        inputs, targets = batch[:, :-1], batch[:, 1:]
        with autocast:
            logits = model(inputs)
        losses = functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")
        total += losses.sum(dtype=torch.float64)
        count += targets.numel()
    return float(total / count)
