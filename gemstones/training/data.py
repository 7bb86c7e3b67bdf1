"""Token shards: built once from a corpus, then read memory-mapped; a batch is a pure function of seed and step."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from gemstones import __version__
from gemstones.errors import UserError
from gemstones.study import Data
from gemstones.training import corpus

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Split = Literal["train", "validation"]
SEPARATOR = "<|endoftext|>"
ENCODE_DOCUMENTS = 256

log = logging.getLogger(__name__)


def build(data: Data, vocabulary_size: int, *, manifest: str | Path, tokenizer: str | Path, shards: str | Path) -> None:
    """Tokenise a corpus into shards `train-00000.bin`, …, `validation-00000.bin` and describe them in a manifest.

    Parameters
    ----------
    data : the corpus, its split and the size of a shard.
    vocabulary_size : of the models; no token id reaches it.
    manifest, tokenizer, shards : outputs, two files and a folder. The manifest is written last.

    Raises
    ------
    UserError
        If the corpus, the tokenizer or the vocabulary do not fit, or a split is too small.
    """
    from gemstones import files

    manifest, tokenizer, shards = Path(manifest), Path(tokenizer), Path(shards)
    texts = corpus.split(data.corpus, data.validation_fraction)
    model = _tokenizer(data.tokenizer, texts["train"], vocabulary_size)
    files.write_with(lambda path: model.save(str(path)), tokenizer)
    dtype = np.dtype("uint16" if vocabulary_size <= 2**16 else "uint32")
    splits: dict[str, Any] = {}
    counts: dict[str, NDArray[np.int64]] = {}
    # Over the tokens and not the files, so that another size of shards leaves the corpus what it is.
    identity = hashlib.sha256(dtype.name.encode())
    for split, members in texts.items():
        encoded = _encode(model, members)
        identity.update(split.encode())
        written, counts[split] = _write_shards(
            encoded, shards / split, data.shard_tokens, dtype, vocabulary_size, identity
        )
        for shard in written:
            shard["file"] = os.path.relpath(shard["file"], manifest.parent)
        tokens = sum(shard["tokens"] for shard in written)
        splits[split] = {"documents": len(members), "tokens": tokens, "shards": written}
        log.info("%s: %d documents, %d tokens", split, len(members), tokens)
    if splits["validation"]["tokens"] <= data.validation_tokens:
        raise UserError(
            f"data.validation_tokens: an evaluation wants {data.validation_tokens} tokens and the next one, the held-out "
            f"documents have {splits['validation']['tokens']}; lower it or raise data.validation_fraction"
        )
    files.write_json(
        {
            "corpus": data.corpus,
            "tokenizer": {"file": os.path.relpath(tokenizer, manifest.parent), "sha256": files.sha256(tokenizer)},
            "vocabulary_size": vocabulary_size,
            "dtype": dtype.name,
            "splits": splits,
            "unigram_entropy": unigram_entropy(counts["train"], counts["validation"]),
            "tokens_sha256": identity.hexdigest(),
            "specification": data.model_dump(mode="json"),
            "gemstones_version": __version__,
        },
        manifest,
    )


def unigram_entropy(train: NDArray[np.int64], validation: NDArray[np.int64]) -> float:
    """Nats per validation token under the training unigram distribution: what a model without context could reach.

    Parameters
    ----------
    train, validation : (vocabulary,) counts of each token. One is added to the training counts, for unseen tokens.
    """
    probabilities = (train + 1) / (train + 1).sum()
    return float(-(validation * np.log(probabilities)).sum() / validation.sum())


def _tokenizer(path: str | None, texts: list[str], vocabulary_size: int) -> Tokenizer:
    """The tokenizer of a file, or a byte-level BPE trained on the training split."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    if path is not None:
        try:
            tokenizer = Tokenizer.from_file(path)
        except Exception as error:  # the library raises bare Exceptions
            raise UserError(f"data.tokenizer: {path} cannot be read as a tokenizer: {error}") from None
        if tokenizer.token_to_id(SEPARATOR) is None:
            raise UserError(f"data.tokenizer: {path} has no token {SEPARATOR}, which separates documents")
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary_size, special_tokens=[SEPARATOR], initial_alphabet=alphabet, show_progress=False
        )
        tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() > vocabulary_size:
        raise UserError(
            f"suite.vocabulary_size: {vocabulary_size} is less than the {tokenizer.get_vocab_size()} tokens of the tokenizer"
        )
    return tokenizer


def _encode(tokenizer: Tokenizer, texts: list[str]) -> Iterator[list[int]]:
    """Token ids of each document, with the separator at its end."""
    separator = tokenizer.encode(SEPARATOR, add_special_tokens=False).ids
    for first in range(0, len(texts), ENCODE_DOCUMENTS):
        for encoding in tokenizer.encode_batch_fast(texts[first : first + ENCODE_DOCUMENTS], add_special_tokens=False):
            yield [*encoding.ids, *separator]


