"""Losses of our own runs from their mirrors in wandb: offline folders, or a project of its server.

Each segment of a run is a wandb run, in the group of the run's name (see :class:`gemstones.training.metrics.Mirror`). The
metrics files remain the source of truth: a killed process leaves its last rows, some twenty, out of wandb's file.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from gemstones.errors import UserError
from gemstones.losses import table
from gemstones.losses.stitch import discontinuity, segmented, stitch
from gemstones.losses.trained import anchors, due, run_rows
from gemstones.study import Losses
from gemstones.suite.runs import Run
from gemstones.training.metrics import TRAIN_NAMES, VALIDATION_NAMES


@dataclass(frozen=True)
class Segment:
    """A wandb run: what one process logged, in its order, and `fault`, what kept the rest from being read."""

    source: str
    name: str
    group: str
    tags: tuple[str, ...]
    config: Mapping[str, Any]
    history: list[dict[str, Any]]
    fault: str = ""


@dataclass(frozen=True)
class Imported:
    """A losses table, the wandb runs that each of its runs was stitched from, and what there is to say about it."""

    losses: pd.DataFrame
    segments: dict[str, list[str]]
    notes: list[str]


def offline(paths: Iterable[Path]) -> Iterator[Segment]:
    """Segments of all `.wandb` files at or below the paths.

    Raises
    ------
    UserError
        If a path has none, or a file cannot be read.
    """
    files: dict[Path, Path] = {}
    for path in paths:
        found = [path] if path.is_file() else sorted(path.rglob("*.wandb"))
        if not found:
            raise UserError(f"{path}: no .wandb file there")
        files |= {file.resolve(): file for file in found}
    for file in files.values():
        yield _read(file)


def _read(path: Path) -> Segment:
    from wandb.util import get_core_path

    # What `wandb leet inspect PATH --json` calls; that takes a second to start.
    command = [
        get_core_path(),
        "leet",
        "inspect",
        "--no-observability",
        "--json",
        "--run-file",
        str(path),
        str(path.parent),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    started: dict[str, Any] = {}
    history = []
    for line in done.stdout.splitlines():
        record = json.loads(line)
        if record["type"] == "run":
            started = record["run"]
        elif record["type"] == "history":
            history.append(record["history"]["item"])
    fault = (done.stderr.strip().splitlines() or [""])[-1].removeprefix("wandb leet inspect: ")
    if done.returncode or not started:
        raise UserError(f"{path}: cannot be read: {fault or 'it names no run'}")
    return Segment(
        str(path), started.get("display_name", ""), started.get("run_group", ""), tuple(started.get("tags", ())),
        started.get("config", {}).get("update", {}), history, fault,
    )  # fmt: skip


def online(project: str, entity: str | None = None, api: Any = None) -> Iterator[Segment]:
    """Segments of a project on the wandb server, through its public API.

    Parameters
    ----------
    api : as `wandb.Api()`, which it is by default.
    """
    if api is None:
        import wandb

        api = wandb.Api()
    for run in api.runs(f"{entity}/{project}" if entity else project):
        yield Segment(
            "/".join(run.path), run.name or "", run.group or "", tuple(run.tags), run.config, list(run.scan_history())
        )


def import_losses(
    segments: Iterable[Segment],
    suite: str,
    *,
    tags: Collection[str] = (),
    name: str = "*",
    exclude: Mapping[str, str] | None = None,
    sigmas: float = Losses().continuity_sigmas,
) -> Imported:
    """The losses table of the runs that wandb's segments mirror, with the rows that their metrics files would give.

    Where something is missing or not continuous, that is noted, and what is there is taken.

    Parameters
    ----------
    suite : the table's column of that name.
    tags : segments have one of them, such as pretrain or cooldown; none means all.
    name : pattern of the runs' names (groups), such as `64x*`.
    exclude : reasons by the name of a run or segment that is left out.

    Raises
    ------
    UserError
        If nothing is left, or an exclusion names no run or segment.
    """
    exclude = dict(exclude or {})
    notes: list[str] = []
    groups: dict[str, list[tuple[Run, Segment]]] = {}
    excluded: set[str] = set()
    for segment in segments:
        if not fnmatchcase(segment.group, name) or (tags and not set(tags) & set(segment.tags)):
            continue
        if found := {segment.group, segment.name} & set(exclude):
            excluded |= found
            continue
        if segment.fault:
            notes.append(f"{segment.source}: {segment.fault}")
        run = _run(segment.config)
        if run is None or not segment.history:
            what = "no rows" if run else "no run of this project"
            notes.append(f"{segment.source}: left out: {what}")
        else:
            groups.setdefault(segment.group, []).append((run, segment))
    if unknown := set(exclude) - excluded:
        raise UserError(f"--exclude {min(unknown)}: no run or segment has this name")
    notes += [f"excluded: {excluded_name}: {reason}" for excluded_name, reason in exclude.items()]
    for group, members in groups.items():
        members.sort(key=lambda member: member[1].history[0]["_timestamp"])
        key = members[-1][1].config.get("key")
        if older := [member for member in members if member[1].config.get("key") != key]:
            notes.append(f"{group}: left out: {len(older)} segments of an earlier recipe or corpus")
        groups[group] = [member for member in members if member not in older]
    if not groups:
        raise UserError("wandb: no run is left to import")
    # A main run's jobs do not say how long it will get; the longest one does.
    runs = {group: max((run for run, _ in members), key=lambda run: run.steps) for group, members in groups.items()}
    parts = []
    for group, run in sorted(runs.items()):
        segments_of_run = segmented(row for _, segment in groups[group] for row in _rows(segment))
        curve = stitch(segments_of_run)
        notes += [f"{group}: {note}" for note in _missing(run, curve)]
        if fault := discontinuity(segments_of_run, sigmas):
            notes.append(f"{group}: not continuous: {fault}")
        parts.append(run_rows(suite, run, curve, due(run) | anchors(run, list(runs.values()))))
    losses = table.check(pd.concat(parts, ignore_index=True), "the losses from wandb")
    sources = {group: [segment.source for _, segment in members] for group, members in sorted(groups.items())}
    return Imported(losses, sources, notes)


def _run(config: Mapping[str, Any]) -> Run | None:
    try:
        return Run.model_validate({name: config[name] for name in Run.model_fields if name in config})
    except ValidationError:
        return None


def _rows(segment: Segment) -> Iterator[dict[str, Any]]:
    """Rows as the metrics file has them; steps that go back within a process are a roll-back's."""
    start: dict[str, Any] = {"kind": "start", "roll_backs": 0, **segment.config.get("start", {})}
    yield start
    last = -1
    for row in segment.history:
        kind, names = ("validation", VALIDATION_NAMES) if row.get("global_loss") is None else ("train", TRAIN_NAMES)
        found: dict[str, Any] = {"kind": kind, **{key: row.get(name) for key, name in names.items()}}
        if found["step"] is None or found["loss"] is None:
            continue
        if kind == "train":
            if found["step"] <= last:
                start = {**start, "roll_backs": start["roll_backs"] + 1}
                yield start
            last = found["step"]
        yield found


def _missing(run: Run, curve: pd.DataFrame) -> Iterator[str]:
    """Steps that a run's rows lack, up to its last one."""
    trained, evaluated = (set(curve.loc[curve["kind"] == kind, "step"]) for kind in ("train", "validation"))
    if steps := sorted({*range((run.anchor or 0) + 1, run.steps + 1)} - trained):
        yield f"no training loss at {len(steps)} steps: {_ranges(steps)}"
    if steps := sorted(due(run) - evaluated):
        yield f"no validation loss at step {', '.join(map(str, steps))}"


def _ranges(steps: list[int]) -> str:
    """Ascending steps, such as `3 to 7, 9`."""
    firsts = [step for i, step in enumerate(steps) if i == 0 or steps[i - 1] != step - 1]
    lasts = [step for i, step in enumerate(steps) if i + 1 == len(steps) or steps[i + 1] != step + 1]
    return ", ".join(
        str(first) if first == last else f"{first} to {last}" for first, last in zip(firsts, lasts, strict=True)
    )
