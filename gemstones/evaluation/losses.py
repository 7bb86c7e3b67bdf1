"""Losses of models on sets of tokens, in nats per token and in bits per byte."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from gemstones.errors import UserError
from gemstones.evaluation.models import Model, best_device, open_model
from gemstones.evaluation.sets import Set, is_shards, of_shards, of_texts
from gemstones.training.data import Split
from gemstones.training.evaluate import token_losses, windows

# Tokens of a batch where no batch size is given: enough to fill a device, and few enough for the logits of a large vocabulary.
BATCH_TOKENS = 4096


Watch = Callable[[Sequence[Any], str], Iterable[Any]]


@dataclass(frozen=True)
class Evaluation:
    """A model's loss on some data.

    Attributes
    ----------
    model, data : as they were named.
    split : of shards; texts have none.
    tokens : that were predicted.
    bytes : of UTF-8 that these stand for, without what separates documents.
    loss : nats per token.
    bits_per_byte : all nats, those of separators too, in bits per byte; none where bytes are not known.
    context_length : of the windows, in tokens.
    """

    model: str
    data: str
    split: str | None
    tokens: int
    bytes: int | None
    loss: float
    bits_per_byte: float | None
    context_length: int
    tokenizer_sha256: str


@dataclass(frozen=True)
class Settings:
    """How models are evaluated; see :func:`gemstones.cli.evaluate`, whose options these are."""

    split: Split = "validation"
    tokens: int | None = None
    bytes: int | None = None
    context_length: int | None = None
    batch_size: int | None = None
    tokenizer: Path | None = None


def _silent(batches: Sequence[Any], what: str) -> Iterable[Any]:
    return batches


def evaluate(
    models: Sequence[Path], data: Sequence[str], settings: Settings = Settings(), watch: Watch = _silent
) -> Iterator[Evaluation]:
    """Every model on all the data, one model in memory at a time.

    Parameters
    ----------
    data : manifests of token shards, or corpora of texts.
    watch : is given the batches of a model and its name; gives the batches.

    Raises
    ------
    UserError
        If a model or data are missing or damaged, or do not go together.
    """
    for option, given, shards in (("--tokens", settings.tokens, True), ("--bytes", settings.bytes, False)):
        if given is not None and all(is_shards(one) != shards for one in data):
            wanted = "shards; of texts, it is --bytes" if shards else "texts; of shards, it is --tokens"
            raise UserError(f"{option} says how much is taken of {wanted}")
    device = best_device()
    encoded: dict[Any, Set] = {}
    for path in models:
        model = open_model(path, device, settings.tokenizer)
        for one in data:
            yield evaluate_model(model, one, settings, device, encoded, watch)
        del model
        gc.collect()  # before the next one is loaded


def evaluate_model(
    model: Model,
    data: str,
    settings: Settings,
    device: torch.device,
    encoded: dict[Any, Set],
    watch: Watch = _silent,
) -> Evaluation:
    """A model on some data, as :func:`evaluate` does it.

    Parameters
    ----------
    encoded : texts in the tokens of earlier models, to be used again and added to.
    """
    length = _context_length(model, settings.context_length)
    if is_shards(data):
        found = of_shards(Path(data), model, settings.split, settings.tokens, length)
    else:
        key = (data, settings.bytes, model.tokenizer, model.separator, model.own_special_tokens, model.vocabulary_size)
        if key not in encoded:
            encoded[key] = of_texts(data, model, settings.bytes)
        found = encoded[key]
    nats = total_loss(model, found, length, device, settings.batch_size, watch)
    bits = nats / math.log(2) / found.bytes if found.bytes else None
    return Evaluation(
        model.name, data, found.split, found.predicted, found.bytes, nats / found.predicted, bits, length,
        found.tokenizer_sha256,
    )  # fmt: skip


def total_loss(
    model: Model,
    found: Set,
    context_length: int,
    device: torch.device,
    batch_size: int | None = None,
    watch: Watch = _silent,
) -> float:
    """Nats of all predicted tokens, summed in double precision. The last window is short where they are no whole number of them."""
    full, rest = divmod(found.predicted, context_length)
    size = batch_size or max(1, BATCH_TOKENS // context_length)
    batches = [range(first, min(first + size, full)) for first in range(0, full, size)]
    if rest:
        batches.append(range(full, full + 1))
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=model.mixed)
    total = torch.zeros((), dtype=torch.float64, device=device)
    for numbers in watch(batches, model.name):
        if numbers.start < full:
            rows = windows(found.tokens, numbers, context_length)
        else:
            rows = torch.from_numpy(found.tokens.window(full * context_length, rest + 1))[None]
        total += token_losses(model.logits, rows.to(device), autocast).sum(dtype=torch.float64)
    return float(total)


def records(evaluations: Iterable[Evaluation]) -> list[dict[str, Any]]:
    return [asdict(evaluation) for evaluation in evaluations]


def _context_length(model: Model, wanted: int | None) -> int:
    if wanted is None:
        if model.context_length is None:
            raise UserError(f"{model.name}: has no longest context; choose one with --context-length")
        return model.context_length
    if model.context_length is not None and wanted > model.context_length:
        raise UserError(f"--context-length {wanted}: {model.name} has a context of {model.context_length}")
    return wanted
