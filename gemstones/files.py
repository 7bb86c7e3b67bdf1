"""Files that are whole or absent: every write goes to a temporary file, is synced, and then takes its name."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemstones import __version__
from gemstones.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it is synced and renamed, on failure removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Give a temporary folder beside `path`, to be filled with the functions of this module; on success it is renamed.

    A folder that is there already stays, and is an OSError unless it is empty.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        temporary.rename(path)
        _sync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def expanded(path: str, key: str) -> Path:
    """A path of the config with ~ and $VARIABLES filled in; raises UserError, naming `key`, where one is not set."""
    filled = os.path.expanduser(os.path.expandvars(path))
    if unset := re.search(r"\$(\w+|\{\w+\})", filled):
        raise UserError(f"{key}: '{path}': the environment variable {unset[1].strip('{}')} is not set")
    return Path(filled)


def write_text(text: str, path: str | Path) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text)


def write_json(data: Any, path: str | Path) -> None:
    """Byte-stable JSON: keys keep their order, floats keep all digits, not-a-number is refused."""
    write_text(json.dumps(data, indent=2, allow_nan=False) + "\n", path)


def write_parquet(table: pd.DataFrame, path: str | Path, specification: Mapping[str, Any] | None = None) -> None:
    """Parquet whose metadata says, under `gemstones`, which version and specification made it."""
    import pyarrow
    import pyarrow.parquet

    made_by = {"version": __version__, "specification": specification and dict(specification)}
    content = pyarrow.Table.from_pandas(table, preserve_index=False)
    metadata = {**(content.schema.metadata or {}), b"gemstones": json.dumps(made_by, sort_keys=True).encode()}
    with atomic(path) as temporary:
        pyarrow.parquet.write_table(content.replace_schema_metadata(metadata), temporary)


def write_csv(table: pd.DataFrame, path: str | Path) -> None:
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False)


def sha256(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_with(save: Callable[[Path], object], path: str | Path) -> None:
    """Write through a library's own saver, such as a figure's `savefig`."""
    with atomic(path) as temporary:
        save(temporary)


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
