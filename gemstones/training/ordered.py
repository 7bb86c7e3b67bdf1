"""Documents' tokens from a file into shards, in another order and in bounded memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemstones import files

WRITE_TOKENS = 2**18  # at a time


@dataclass(frozen=True)
class Unordered:
    """Documents' tokens in a file, one after the other.

    Attributes
    ----------
    places, lengths : (documents,) of each, in [0, 1) and in tokens.
    """

    path: Path
    dtype: np.dtype[Any]
    places: NDArray[np.float64]
    lengths: NDArray[np.int64]


def write(
    unordered: Unordered, order: NDArray[np.intp], folder: Path, split: str, shard_tokens: int, vocabulary_size: int
) -> tuple[dict[str, Any], NDArray[np.int64]]:
    """Write documents as shards in the given order.

    Returns
    -------
    The split's number of documents and tokens, the sha256 of these, and its shards; and the (vocabulary,) counts of its tokens.
    """
    lengths = unordered.lengths[order]
    starts, ends = (np.cumsum(unordered.lengths) - unordered.lengths)[order], np.cumsum(lengths)
    total = int(lengths.sum())
    counts, everything, shards = np.zeros(vocabulary_size, np.int64), hashlib.sha256(), []
    with unordered.path.open("rb") as source:
        read = _reader(source.fileno(), unordered.dtype, starts, lengths)
        for number, first in enumerate(range(0, total, shard_tokens)):
            size, own = min(shard_tokens, total - first), hashlib.sha256()
            path = folder / f"{split}-{number:05d}.bin"
            with files.atomic(path) as temporary, temporary.open("wb") as file:
                for done in range(0, size, WRITE_TOKENS):
                    tokens = read(min(WRITE_TOKENS, size - done))
                    file.write(tokens.data)
                    own.update(tokens.data)
                    everything.update(tokens.data)
                    np.add(counts, np.bincount(tokens, minlength=vocabulary_size), out=counts)
            begins = ends - lengths - first
            index = path.with_suffix(".documents.npy")
            save(begins[(begins >= 0) & (begins < size)], index)
            shards.append({"file": path.name, "tokens": size, "sha256": own.hexdigest(), "documents": index.name})
    return {"documents": len(order), "tokens": total, "sha256": everything.hexdigest(), "shards": shards}, counts


def _reader(
    descriptor: int, dtype: np.dtype[Any], starts: NDArray[np.int64], lengths: NDArray[np.int64]
) -> Callable[[int], NDArray[Any]]:
    """A function that gives the next tokens of documents that lie about in a file.

    Read and not mapped: pages of a map would count as memory of the process.
    """
    documents = zip(starts.tolist(), lengths.tolist(), strict=True)
    rest = np.empty(0, dtype)

    def read(count: int) -> NDArray[Any]:
        nonlocal rest
        parts, size = [rest], len(rest)
        while size < count:
            start, length = next(documents)
            parts.append(np.frombuffer(os.pread(descriptor, length * dtype.itemsize, start * dtype.itemsize), dtype))
            size += length
        tokens = np.concatenate(parts)
        rest = tokens[count:].copy()
        return tokens[:count]

    return read


def save(values: NDArray[Any], path: Path) -> None:
    def _save(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.save(file, values)

    files.write_with(_save, path)
