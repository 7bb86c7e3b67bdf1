"""The state of a study while it trains: how far each run is, what it waits for, and what it has taken. Reads ends of files only.

Imports neither tables nor torch, so that it answers at once.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from gemstones.cluster import hours, jobs, slurm
from gemstones.cluster.progress import Progress, progress
from gemstones.cluster.slurm import Queued
from gemstones.cluster.throughput import speed
from gemstones.study import Study
from gemstones.suite.runs import Run, all_runs, segments
from gemstones.training import checkpoint

State = Literal["running", "queued", "waiting", "failed", "stopped", "to be started", "done"]
# In the order in which a person wants to see them.
STATES: tuple[State, ...] = ("running", "failed", "stopped", "queued", "waiting", "to be started", "done")
# However often the state is shown, the facility is not asked more often.
ASK_SECONDS = 30
ANSWER_SECONDS = 10


class Slurm:
    """What Slurm says, asked at most every half minute.

    Attributes
    ----------
    waiting : the study's jobs in the queue, None where it cannot be asked.
    note : why not.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._asked = folder, float("-inf")
        self.waiting: list[tuple[Queued, jobs.Job]] | None = None
        self.jobs: dict[str, jobs.Job] = {}
        self.note = ""

    def ask(self, started: Mapping[str, str]) -> None:
        """`started` has runs by the ids of jobs that their metrics name."""
        if time.monotonic() - self._asked < ASK_SECONDS:
            return
        self._asked = time.monotonic()
        known = jobs.known(self._folder, started)
        with ThreadPoolExecutor(1) as pool:
            queue = pool.submit(slurm.queue, ANSWER_SECONDS)
            try:
                self.jobs, self.note = jobs.update(self._folder, known, ANSWER_SECONDS), ""
            except slurm.Unavailable as reason:
                self.jobs, self.note = known, str(reason)
            try:
                self.waiting = self._own(queue.result())
            except slurm.Unavailable as reason:
                self.waiting, self.note = None, str(reason)

    def _own(self, queue: list[Queued]) -> list[tuple[Queued, jobs.Job]]:
        """The study's own among a user's jobs, by the paths of their logs or their ids."""
        logs = jobs.log_folder(self._folder).resolve()
        found = [(each, jobs.of_log(Path(each.log).resolve(), logs) or self.jobs.get(each.job_id)) for each in queue]
        return [(each, job) for each, job in found if job]


def status(study: Study, results: Path, facility: Slurm | None = None) -> dict[str, Any]:
    """The state of all runs, in `runs`, with a `summary`; all of it fits into JSON.

    Parameters
    ----------
    results : the folder of all studies' results.
    facility : what Slurm said before; a new one asks it.
    """
    folder, runs, plan = results / study.study, all_runs(study), segments(study)
    looks = {run.name: progress(folder / "training" / run.name, run.anchor or 0) for run in runs}
    facility = facility or Slurm(folder)
    facility.ask({look.job_id: name for name, look in looks.items() if look.job_id})
    trained = hours.trained_by(plan)
    spent = hours.spent(study, runs, facility.jobs, looks, trained)
    queued = _by_run(facility.waiting or [], trained)
    last = _last_jobs(facility.jobs, trained)
    stops: dict[str, list[int]] = {}
    for (name, stop), members in trained.items():
        stops.setdefault(name, []).append(stop)
        stops.update({member.name: [member.steps] for member in members[:-1]})
    shared = {member.name for members in trained.values() if len(members) > 1 for member in members}
    rows = []
    for run in runs:
        look, job = looks[run.name], queued.get(run.name)
        state, reason = _state(run, look, looks, job, last.get(run.name), run.name in shared, folder)
        to_come = [stop for stop in sorted(stops[run.name]) if stop > (look.manifest_step or run.anchor or 0)]
        done = state in ("done", "stopped")
        rows.append(
            {
                "run": run.name,
                "phase": run.phase,
                "state": state,
                "reason": reason,
                "step": look.step,
                "steps": run.steps,
                "target": next(iter(to_come), run.steps),
                "loss": look.loss,
                "validation_loss": look.validation_loss,
                "seconds_per_step": look.seconds_per_step,
                "eta_seconds": None,
                "segments": len(stops[run.name]),
                "segments_left": 0 if done else len(to_come),
                "nodes": look.nodes or speed(study, run).nodes,
                "node_hours_planned": hours.planned(study, run, trained),
                "node_hours_spent": spent.get(run.name, 0.0),
                "node_hours_left": 0.0 if done else hours.planned(study, run, trained, look.step),
                "job": job and _job(job),
                "events": look.events,
                "last_event": look.last_event,
            }
        )
    _etas(study, runs, rows, trained)
    return {
        "study": study.study,
        "time": round(time.time(), 3),
        "summary": _summary(rows, facility, spent[hours.OTHER], study.plan.budget_node_hours),
        "runs": rows,
    }


def _by_run(
    waiting: Sequence[tuple[Queued, jobs.Job]], trained: Mapping[tuple[str, int], tuple[Run, ...]]
) -> dict[str, Queued]:
    """The job of each run; one that runs goes before one that waits."""
    found: dict[str, Queued] = {}
    for queued, job in sorted(waiting, key=lambda pair: pair[0].running):
        members = [member.name for member in trained.get((job.run, job.step or 0), ())]
        found |= dict.fromkeys(members or [job.run], queued)
    return found


def _last_jobs(
    known: Mapping[str, jobs.Job], trained: Mapping[tuple[str, int], tuple[Run, ...]]
) -> dict[str, jobs.Job]:
    found: dict[str, jobs.Job] = {}
    for job in sorted(known.values(), key=lambda job: int(job.job_id)):
        members = [member.name for member in trained.get((job.run, job.step or 0), ())]
        found |= dict.fromkeys(members or [job.run], job)
    return found


