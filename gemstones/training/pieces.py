"""Pieces of a corpus, tokenised on many processes; those that are finished are found again."""

from __future__ import annotations

import array
import ctypes
import hashlib
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gemstones import files
from gemstones.errors import UserError
from gemstones.study import Data
from gemstones.training.corpus import Piece, position
from gemstones.training.ordered import Unordered, save, write
from gemstones.training.tokenizer import SEPARATOR

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# What is tokenised at a time.
ENCODE_DOCUMENTS, ENCODE_CHARACTERS = 256, 2**20
FORMAT = 1  # of pieces: another number has all of them made again
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Tokenise:
    """Makes a piece's folder, or finds it, and gives its record; called in many processes.

    Attributes
    ----------
    tokenizer : its file.
    data : how documents are split, and the size of a shard.
    store : the folder of pieces.
    """

    tokenizer: Path
    tokenizer_sha256: str
    vocabulary_size: int
    data: Data
    store: Path

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype("uint16" if self.vocabulary_size <= 2**16 else "uint32")

    def __call__(self, piece: Piece) -> dict[str, Any]:
        decides = [
            FORMAT, piece.name, piece.bytes, piece.sha256, self.tokenizer_sha256,
            self.vocabulary_size, self.data.validation_fraction, self.data.shard_tokens,
        ]  # fmt: skip
        key = hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:32]
        folder = self.store / key
        if not _intact(folder):
            shutil.rmtree(folder, ignore_errors=True)
            self.store.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f".{key}.", dir=self.store) as name:
                made = Path(name, "piece")
                made.mkdir()
                self._make(piece, key, Path(name, "unordered"), made)
                made.rename(folder)
        record: dict[str, Any] = json.loads((folder / "piece.json").read_text())
        return record

    def _make(self, piece: Piece, key: str, unordered: Path, folder: Path) -> None:
        """Tokenise as documents come, then write in the order of their places."""
        places, lengths = array.array("d"), array.array("q")
        with unordered.open("wb") as file:
            for place, tokens in self._encoded(piece):
                file.write(tokens.data)
                places.append(place)
                lengths.append(len(tokens))
        written = Unordered(unordered, self.dtype, np.array(places), np.array(lengths, np.int64))
        order = np.argsort(written.places, kind="stable")
        held_out, others = np.split(order, [(written.places < self.data.validation_fraction).sum()])
        train, counts = write(written, others, folder, "train", self.data.shard_tokens, self.vocabulary_size)
        validation, _ = write(written, held_out, folder, "validation", 2**62, self.vocabulary_size)
        save(counts, folder / "counts.npy")
        save(written.places[held_out], folder / "validation.places.npy")
        save(written.lengths[held_out], folder / "validation.lengths.npy")
        record = {"key": key, "name": piece.name, "bytes": piece.bytes, "sha256": piece.sha256}
        files.write_json(record | {"train": train, "validation": validation}, folder / "piece.json")

    def _encoded(self, piece: Piece) -> Iterator[tuple[float, NDArray[Any]]]:
        """Place and token ids of each document, with the separator at its end."""
        model = _loaded(self.tokenizer, self.tokenizer_sha256)
        separator = model.encode(SEPARATOR, add_special_tokens=False).ids
        for batch in batched(piece.documents()):
            encodings = model.encode_batch_fast([text for _, text in batch], add_special_tokens=False)
            for (name, _), encoding in zip(batch, encodings, strict=True):
                yield position(name), np.array([*encoding.ids, *separator], self.dtype)


@lru_cache(maxsize=1)
def _loaded(path: Path, sha256: str) -> Tokenizer:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(path))


def batched(documents: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    batch: list[tuple[str, str]] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document[1])
        if len(batch) == ENCODE_DOCUMENTS or characters >= ENCODE_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _intact(folder: Path) -> bool:
    """Whether a piece is there, with the tokens that it had when it was made."""
    try:
        record = json.loads((folder / "piece.json").read_text())
        shards = [shard for split in ("train", "validation") for shard in record[split]["shards"]]
        return all(files.sha256(folder / shard["file"]) == shard["sha256"] for shard in shards)
    except FileNotFoundError:
        return False


def tokenise_all(tokenise: Tokenise, pieces: list[Piece], processes: int) -> Iterator[dict[str, Any]]:
    """The record of every piece, in order."""
    if processes == 1 or len(pieces) == 1:
        yield from map(tokenise, pieces)
        return
    with (
        _one_thread_each(),
        ProcessPoolExecutor(min(processes, len(pieces)), initializer=_die_with, initargs=(os.getpid(),)) as pool,
    ):
        try:
            yield from pool.map(tokenise, pieces)
        except BrokenProcessPool:
            raise UserError(
                "a tokenising process was killed, perhaps for want of memory; start again, with fewer threads of the rule "
                "`data`: finished files are kept"
            ) from None


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Have processes that are started meanwhile tokenise on one core each."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def _die_with(parent: int) -> None:
    """Have this process killed when its parent is, so that none goes on writing unseen."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
