"""Warnings before a facility removes files that were not touched for long."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from gemstones import files
from gemstones.cluster.storage import read_manifest, read_record
from gemstones.errors import UserError
from gemstones.study import Storage, Study
from gemstones.suite.runs import all_runs
from gemstones.training import checkpoint
from gemstones.training.home import Home

DAY = 24 * 3600.0


def purge_warnings(study: Study, results: Path, now: float) -> list[str]:
    """A line for every run, and for the token shards, with files that are purged soon and are in no archive.

    Or that says what is damaged, so that nothing can be told of the run.

    A file counts as touched when it was last read or written, whichever is later. Facilities count reading, but mounts may
    record it late or never, so a warning may come early, and not late. Files are not read but for small ones of JSON.

    Parameters
    ----------
    results : `results/<study>`.
    now : seconds since 1970.
    """
    storage, training, folder = study.storage, results / "training", archive_folder(study)
    if storage.purge_days is None:
        return []
    lines = []
    remedy = "`snakemake archive` keeps a run" if folder else "set storage.archive to keep it"
    for run in all_runs(study):
        try:
            paths = _unarchived(training, run.name, folder)
            lines += _warning(run.name, paths, storage, now, f"not in an archive; {remedy}")
        except UserError as error:
            lines.append(f"{run.name}: {error}")
    shards = [path for path in sorted((training / "data").rglob("*")) if path.is_file()]
    return lines + _warning("data", shards, storage, now, "token shards, which can be made again from data.corpus")


def archive_folder(study: Study) -> Path | None:
    """Where the archives of this study's runs are; raises UserError if a variable in its name is not set."""
    if study.storage.archive is None:
        return None
    return files.expanded(study.storage.archive, "storage.archive") / study.study


def _unarchived(training: Path, run: str, archive: Path | None) -> list[Path]:
    archived: dict[str, int] = {}
    if archive and (tar := archive / f"{run}.tar").is_file():
        archived = {entry["path"]: entry["bytes"] for entry in read_record(tar)["members"]}
    return [
        path
        for path in _state(training / run)
        if archived.get(path.relative_to(training).as_posix()) != path.stat().st_size
    ]


def _state(folder: Path) -> list[Path]:
    """What a run cannot do without: what its manifests name, and they."""
    manifests = sorted((folder / "steps").glob("*.json"))
    homes = [Home(folder, key) for key in sorted({read_manifest(path)["key"] for path in manifests})]
    milestones = [item for home in homes for item in checkpoint.milestones(home.checkpoints)]
    paths = [*(path for item in milestones for path in (item.path, item.sidecar)), *(home.metrics for home in homes)]
    return [path for path in (*paths, folder / "events.jsonl", *manifests) if path.is_file()]


def _warning(name: str, paths: Iterable[Path], storage: Storage, now: float, what: str) -> list[str]:
    assert storage.purge_days is not None
    due = {path: max(path.stat().st_atime, path.stat().st_mtime) + storage.purge_days * DAY for path in paths}
    stale = [path for path, when in due.items() if when <= now + storage.warn_days * DAY]
    if not stale:
        return []
    first = datetime.fromtimestamp(min(due[path] for path in stale), UTC)
    gigabytes = sum(path.stat().st_size for path in stale) / 1e9
    return [f"{name}: {len(stale)} files, {gigabytes:.3g} GB, are purged from {first:%Y-%m-%d} on: {what}"]
