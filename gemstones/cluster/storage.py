"""Archives of runs, and warnings before a facility purges what it calls old.

    <archive>/<study>/<run>.tar     a record of its members, then the members: checkpoints, metrics, events, manifests
    <archive>/<study>/<run>.json    the same record, to be read by people and by the workflow

The record stands first in the tar, so that one file is enough; the file beside it may be lost. Members are named as in
`results/<study>/training/`.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import re
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from gemstones import __version__, files
from gemstones.errors import UserError
from gemstones.study import Study
from gemstones.suite.runs import all_runs
from gemstones.training import checkpoint
from gemstones.training.home import Home

log = logging.getLogger(__name__)

RECORD = "archive.json"


@dataclass(frozen=True)
class Member:
    """A file of a run: where it is here, or None if only the former archive has it."""

    path: str
    size: int
    sha256: str
    source: Path | None = None
    content: bytes | None = None  # of what may grow while it is read

    def entry(self) -> dict[str, Any]:
        return {"path": self.path, "bytes": self.size, "sha256": self.sha256}


def archive(manifest: Path, target: Path, study: str) -> None:
    """Archive the run of a manifest: its milestone checkpoints with sidecars, metrics, events and manifests.

    Nothing is written if nothing is new. What the former archive has stays in it, also if it is no longer here.

    Parameters
    ----------
    manifest : of one of the run's jobs, `<training>/<run>/steps/<step>.json`; its recipe and corpus are archived.
    target : `<run>.json` in the folder of the archive; the tar is beside it.

    Raises
    ------
    UserError
        If a checkpoint is gone or damaged, or the former archive is damaged where it is needed, of another recipe or
        corpus, or contradicts what is here.
    """
    run_folder, tar = manifest.parent.parent, target.with_suffix(".tar")
    last = read_manifest(manifest)
    for left in target.parent.glob(f".{tar.name}.*.tmp"):  # by a kill, and as large as the archive
        left.unlink()
    former = read_record(tar) if tar.exists() else None
    if former and former["key"] != last["key"]:
        raise UserError(
            f"{tar}: holds {former['run']} of another recipe or corpus; move it away, or set another storage.archive"
        )
    members = _members(run_folder, last, {entry["path"]: entry for entry in former["members"]} if former else {})
    entries = [member.entry() for member in members]
    record = {
        "study": study,
        "run": last["run"],
        "key": last["key"],
        "step": last["step"],
        "archived": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "bytes": sum(member.size for member in members),
        "gemstones_version": __version__,
        "members": entries,
    }
    same = former is not None and sorted(former["members"], key=str) == sorted(entries, key=str)
    if former and same and tar.stat().st_size > record["bytes"]:
        log.info("%s: nothing is new", tar)
        record = former
    else:
        with files.atomic(tar) as temporary:
            try:
                _write(temporary, record, members, tar)
            except tarfile.TarError:
                raise _damaged(str(tar)) from None
            except OSError as error:  # such as a full disk
                raise UserError(f"{error.filename or tar}: {error.strerror}; nothing is archived") from None
        log.info("%s: %d files, %.3g GB", tar, len(members), record["bytes"] / 1e9)
    files.write_json(record, target)


def archive_all(study: Study, training: Path, folder: Path) -> None:
    """Archive all that has been trained, as far as it has got; what fails keeps nothing else from being archived.

    Parameters
    ----------
    training : `results/<study>/training`.
    folder : of the study's archives.

    Raises
    ------
    UserError
        With a line for every run that cannot be archived.
    """
    faults = []
    for run in all_runs(study):
        manifests = sorted((training / run.name / "steps").glob("*.json"), key=lambda path: path.stat().st_mtime)
        try:
            if manifests:
                archive(manifests[-1], folder / f"{run.name}.json", study.study)
        except UserError as error:
            faults.append(str(error))
    if faults:
        raise UserError("\n".join(faults))


def read_record(tar: Path) -> dict[str, Any]:
    """What an archive holds, from its beginning alone.

    Raises
    ------
    UserError
        If it is not there, or no archive of a run.
    """
    try:
        with tarfile.open(tar, "r:") as opened:
            first = opened.next()
            file = opened.extractfile(first) if first and first.name == RECORD else None
            record: dict[str, Any] = json.loads(file.read() if file else b"")
        [(entry["path"], entry["bytes"], entry["sha256"]) for entry in record["members"]]
        if not all(re.fullmatch(r"[\w-]+", record[name]) for name in ("study", "run", "key")):
            raise ValueError
    except FileNotFoundError:
        raise UserError(f"{tar}: not found") from None
    except (tarfile.TarError, ValueError, KeyError, TypeError):
        raise UserError(f"{tar}: not an archive of a run, or damaged") from None
    return record


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a training job; raises UserError if it is missing or no such file."""
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        content["run"], content["key"], content["step"], content["checkpoint"]
    except FileNotFoundError:
        raise UserError(f"{path}: not found; only what has been trained is archived") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path}: not a manifest of a training job") from None
    return content


