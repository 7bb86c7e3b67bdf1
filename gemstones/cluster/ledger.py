"""The ledger: every attempt at a run with what it took and what came of it, and its sums by run and by phase."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemstones.cluster import hours, jobs, slurm
from gemstones.cluster.attempts import Attempt, local_attempts, slurm_attempts
from gemstones.cluster.hours import OTHER
from gemstones.cluster.parts import Part, parts_of
from gemstones.cluster.progress import Progress, progress
from gemstones.study import Study
from gemstones.suite.runs import Run, all_runs, segments

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

SUMS = [
    "planned_node_hours", "spent_node_hours", "kept_node_hours", "lost_node_hours", "replayed_node_hours",
    "failed_node_hours", "overhead_node_hours", "left_node_hours", "gpu_hours",
]  # fmt: skip
PAGE_ROWS = 1000
NOTE = (
    "Node-hours are nodes times elapsed hours: of Slurm's account, or else of the steps that the metrics record. Kept is the time "
    "of steps that the run is made of; lost is all other time: of steps that were done again (replayed), of attempts without a "
    "step (failed), and of starting, evaluating and saving (overhead). Efficiency is kept / spent. Left is what the plan "
    "takes for the steps that remain."
)


@dataclass(frozen=True)
class Ledger:
    """`runs` and `phases` have the columns SUMS and more; the last phase, `all`, is the study.

    Attributes
    ----------
    source : where elapsed times are from: `sacct`, or `metrics` without any Slurm job, or why sacct does not answer.
    """

    attempts: list[Attempt]
    runs: list[dict[str, Any]]
    phases: list[dict[str, Any]]
    source: str

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "phases": self.phases,
            "runs": self.runs,
            "attempts": [attempt_row(attempt) for attempt in self.attempts],
        }


def account_for(study: Study, results: str | Path) -> Ledger:
    """Read all metrics, ask Slurm, remember what it says, and add up.

    Parameters
    ----------
    results : the folder of all studies' results.
    """
    folder, runs, looks = _look(study, results)
    parts = {
        run.name: parts_of(run.name, folder / "training" / run.name, looks[run.name].key)
        for run in runs
        if looks[run.name].key
    }
    started = {part.job_id: part.run for own in parts.values() for part in own if part.job_id}
    found = jobs.known(folder, started)
    try:
        found = jobs.update(folder, found)
        source = "sacct" if found else "metrics"
    except slurm.Unavailable as reason:
        source = str(reason)
        if any(job.account is None or not job.account.over for job in found.values()):
            log.warning("%s; going by what is remembered and by the metrics", reason)
    attempts = _attempts(study, runs, looks, parts, found)
    rows = _run_rows(study, runs, looks, attempts)
    return Ledger(attempts, rows, _phase_rows(rows), source)


def node_hours(study: Study, results: str | Path, targets: Mapping[str, int]) -> tuple[float, float]:
    """What the study has taken up to now, and what some of its runs still take; only ends of metrics are read.

    Parameters
    ----------
    results : the folder of all studies' results.
    targets : the steps that runs are to reach.
    """
    folder, runs, looks = _look(study, results)
    found = jobs.known(folder, {look.job_id: name for name, look in looks.items() if look.job_id})
    try:
        found = jobs.update(folder, found)
    except slurm.Unavailable as reason:
        if found:
            log.warning("%s; node-hours spent are those that are remembered", reason)
    trained = hours.trained_by(segments(study))
    spent = sum(hours.spent(study, runs, found, looks, trained).values())
    left = (
        hours.planned(study, run, trained, looks[run.name].step, targets[run.name])
        for run in runs
        if run.name in targets and not looks[run.name].stopped
    )
    return spent, sum(left)


def _look(study: Study, results: str | Path) -> tuple[Path, list[Run], dict[str, Progress]]:
    folder, runs = Path(results) / study.study, all_runs(study)
    return folder, runs, {run.name: progress(folder / "training" / run.name, run.anchor or 0) for run in runs}


def write(ledger: Ledger, csv: str | Path, html: str | Path, title: str) -> None:
    """All attempts as CSV; phases, runs and attempts as a page."""
    import pandas as pd

    from gemstones.files import write_csv
    from gemstones.report import write_html_table

    attempts = pd.DataFrame([attempt_row(attempt) for attempt in ledger.attempts], columns=list(attempt_row(_EMPTY)))
    integers = ["stop_step", "first_step", "last_step"]
    attempts = attempts.astype(dict.fromkeys(integers, "Int64"))
    write_csv(attempts, csv)
    tables = {
        "Phases": _whole(pd.DataFrame(ledger.phases)),
        "Runs": _whole(pd.DataFrame(ledger.runs)),
        "Attempts": attempts,
    }
    write_html_table(tables, html, title, NOTE, PAGE_ROWS)


def _whole(table: pd.DataFrame) -> pd.DataFrame:
    """Hours in the thousands are read without decimals."""
    return table.assign(**{name: table[name].where(table[name] < 1000, table[name].round()) for name in SUMS})


_EMPTY = Attempt("", "")


def attempt_row(attempt: Attempt) -> dict[str, Any]:
    """An attempt's line in the ledger; times are UTC."""
    part = attempt.part
    return {
        "run": attempt.run,
        "phase": attempt.phase,
        "slurm_job_id": attempt.job_id,
        "stop_step": attempt.stop_step,
        "state": attempt.state,
        "outcome": attempt.outcome,
        "start": _time(attempt.start),
        "end": _time(attempt.end),
        "elapsed_hours": round(attempt.elapsed_seconds / 3600, 6),
        "nodes": attempt.nodes,
        "node_hours": round(attempt.node_hours, 6),
        "gpu_hours": round(attempt.gpu_hours, 6),
        "first_step": part and part.first_step,
        "last_step": part and part.last_step,
        "new_steps": part.new_steps if part else 0,
        "replayed_steps": part.replayed_steps if part else 0,
        "lost_steps": attempt.lost_steps,
        "step_hours": round(part.seconds / 3600, 6) if part else 0.0,
        "efficiency": None if attempt.phase == OTHER or not attempt.node_hours else round(attempt.efficiency, 4),
        "key": part.key if part else "",
    }


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _attempts(
    study: Study,
    runs: Sequence[Run],
    looks: Mapping[str, Progress],
    parts: Mapping[str, Sequence[Part]],
    found: Mapping[str, jobs.Job],
) -> list[Attempt]:
    phases = {run.name: str(run.phase) for run in runs}
    stopped = {name: look.stopped is not None for name, look in looks.items()}
    trained = hours.trained_by(segments(study))
    stops: dict[str, list[int]] = {}
    for (name, stop), members in trained.items():
        stops.setdefault(name, []).append(stop)
        for member in members[:-1]:
            stops[member.name] = [member.steps]
    accounted = {job_id: job for job_id, job in found.items() if job.account}
    by_job: dict[str, list[Part]] = {}
    following: dict[int, Part | None] = {}
    attempts: list[Attempt] = []
    for run in runs:
        own = parts.get(run.name, ())
        files: dict[str, list[Part]] = {}
        for part in own:
            files.setdefault(part.key, []).append(part)
        for key, of_file in files.items():
            following |= {id(part): after for part, after in pairwise([*of_file, None]) if part}
            for part in of_file:
                if part.job_id in accounted:
                    by_job.setdefault(part.job_id, []).append(part)
            current = key == looks[run.name].key
            attempts += (
                attempt
                for attempt in local_attempts(
                    of_file, phases[run.name], sorted(stops.get(run.name, ())),
                    looks[run.name].manifests if current else {},
                    running=current and looks[run.name].running, stopped=current and stopped[run.name],
                )
                if attempt.job_id not in accounted
            )  # fmt: skip
    gpus = study.plan.gpus_per_node
    attempts += slurm_attempts(list(accounted.values()), by_job, phases, gpus, following, stopped)
    place = {run.name: number for number, run in enumerate(runs)}
    return sorted(attempts, key=lambda a: (place.get(a.run, len(place)), a.run, a.start or 0.0, a.job_id))


