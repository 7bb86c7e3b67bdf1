"""How far a run has got, from its newest manifest and the ends of its files: quick, however long they are."""

from __future__ import annotations

import fcntl
import json
import statistics
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Of the end of a metrics file: first so many bytes, then more, until an evaluation is among them.
TAIL, LONGEST_TAIL = 16_384, 1_048_576
# Steps whose median is a run's present speed.
RECENT = 100
# A run whose metrics were written to in these seconds is running, and so is one that takes longer for ten steps.
FRESH_SECONDS, FRESH_STEPS = 90, 10


@dataclass
class Progress:
    """What a run's folder says.

    Attributes
    ----------
    key : of its present recipe; empty before it began.
    step : the last one that is recorded; a cooldown begins at its anchor.
    manifest_step : the last one with a manifest.
    seconds_per_step : the median of recent steps.
    stopped : `step` and `reason`, where the run was ended for good.
    held : whether a process that this machine knows of holds its lock.
    running : that, or its metrics were written to a moment ago.
    written : when its metrics were last written to, seconds since 1970.
    manifests : when that of a step was written.
    """

    key: str = ""
    step: int = 0
    manifest_step: int | None = None
    loss: float | None = None
    validation_loss: float | None = None
    seconds_per_step: float | None = None
    nodes: int | None = None
    job_id: str = ""
    stopped: dict[str, Any] | None = None
    held: bool = False
    running: bool = False
    written: float | None = None
    manifests: dict[int, float] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)
    last_event: dict[str, Any] | None = None


def progress(folder: Path, start: int) -> Progress:
    """Look at a run's folder.

    Parameters
    ----------
    start : the step that it begins from.
    """
    found = Progress(step=start)
    metrics, written = _newest(_times(folder / "metrics", ".jsonl"))
    manifests = {path: at for path, at in _times(folder / "steps", ".json").items() if path.stem.isdigit()}
    manifest, reached = _newest(manifests)
    key = _json(manifest).get("key") if manifest else None
    # A run that goes back to a former recipe may have nothing to do, and then writes a manifest only.
    if key and reached >= written:
        metrics = folder / "metrics" / f"{key}.jsonl"
        with suppress(FileNotFoundError):
            written = metrics.stat().st_mtime
    if metrics is None:
        found.held = found.running = _held(folder)
        return found
    found.key, found.written = metrics.stem, written
    found.manifests = {int(path.stem): at for path, at in manifests.items()}
    _recorded(found, _end(metrics))
    content = _furthest(manifests, found.key)
    if content:
        found.manifest_step = int(content["step"])
        found.stopped = content.get("stopped") or None
        if not found.stopped:
            found.step = max(found.step, found.manifest_step)
    found.stopped = _fault(folder, found.key) or found.stopped
    _events(found, folder / "events.jsonl")
    fresh = max(FRESH_SECONDS, FRESH_STEPS * (found.seconds_per_step or 0))
    found.held = _held(folder, found.key)
    found.running = found.held or (reached < written and time.time() - written < fresh)
    return found


def _times(folder: Path, ending: str) -> dict[Path, float]:
    """Files of a folder and when they were written."""
    found = {}
    with suppress(FileNotFoundError):
        for path in folder.iterdir():
            if path.name.endswith(ending) and not path.name.startswith("."):
                with suppress(FileNotFoundError):
                    found[path] = path.stat().st_mtime
    return found


def _newest(times: dict[Path, float]) -> tuple[Path | None, float]:
    return max(times.items(), key=lambda item: item[1], default=(None, 0.0))


def _furthest(manifests: Iterable[Path], key: str) -> dict[str, Any]:
    """The manifest of the highest step that is of a recipe; files that were copied are not older or newer than others."""
    for path in sorted(manifests, key=lambda path: int(path.stem), reverse=True):
        content = _json(path)
        if content.get("key") == key:
            return content
    return {}


def _end(path: Path) -> list[dict[str, Any]]:
    """Rows at the end of a metrics file, the last evaluation among them where it is not too far back."""
    size = TAIL
    while True:
        rows, whole = _tail(path, size)
        if whole or size >= LONGEST_TAIL or any(row.get("kind") == "validation" for row in rows):
            return rows
        size *= 8


def _tail(path: Path, size: int) -> tuple[list[dict[str, Any]], bool]:
    try:
        with path.open("rb") as file:
            end = file.seek(0, 2)
            file.seek(max(end - size, 0))
            lines = file.read(size).split(b"\n")
    except FileNotFoundError:
        return [], True
    return list(_parsed(lines if size >= end else lines[1:])), size >= end


def _parsed(lines: list[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        with suppress(ValueError):  # torn, or cut
            row = json.loads(line)
            if isinstance(row, dict):
                yield row


def _recorded(found: Progress, rows: list[dict[str, Any]]) -> None:
    seconds: list[float] = []
    for row in reversed(rows):
        kind = row.get("kind")
        if kind == "train" and len(seconds) < RECENT:
            if not seconds:
                found.step, found.loss = int(row["step"]), row.get("loss")
            seconds.append(float(row.get("seconds") or 0.0))
        elif kind == "validation" and found.validation_loss is None:
            found.validation_loss = row.get("loss")
        elif kind == "start" and found.nodes is None:
            if not seconds:
                found.step = int(row["step"])
            found.nodes, found.job_id = int(row.get("num_nodes") or 1), str(row.get("slurm_job_id") or "")
    if seconds:
        found.seconds_per_step = statistics.median(seconds)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _fault(folder: Path, key: str) -> dict[str, Any] | None:
    """The marker of a run that must not be tried again."""
    path = folder / "checkpoints" / key / "fault.json"
    if not path.exists():
        return None
    content = _json(path)
    return {"step": content.get("step"), "reason": content.get("reason") or f"{path} says no reason"}


def _events(found: Progress, path: Path) -> None:
    """All recipes of a run share the file; those of the present one count."""
    with suppress(FileNotFoundError):
        for event in _parsed(path.read_bytes().split(b"\n")):
            if event.get("key") == found.key:
                found.last_event = event
                kind = str(event.get("kind"))
                found.events[kind] = found.events.get(kind, 0) + 1


def _held(folder: Path, key: str = "*") -> bool:
    """Whether a process without Slurm, on this machine or one that shares its locks, is training the run.

    A lock with a Slurm job in it is left alone: Slurm says whether that one runs.
    """
    for path in folder.glob(f"checkpoints/{key}/lock"):
        with suppress(OSError), path.open() as file:
            if file.read(1):
                continue
            try:
                # Shared, and given back at once: should a job begin now, it asks again in a second.
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    return False