def _members(run_folder: Path, last: dict[str, Any], former: dict[str, dict[str, Any]]) -> list[Member]:
    """What an archive is to hold, in the order in which it is restored: manifests last, checkpoints before their sidecars."""
    home = Home(run_folder, last["key"])
    found: dict[str, Member] = {}

    def add(member: Member) -> None:
        found[member.path] = member

    def small(path: Path) -> None:
        content = rows(path) if path.suffix == ".jsonl" else path.read_bytes()
        name = f"{run_folder.name}/{path.relative_to(run_folder).as_posix()}"
        old = former.get(name)
        if old and path.suffix == ".jsonl" and hashlib.sha256(content[: old["bytes"]]).hexdigest() != old["sha256"]:
            raise UserError(
                f"{path}: does not begin as in the archive, which would lose rows; move that away to make it anew"
            )
        add(Member(name, len(content), hashlib.sha256(content).hexdigest(), path, content))

    for item in checkpoint.milestones(home.checkpoints):
        name = f"{run_folder.name}/checkpoints/{home.key}/{item.path.name}"
        add(Member(name, item.bytes, item.sha256, item.path if item.path.is_file() else None))
        small(item.sidecar)
    for path in (home.metrics, run_folder / "events.jsonl"):
        if path.is_file():
            small(path)
    for entry in former.values():  # before the manifests, which name it
        if entry["path"] not in found and "/steps/" not in entry["path"]:
            add(Member(entry["path"], entry["bytes"], entry["sha256"]))
    for path in sorted((run_folder / "steps").glob("*.json"), key=lambda path: path.stat().st_mtime):
        if read_manifest(path)["key"] == home.key:
            small(path)
    for entry in former.values():
        if entry["path"] not in found:
            add(Member(entry["path"], entry["bytes"], entry["sha256"]))
    if last["checkpoint"]:
        name = f"{run_folder.name}/checkpoints/{home.key}/{Path(last['checkpoint']['path']).name}"
        if name not in found or found[name].sha256 != last["checkpoint"]["sha256"]:
            raise UserError(
                f"{last['checkpoint']['path']}: the run's last checkpoint is gone; train it again, or restore it"
            )
    for member in found.values():
        if not member.source and former.get(member.path) != member.entry():
            raise UserError(f"{run_folder.parent / member.path}: the checkpoint is gone, and no archive has it")
    return list(found.values())


def _write(path: Path, record: dict[str, Any], members: list[Member], former: Path) -> None:
    text = (json.dumps(record, indent=2) + "\n").encode()
    with tarfile.TarFile(path, "w", copybufsize=2**20) as tar:
        tar.addfile(_info(RECORD, len(text), time.time()), io.BytesIO(text))
        for member in members:
            if member.source:
                with member.source.open("rb") as file:
                    stat = os.fstat(file.fileno())
                    if member.content is None and stat.st_size != member.size:
                        raise _damaged(str(member.source))
                    content = file if member.content is None else io.BytesIO(member.content)
                    _add(tar, member, stat.st_mtime, content, str(member.source))
        if carried := {member.path: member for member in members if not member.source}:
            with tarfile.open(former, "r:") as before:
                for info in before:
                    old = before.extractfile(info) if info.name in carried else None
                    if old:
                        _add(tar, carried.pop(info.name), info.mtime, old, f"{former}: {info.name}")
            if carried:
                raise _damaged(f"{former}: {next(iter(carried))}")


def _add(tar: tarfile.TarFile, member: Member, mtime: float, file: IO[bytes], name: str) -> None:
    """Add a file, whose checksum is made as it is read."""
    reader = _Hashing(file)
    try:
        tar.addfile(_info(member.path, member.size, mtime), reader)
    except OSError as error:
        if error.errno is None:  # it is too short
            raise _damaged(name) from None
        raise
    if reader.sha256.hexdigest() != member.sha256:
        raise _damaged(name)


def _damaged(name: str) -> UserError:
    return UserError(f"{name}: damaged (it is not what was written); nothing is archived")


def rows(path: Path) -> bytes:
    """Rows of a file that is only appended to, without a torn last one, which the next job cuts off."""
    content = path.read_bytes()
    return content[: content.rfind(b"\n") + 1]


class _Hashing:
    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.sha256 = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.sha256.update(data)
        return data


def _info(name: str, size: int, mtime: float) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, mtime, 0o644  # an archive may have fractions
    return info