def _run_rows(
    study: Study, runs: Sequence[Run], looks: Mapping[str, Progress], attempts: Iterable[Attempt]
) -> list[dict[str, Any]]:
    own: dict[str, list[Attempt]] = {run.name: [] for run in runs}
    for attempt in attempts:
        own.setdefault(attempt.run, []).append(attempt)
    trained = hours.trained_by(segments(study))
    rows = []
    for run in runs:
        look = looks[run.name]
        done = look.stopped is not None or look.step >= run.steps
        left = 0.0 if done else hours.planned(study, run, trained, look.step)
        head = {"run": run.name, "phase": run.phase, "step": look.step, "steps": run.steps}
        rows.append({**head, **_sums(own.pop(run.name), hours.planned(study, run, trained), left)})
    for name, others in own.items():
        rows.append({"run": name, "phase": OTHER, "step": None, "steps": None, **_sums(others, 0.0, 0.0)})
    return rows


def _sums(attempts: Sequence[Attempt], planned: float, left: float) -> dict[str, Any]:
    spent = sum(attempt.node_hours for attempt in attempts)
    kept = sum(attempt.kept_node_hours for attempt in attempts)
    if attempts and all(attempt.phase == OTHER for attempt in attempts):  # what they do is no step
        kept = sum(attempt.node_hours for attempt in attempts if attempt.outcome in ("finished", "running"))
        failed, replayed = spent - kept, 0.0
    else:
        failed = sum(attempt.failed_node_hours for attempt in attempts)
        replayed = sum(attempt.replayed_node_hours for attempt in attempts)
    bad = ("failed", "node failure", "out of memory", "out of time")  # not what someone has stopped
    return {
        "attempts": len(attempts),
        "failed_attempts": sum(attempt.outcome in bad for attempt in attempts),
        "lost_steps": sum(attempt.lost_steps for attempt in attempts),
        "planned_node_hours": planned,
        "spent_node_hours": spent,
        "kept_node_hours": kept,
        "lost_node_hours": spent - kept,
        "replayed_node_hours": replayed,
        "failed_node_hours": failed,
        "overhead_node_hours": max(spent - kept - replayed - failed, 0.0),
        "efficiency": kept / spent if spent else None,
        "left_node_hours": left,
        "gpu_hours": sum(attempt.gpu_hours for attempt in attempts),
    }


def _phase_rows(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    names = list(dict.fromkeys(row["phase"] for row in runs))
    return [_phase_row(name, [row for row in runs if row["phase"] == name]) for name in names] + [
        _phase_row("all", runs)
    ]


def _phase_row(name: str, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    trained = [row for row in runs if row["steps"] is not None]
    counted = ("attempts", "failed_attempts", "lost_steps", *SUMS)
    sums = {column: sum(row[column] for row in runs) for column in counted}
    spent = sums["spent_node_hours"]
    return {
        "phase": name,
        "runs": len(trained),
        "done": sum(row["step"] >= row["steps"] for row in trained),
        **sums,
        "efficiency": sums["kept_node_hours"] / spent if spent else None,
    }
