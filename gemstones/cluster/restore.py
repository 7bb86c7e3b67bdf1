"""Getting an archived run back, such as after a purge."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gemstones import files
from gemstones.cluster.storage import RECORD, read_manifest, read_record, rows
from gemstones.errors import UserError
from gemstones.training import checkpoint
from gemstones.training.home import Home
from gemstones.training.lock import Lock


def restore(source: Path, results: Path) -> list[Path]:
    """Unpack an archive, so that its run goes on or is there again; gives the files that were written.

    All is unpacked and checked beside the run before anything takes its place. What is here and intact is never replaced by
    something older.

    Parameters
    ----------
    source : the archive's `<run>.json`, or its tar.
    results : `results/<study>`.

    Raises
    ------
    UserError
        If the archive is damaged or unsafe, or what is here contradicts it.
    """
    tar = source.with_suffix(".tar")
    record = read_record(tar)
    study = Path(os.path.abspath(results)).name  # which may be a link to a folder of another name
    if record["study"] != study:
        raise UserError(f"{tar}: a run of the study {record['study']}, not of {study}; set --results")
    training = results / "training"
    training.mkdir(parents=True, exist_ok=True)
    home = Home(training / record["run"], record["key"])
    prefix, suffix = f".{record['run']}.", ".tmp"
    with _alone(home):
        for left in training.glob(f"{prefix}*{suffix}"):  # by a kill
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(prefix=prefix, suffix=suffix, dir=training) as folder:
            return _place(Path(folder), training, record, _unpack(tar, record, Path(folder)))


def _place(folder: Path, training: Path, record: dict[str, Any], times: dict[str, float]) -> list[Path]:
    """Move what is wanted to where it belongs, in the record's order."""
    paths = [entry["path"] for entry in record["members"]]
    wanted = [path for path in paths if _wanted(folder / path, training / path)]
    for path in wanted:
        (training / path).parent.mkdir(parents=True, exist_ok=True)
        # Touched now, or it would be purged at once; made then, or the workflow would take it for new.
        os.utime(folder / path, (time.time(), times[path]))
        (folder / path).replace(training / path)
    return [training / path for path in wanted]


def _unpack(tar: Path, record: dict[str, Any], folder: Path) -> dict[str, float]:
    """Unpack and check all members; gives when each was changed last."""
    due = {entry["path"]: entry for entry in record["members"]}
    times: dict[str, float] = {}
    try:
        with tarfile.open(tar, "r:") as opened:
            for info in opened:
                if info.name == RECORD:
                    continue
                tarfile.data_filter(info, str(folder))
                if not (info.isreg() and info.name in due and Path(info.name).parts[0] == record["run"]):
                    raise UserError(f"{tar}: {info.name} is no file of {record['run']}; nothing is restored")
                opened.extract(info, folder, filter="data")
                times[info.name] = info.mtime
    except (tarfile.TarError, EOFError) as error:
        raise UserError(f"{tar}: damaged or unsafe ({error}); nothing is restored") from None
    for path, entry in due.items():
        if path not in times or files.sha256(folder / path) != entry["sha256"]:
            raise UserError(f"{tar}: {path} is damaged or not there; nothing is restored")
        with (folder / path).open("rb") as file:
            os.fsync(file.fileno())
    return times


def _wanted(ours: Path, here: Path) -> bool:
    """Whether an archived file is to take the place of what is here, if anything; UserError where they contradict."""
    if here.parent.parent.name == "checkpoints":
        found = {item.path: item for item in checkpoint.available(here.parent)}.get(here.with_suffix(".pt"))
        return not (found and found.intact())
    if not here.is_file():
        return True
    if here.parent.name == "steps":
        try:
            if read_manifest(here)["key"] == read_manifest(ours)["key"]:
                return False
        except UserError:
            return True
        raise UserError(f"{here}: of another recipe or corpus; move it away to restore the archive")
    old, new = rows(ours), rows(here)
    if not (old.startswith(new) or new.startswith(old)):
        raise UserError(f"{here}: has rows that contradict the archive's; move it away to restore the archive")
    return len(old) > len(new)


@contextmanager
def _alone(home: Home) -> Iterator[None]:
    """While no job trains the run."""
    lock = Lock(home.lock)
    try:
        if not lock.take():
            raise UserError(f"{home.lock}: a job trains this run; restore it when that has ended")
        yield
    finally:
        lock.release()