def _state(
    run: Run,
    look: Progress,
    looks: Mapping[str, Progress],
    job: Queued | None,
    last: jobs.Job | None,
    shared: bool,
    folder: Path,
) -> tuple[State, str]:
    """A run's state, and why it is so where that is not plain.

    Parameters
    ----------
    job, last : in the queue, and the last one that Slurm knows.
    shared : whether the run's job trains others too, so that it may run while this one waits.
    """
    if look.stopped:
        return "stopped", f"at step {look.stopped.get('step')}: {look.stopped.get('reason')}"
    if (look.manifest_step or 0) >= run.steps:
        return "done", ""
    if job and job.running:
        return ("running", "") if look.running or not shared else ("waiting", "for other runs of its job")
    if look.held or (look.running and not _ended(look, last)):
        return "running", ""
    if job:
        return "queued", job.reason
    if last and last.account and last.account.state == "RUNNING" and not shared:
        return "running", f"job {last.job_id}, by sacct"  # squeue does not answer
    if look.key and look.step == (look.manifest_step or run.anchor or 0) and look.manifest_step is not None:
        return "waiting", "for its next job"
    if look.key:
        sidecar = checkpoint.path_of(folder / "training" / run.name / "checkpoints" / look.key, look.step)
        if sidecar.with_suffix(".json").exists():
            return "waiting", f"saved at step {look.step}, to be continued"
        return "failed", _why(last) or "its last job ended before it had saved"
    if _why(last):
        return "failed", _why(last)
    if run.anchor is not None and looks[str(run.parent)].step < run.anchor:
        return "waiting", f"for step {run.anchor} of {run.parent}"
    return "to be started", ""


def _ended(look: Progress, last: jobs.Job | None) -> bool:
    """Whether the job that wrote the last rows is over; without its start row in sight, that is the last one known."""
    own = last is not None and (look.nodes is None or look.job_id == last.job_id)
    return own and last is not None and last.account is not None and last.account.over


def _why(last: jobs.Job | None) -> str:
    if last is None or last.account is None or not last.account.over or last.account.state == "COMPLETED":
        return ""
    return f"job {last.job_id}: {last.account.state.lower().replace('_', ' ')}"


def _job(job: Queued) -> dict[str, Any]:
    return {
        "id": job.job_id,
        "state": job.state,
        "reason": job.reason,
        "seconds_left": job.seconds_left if job.running else None,
        "expected_start": None if job.running else job.expected_start,
        "nodes": job.nodes,
    }


def _etas(
    study: Study,
    runs: Sequence[Run],
    rows: Sequence[dict[str, Any]],
    trained: Mapping[tuple[str, int], tuple[Run, ...]],
) -> None:
    """Seconds until each run is at its end: its steps at their present speed or, before there are any, the planned one.

    Each job still to be submitted adds the planned wait in the queue. A cooldown begins as its parent passes the anchor; runs of
    one job go one after the other.
    """
    by_name = {row["run"]: row for row in rows}
    before = {member.name: former.name for members in trained.values() for former, member in pairwise(members)}
    wait = 60 * study.plan.wait_minutes

    def seconds_per_step(run: Run) -> float:
        return by_name[run.name]["seconds_per_step"] or speed(study, run).seconds_per_step

    named = {run.name: run for run in runs}
    for run in runs:
        row = by_name[run.name]
        if row["state"] in ("done", "stopped"):
            continue
        jobs_to_come = row["segments_left"] - (row["state"] == "running")
        begins = 0.0
        if run.parent and row["step"] == run.anchor:
            parent = by_name[run.parent]
            if parent["state"] == "stopped" and parent["step"] < run.anchor:
                continue
            begins = max(int(run.anchor or 0) - parent["step"], 0) * seconds_per_step(named[run.parent])
        begins = max(begins, by_name[before[run.name]]["eta_seconds"] or 0.0 if run.name in before else 0.0)
        row["eta_seconds"] = begins + max(run.steps - row["step"], 0) * seconds_per_step(run) + jobs_to_come * wait


def _summary(rows: Sequence[Mapping[str, Any]], facility: Slurm, other: float, budget: float | None) -> dict[str, Any]:
    states = {state: sum(row["state"] == state for row in rows) for state in STATES}
    etas = [row["eta_seconds"] for row in rows if row["eta_seconds"] is not None]
    eta = 0.0 if not etas else None
    if etas and states["running"]:
        # No sooner than the longest chain, nor than as many runs at a time as now can do the work.
        work = sum(
            max(row["steps"] - row["step"], 0) * (row["seconds_per_step"] or 0.0)
            or 3600 * row["node_hours_left"] / row["nodes"]
            for row in rows
            if row["eta_seconds"] is not None
        )
        eta = max([*etas, work / states["running"]])
    waiting = facility.waiting or []
    return {
        "runs": len(rows),
        "states": states,
        "node_hours_planned": sum(row["node_hours_planned"] for row in rows),
        "node_hours_spent": sum(row["node_hours_spent"] for row in rows) + other,
        "node_hours_left": sum(row["node_hours_left"] for row in rows),
        "node_hours_budget": budget,
        "jobs_known": len(facility.jobs),
        "jobs_running": None if facility.waiting is None else sum(job.running for job, _ in waiting),
        "jobs_queued": None if facility.waiting is None else sum(not job.running for job, _ in waiting),
        "eta_seconds": eta,
        "events": sum(sum(row["events"].values()) for row in rows),
        "slurm": facility.note or "ok",
    }
