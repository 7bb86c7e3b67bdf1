"""Token shards, read memory-mapped; a batch is a pure function of seed and step, and each process reads only its rows."""

from __future__ import annotations

import json
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gemstones.errors import UserError
from gemstones.training.permutation import permuted

Split = Literal["train", "validation"]


def read_manifest(path: str | Path) -> dict[str, Any]:
    """The shards' manifest; raises UserError if it is missing or no such file."""
    try:
        manifest: dict[str, Any] = json.loads(Path(path).read_text())
        (
            manifest["tokens_sha256"],
            manifest["vocabulary_size"],
            manifest["splits"]["train"],
            manifest["splits"]["validation"],
        )
    except FileNotFoundError:
        raise UserError(f"{path}: not found; it is written when the corpus is made into shards") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path}: not a manifest of token shards") from None
    return manifest


def check_shards(manifest: str | Path, copies: Path | None = None) -> None:
    """Raise UserError if a shard is missing or not as long as the manifest says.

    Parameters
    ----------
    copies : folder with copies of the shards, to be looked at instead of those beside the manifest.
    """
    content = read_manifest(manifest)
    for split in content["splits"].values():
        for shard in split["shards"]:
            path, due = _path(manifest, shard, copies), shard["tokens"] * np.dtype(content["dtype"]).itemsize
            size = path.stat().st_size if path.is_file() else None
            if size != due:
                fault = "is missing" if size is None else f"has {size} bytes"
                remedy = "Copy the shards again, or leave out training.shards" if copies else "Make the shards again"
                raise UserError(f"{path}: the token shard {fault}; {manifest} lists it with {due} bytes. {remedy}")


def _path(manifest: str | Path, shard: dict[str, Any], copies: Path | None) -> Path:
    return copies / Path(shard["file"]).name if copies else Path(manifest).parent / shard["file"]


class Tokens:
    """One split as a single sequence of tokens, memory-mapped over its shards.

    Parameters
    ----------
    copies : folder with copies of the shards, to be read instead of those beside the manifest.

    Raises
    ------
    UserError
        If a shard is missing or not as long as the manifest says.
    """

    def __init__(self, manifest: str | Path, split: Split, copies: Path | None = None) -> None:
        content = read_manifest(manifest)
        dtype = np.dtype(content["dtype"])
        self._shards: list[NDArray[Any]] = []
        shards = content["splits"][split]["shards"]
        _allow_open_files(len(shards))
        check_shards(manifest, copies)
        for shard in shards:
            # A plain array over the map: slices of a memmap cost five times as much.
            self._shards.append(np.asarray(np.memmap(_path(manifest, shard, copies), dtype, mode="r")))
        self._starts = np.cumsum([0, *map(len, self._shards)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def window(self, start: int, length: int) -> NDArray[np.int64]:
        """(length,) token ids from position `start`, across the borders of shards."""
        window = np.empty(length, np.int64)
        self.read(start, window)
        return window

    def read(self, start: int, into: NDArray[np.int64]) -> None:
        """Fill (length,) with the token ids from position `start`."""
        length, done = len(into), 0
        if not 0 <= start <= start + length <= len(self):
            raise IndexError(f"tokens {start} to {start + length} of {len(self)}")
        shard = int(np.searchsorted(self._starts, start, side="right")) - 1
        while done < length:
            offset = start + done - int(self._starts[shard])
            part = self._shards[shard][offset : offset + length - done]
            into[done : done + len(part)] = part
            done, shard = done + len(part), shard + 1


def _allow_open_files(number: int) -> None:
    """Raise this process's limit: each mapped file counts as open, and the usual limit is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    due = number + 512  # for all else, and the other split
    if soft != resource.RLIM_INFINITY and soft < due:
        if hard != resource.RLIM_INFINITY and hard < due:
            raise UserError(f"{number} token shards: the limit of open files is {hard}; raise it (ulimit -Hn)")
        resource.setrlimit(resource.RLIMIT_NOFILE, (due, hard))


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

    def batch(self, step: int, part: int = 0, parts: int = 1) -> NDArray[np.int64]:
        """Token ids of the batch after `step` steps, whatever was read before.

        Parameters
        ----------
        part, parts : which of so many equal parts of the batch; put together they are the batch.

        Returns
        -------
        (batch_size / parts, context_length + 1)

        Raises
        ------
        UserError
            If the batch cannot be split evenly.
        """
        if self.batch_size % parts:
            raise UserError(
                f"recipe.batch_size: {self.batch_size} sequences cannot be split evenly over {parts} processes"
            )
        size = self.batch_size // parts
        epochs, places = np.divmod(step * self.batch_size + part * size + np.arange(size), self.windows)
        rows = np.empty((size, self.context_length + 1), np.int64)
        for epoch in np.unique(epochs).tolist():
            mine = np.flatnonzero(epochs == epoch)
            windows = permuted(places[mine], self.windows, (self.seed, epoch))
            for row, window in zip(mine.tolist(), windows.tolist(), strict=True):
                self.tokens.read(window * self.context_length, rows[row])
        return rows
