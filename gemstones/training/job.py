"""A training job: "make this run reach this step". Doing it again does nothing, and what is there is never lost.

A run's state lives beside its manifests and is declared to nobody, in folders named by a key of all that decides its
numbers: another recipe or corpus starts afresh, and going back finds the former state.

    <folder>/<run>/steps/<step>.json         the manifest, written last
    <folder>/<run>/checkpoints/<key>/        see `checkpoint`
    <folder>/<run>/metrics/<key>.jsonl       see `metrics`

This module imports neither torch nor the model, so that a job with nothing to do costs a fraction of a second.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from gemstones import __version__, files
from gemstones.cluster import slurm
from gemstones.errors import UserError
from gemstones.study import Training
from gemstones.suite.runs import Run
from gemstones.training import checkpoint
from gemstones.training import data as shards
from gemstones.training.deadline import Deadline, OutOfTime
from gemstones.training.home import Home, Parent, find_parent, key, manifest, read_manifest
from gemstones.training.launch import local_rank, processes
from gemstones.training.lock import Lock
from gemstones.training.watch import Stopped

T = TypeVar("T")


class Job(BaseModel):
    """What the training process is told: a run, the runs before it, and the steps whose checkpoints are wanted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: Run
    before: tuple[Run, ...] = ()
    checkpoints: tuple[int, ...] = ()


def parse(text: str) -> Job:
    """A job from JSON, or from the file that `@path` names; raises UserError with one line for all faults."""
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text()
        except OSError as error:
            raise UserError(f"job: {text[1:]} cannot be read: {error.strerror}") from None
    try:
        return Job.model_validate_json(text)
    except ValidationError as error:
        faults = [
            ".".join(map(str, fault["loc"])) + ": " + ("required" if fault["type"] == "missing" else fault["msg"])
            for fault in error.errors()
        ]
        raise UserError("job: " + "; ".join(fault.removeprefix(": ") for fault in faults)) from None


def train(
    job: Job,
    *,
    data: Path,
    folder: Path,
    until: int,
    output: Path,
    parents: Sequence[Path] = (),
    settings: Training = Training(),
) -> None:
    """Bring `job.run` to the step `until` and write its manifest; `job.before` are brought to their ends first.

    Parameters
    ----------
    data : the manifest of the token shards.
    folder : of the stage, with one folder a run. Manifests name files as this path names them.
    output : the manifest to write; those of `job.before` are `<folder>/<run>/steps/<last step>.json`.
    parents : manifests of this or other runs; cooldowns find their parent's checkpoint there.
    settings : what is kept and logged; no number depends on it.

    Raises
    ------
    UserError
        If the job contradicts itself, the tokens or a parent do not fit, or training diverges; but for runs of the phase
        lr_transfer, whose manifests then say at which step they `stopped`.
    """
    deadline = Deadline(settings)
    try:
        for run in job.before:
            written = folder / run.name / "steps" / f"{run.steps}.json"
            _reach(run, run.steps, (), data, folder, written, parents, settings, deadline)
        _reach(job.run, until, job.checkpoints, data, folder, output, parents, settings, deadline)
    finally:
        # What ended before they met has not loaded it.
        if parallel := sys.modules.get("gemstones.training.parallel"):
            parallel.disconnect()


def _reach(
    run: Run,
    until: int,
    asked: Iterable[int],
    data: Path,
    folder: Path,
    output: Path,
    parents: Sequence[Path],
    settings: Training,
    deadline: Deadline,
) -> None:
    try:
        home, parent, data_sha256 = _prepare(run, until, asked, data, folder, parents, settings)
    except UserError as error:
        error.told = local_rank() > 0  # the first process of each node says it, since nodes may differ
        raise

    # In each process of several, all but the first wait here for what that one finds.
    first, shared = _processes()
    with _alone(home, first, shared, deadline):
        stopped = shared(lambda: _stopped(run, home, [*parents, *([output] if output.exists() else [])]))
        missing = _missing(shared(lambda: _keep(home, asked)), until, asked)
        if missing and not stopped:
            if first:
                home.fault.unlink(missing_ok=True)
            from gemstones.training import loop

            try:
                loop.advance(
                    run, data, home.checkpoints, home.metrics, identity=home.key, missing=missing, asked=set(asked),
                    parent=parent.checkpoint if parent else None, settings=settings, deadline=deadline,
                )  # fmt: skip
            except Stopped as stop:
                if run.phase != "lr_transfer":
                    if first:
                        _write_fault(run, home, settings, stop)
                    stop.told = not first
                    raise
                stopped = {"step": stop.step, "reason": stop.reason}
        if first:
            files.write_json(manifest(run, until, asked, home, parent, data_sha256, stopped), output)