def _write_shards(
    encoded: Iterable[list[int]],
    prefix: Path,
    shard_tokens: int,
    dtype: np.dtype[Any],
    vocabulary_size: int,
    identity: Any,
) -> tuple[list[dict[str, Any]], NDArray[np.int64]]:
    """Write a split; gives each shard's file, tokens and sha256, and the (vocabulary,) counts of the tokens.

    `identity` is a hash that takes in all tokens.
    """
    from gemstones import files

    written: list[dict[str, Any]] = []
    counts = np.zeros(vocabulary_size, np.int64)
    waiting, size = [np.empty(0, dtype)], 0

    def write(tokens: NDArray[Any]) -> None:
        path = prefix.with_name(f"{prefix.name}-{len(written):05d}.bin")
        files.write_with(tokens.tofile, path)
        written.append({"file": str(path), "tokens": len(tokens), "sha256": files.sha256(path)})
        identity.update(tokens.tobytes())
        np.add(counts, np.bincount(tokens, minlength=vocabulary_size), out=counts)

    for ids in encoded:
        waiting.append(np.array(ids, dtype))
        size += len(ids)
        if size >= shard_tokens:
            tokens = np.concatenate(waiting)
            whole = size // shard_tokens * shard_tokens
            for first in range(0, whole, shard_tokens):
                write(tokens[first : first + shard_tokens])
            waiting, size = [tokens[whole:]], size - whole
    if size:
        write(np.concatenate(waiting))
    return written, counts


def read_manifest(path: str | Path) -> dict[str, Any]:
    """The shards' manifest; raises UserError if it is missing or no such file."""
    try:
        manifest: dict[str, Any] = json.loads(Path(path).read_text())
        manifest["tokens_sha256"], manifest["splits"]["train"], manifest["splits"]["validation"]
    except FileNotFoundError:
        raise UserError(f"{path}: not found; it is written when the corpus is made into shards") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path}: not a manifest of token shards") from None
    return manifest


class Tokens:
    """One split as a single sequence of tokens, memory-mapped over its shards.

    Raises
    ------
    UserError
        If a shard is missing or not as long as the manifest says.
    """

    def __init__(self, manifest: str | Path, split: Split) -> None:
        folder, content = Path(manifest).parent, read_manifest(manifest)
        dtype = np.dtype(content["dtype"])
        self._shards: list[NDArray[Any]] = []
        for shard in content["splits"][split]["shards"]:
            path, due = folder / shard["file"], shard["tokens"] * dtype.itemsize
            size = path.stat().st_size if path.is_file() else None
            if size != due:
                fault = "is missing" if size is None else f"has {size} bytes"
                raise UserError(
                    f"{path}: the token shard {fault}; {manifest} lists it with {due} bytes. Make the shards again"
                )
            self._shards.append(np.memmap(path, dtype, mode="r"))
        self._starts = np.cumsum([0, *map(len, self._shards)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def window(self, start: int, length: int) -> NDArray[np.int64]:
        """(length,) token ids from position `start`, across the borders of shards."""
        if not 0 <= start <= start + length <= len(self):
            raise IndexError(f"tokens {start} to {start + length} of {len(self)}")
        parts = []
        shard = int(np.searchsorted(self._starts, start, side="right")) - 1
        while length > 0:
            offset = start - int(self._starts[shard])
            part = self._shards[shard][offset : offset + length]
            parts.append(part)
            start, length, shard = start + len(part), length - len(part), shard + 1
        return np.concatenate(parts, dtype=np.int64) if parts else np.empty(0, np.int64)


@dataclass(frozen=True)
class Batches:
    """Batches of training windows; every window is used once an epoch, in an order drawn anew for each epoch."""

    tokens: Tokens
    batch_size: int
    context_length: int
    seed: int

    def __post_init__(self) -> None:
        if self.windows < 1:
            raise UserError(
                f"suite.context_length: the training split has {len(self.tokens)} tokens, "
                f"a window of {self.context_length} and its last target do not fit"
            )

    @property
    def windows(self) -> int:
        """Windows in an epoch; their inputs do not overlap, the target after the last input is the next one's first."""
        return (len(self.tokens) - 1) // self.context_length

    def batch(self, step: int) -> NDArray[np.int64]:
        """(batch_size, context_length + 1) token ids of the batch after `step` steps, whatever was read before."""
        first = step * self.batch_size
        rows = []
        for number in range(first, first + self.batch_size):
            epoch, place = divmod(number, self.windows)
            window = int(_order(self.seed, epoch, self.windows)[place])
            rows.append(self.tokens.window(window * self.context_length, self.context_length + 1))
        return np.stack(rows)


@lru_cache(maxsize=2)  # a batch may straddle two epochs
def _order(seed: int, epoch: int, windows: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch]).permutation(windows)