def _prepare(
    run: Run,
    until: int,
    asked: Iterable[int],
    data: Path,
    folder: Path,
    parents: Sequence[Path],
    settings: Training,
) -> tuple[Home, Parent | None, str]:
    """Where the state is, and what it starts from; what would fail again does so here, before torch is loaded."""
    start = run.anchor or 0
    if not start < until <= run.steps:
        raise UserError(f"{run.name}: step {until} is not within its steps {start + 1} to {run.steps}")
    if outside := [step for step in asked if not start < step <= until]:
        raise UserError(
            f"{run.name}: checkpoints: step {outside[0]} is not within this job's steps {start + 1} to {until}"
        )
    tokens = shards.read_manifest(data)
    if tokens["vocabulary_size"] != run.vocabulary_size:
        raise UserError(
            f"{data}: the tokens have a vocabulary of {tokens['vocabulary_size']}, {run.name} of {run.vocabulary_size}"
        )
    data_sha256: str = tokens["tokens_sha256"]
    parent = find_parent(run, data_sha256, parents)
    home = Home(folder / run.name, key(run, data_sha256, parent.key if parent else ""))
    if _missing([item.step for item in checkpoint.available(home.checkpoints)], until, asked):
        _check_fault(run, home, settings)
        shards.check_shards(data, files.expanded(settings.shards, "training.shards") if settings.shards else None)
    return home, parent, data_sha256


def _stopped(run: Run, home: Home, manifests: Sequence[Path]) -> dict[str, Any] | None:
    """Where and why an earlier job of this run ended it for good."""
    for path in manifests if run.phase == "lr_transfer" else ():
        content = read_manifest(path)
        if content["run"] == run.name and content["key"] == home.key and content.get("stopped"):
            return dict(content["stopped"])
    return None


def _check_fault(run: Run, home: Home, settings: Training) -> None:
    """End a job whose run was stopped for good, unless something has changed since then that may help."""
    try:
        fault = json.loads(home.fault.read_text())
        same = fault["watch"] == settings.watch.model_dump(mode="json") and fault["gemstones_version"] == __version__
        said = f"{run.name}: stopped at step {fault['step']} by an earlier job: {fault['reason']}"
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return
    if same:
        raise UserError(f"{said}; change training.watch, or remove {home.fault} to try again")


def _write_fault(run: Run, home: Home, settings: Training, stop: Stopped) -> None:
    fault = {
        "run": run.name,
        "step": stop.step,
        "reason": stop.reason,
        "watch": settings.watch.model_dump(mode="json"),
        "slurm_job_id": slurm.job_id(),
        "gemstones_version": __version__,
    }
    files.write_json(fault, home.fault)


class Shared(Protocol):
    """Gives all processes what the first one finds."""

    def __call__(self, find: Callable[[], T], /) -> T: ...


def _here(find: Callable[[], T]) -> T:
    return find()


def _processes() -> tuple[bool, Shared]:
    """Whether this is the first process, and what gives all of them what that one finds."""
    if processes() == 1:
        return True, _here
    from gemstones.training.parallel import Parallel, connect

    all_of_them = Parallel(*connect())
    return all_of_them.rank == 0, all_of_them.first


@contextmanager
def _alone(home: Home, first: bool, shared: Shared, deadline: Deadline) -> Iterator[None]:
    """Wait until no other job trains this run.

    Of several processes the first one holds the lock; the others ask now and then, since one that only waits for long is taken for
    lost.
    """
    lock = Lock(home.lock)
    waits = 0
    try:
        while not shared(lock.take):
            if shared(lambda: deadline.over()):
                raise OutOfTime(
                    f"{home.lock}: {deadline.reason or 'told to stop'} while another process trained this run"
                )
            time.sleep(min(waits := waits + 1, 10))
        if first:
            checkpoint.clean(home.checkpoints)
        yield
    finally:
        if first:
            lock.release()


def _missing(there: Collection[int], until: int, asked: Iterable[int]) -> list[int]:
    """Steps that have to be trained to: a run that is already beyond `until` need not stop there once more."""
    missing = set(asked) - set(there)
    if not any(step >= until for step in there):
        missing.add(until)
    return sorted(missing)


def _keep(home: Home, asked: Iterable[int]) -> list[int]:
    """Steps of all checkpoints; those of `asked` become milestones, before anything is pruned."""
    found = {item.step: item for item in checkpoint.available(home.checkpoints)}
    for step in found.keys() & set(asked):
        checkpoint.keep(found[step])
    return list(found)
