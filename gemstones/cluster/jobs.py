"""The study's Slurm jobs: which they are, by the logs that Snakemake's plugin files, and what Slurm's account says of them.

    <study>/logs/slurm/rule_<rule>/<wildcards>/<job id>.log     the listing tells which job was to do what
    <study>/cluster/jobs.csv                                    what sacct once said: its database is purged, logs are removed

The second is a memory: nothing declares it as an output, rows are only added or renewed.
"""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from gemstones import files
from gemstones.cluster import slurm
from gemstones.cluster.slurm import Accounted

log = logging.getLogger(__name__)

COLUMNS = [
    "job_id", "rule", "run", "step", "state", "elapsed_seconds", "nodes", "submitted", "started", "ended", "exit_code",
]  # fmt: skip


@dataclass(frozen=True)
class Job:
    """A Slurm job of the study; `run` and `step` are empty for rules that do not train, `account` where sacct said nothing."""

    job_id: str
    rule: str
    run: str = ""
    step: int | None = None
    account: Accounted | None = None

    @property
    def node_hours(self) -> float:
        return self.account.elapsed_seconds * self.account.nodes / 3600 if self.account else 0.0


def log_folder(study: Path) -> Path:
    return study / "logs" / "slurm"


def memory_path(study: Path) -> Path:
    return study / "cluster" / "jobs.csv"


def listed(folder: Path) -> dict[str, Job]:
    """Jobs whose logs lie below a folder, by id."""
    found = {}
    for base, _, names in os.walk(folder):
        for name in names:
            job = of_log(Path(base, name), folder)
            if job and job.job_id.isdigit():
                found[job.job_id] = job
    return found


def of_log(path: Path, folder: Path) -> Job | None:
    """The job that writes a log: `rule_<rule>/<run>_<step>/<id>.log`; of other rules, the wildcards are left out."""
    try:
        first, *wildcards, name = path.relative_to(folder).parts
    except ValueError:
        return None
    if not name.endswith(".log"):
        return None
    rule, job_id = first.removeprefix("rule_"), name.removesuffix(".log")
    if rule.startswith("group_"):  # and the names of its rules
        rule = rule.split("_")[1]
    run, _, step = "_".join(wildcards).rpartition("_")
    if rule.startswith("train_") and step.isdigit():
        return Job(job_id, rule, run, int(step))
    return Job(job_id, rule)


def known(study: Path, started: Mapping[str, str] | None = None) -> dict[str, Job]:
    """Jobs of the memory, of the logs and of `started` (ids by run, from start rows), by id; sacct is not asked."""
    found = _remembered(memory_path(study))
    for job_id, run in (started or {}).items():
        found.setdefault(job_id, Job(job_id, "", run))
    for job_id, job in listed(log_folder(study)).items():
        found[job_id] = replace(job, account=found[job_id].account if job_id in found else None)
    return found


def update(study: Path, jobs: Mapping[str, Job], timeout: float = 60) -> dict[str, Job]:
    """Ask sacct for the jobs that were not over when it was last asked, and remember what it says.

    A job that sacct no longer knows keeps what is remembered of it, and has the state UNKNOWN if it was not over.

    Raises
    ------
    Unavailable
        If there is no sacct, or it fails; what is remembered stays as it is.
    """
    unsettled = [job_id for job_id, job in jobs.items() if not (job.account and job.account.over)]
    if not unsettled:
        return dict(jobs)
    said = slurm.account(unsettled, timeout)
    renewed = dict(jobs)
    for job_id in unsettled:
        job = jobs[job_id]
        if job_id in said:
            renewed[job_id] = replace(job, account=said[job_id])
        elif job.account:
            renewed[job_id] = replace(job, account=replace(job.account, state="UNKNOWN"))
    if renewed != jobs:
        try:
            remember(study, renewed.values())
        except OSError as error:  # who may only read the study is told all the same
            log.warning("%s: cannot be written: %s", memory_path(study), error.strerror)
    return renewed


def remember(study: Path, jobs: Iterable[Job]) -> None:
    """Add to the memory, or renew in it, the jobs that sacct has said something of."""
    path = memory_path(study)
    rows = _remembered(path) | {job.job_id: job for job in jobs if job.account}
    with files.atomic(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for job in sorted(rows.values(), key=lambda job: (len(job.job_id), job.job_id)):
            account = job.account
            assert account is not None
            writer.writerow(
                [
                    job.job_id, job.rule, job.run, job.step, account.state, account.elapsed_seconds, account.nodes,
                    account.submitted, account.started, account.ended, account.exit_code,
                ]
            )  # fmt: skip


def _remembered(path: Path) -> dict[str, Job]:
    if not path.exists():
        return {}
    found = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            with suppress(KeyError, TypeError, ValueError):  # a row that someone has spoilt is asked for again
                account = Accounted(
                    row["job_id"], row["state"], int(row["elapsed_seconds"]), int(row["nodes"]), _time(row["submitted"]),
                    _time(row["started"]), _time(row["ended"]), row["exit_code"],
                )  # fmt: skip
                step = int(row["step"]) if row["step"] else None
                found[row["job_id"]] = Job(row["job_id"], row["rule"], row["run"], step, account)
    return found


def _time(text: str) -> float | None:
    return float(text) if text else None


def of_study(queue: Iterable[slurm.Queued], study: Path) -> list[tuple[slurm.Queued, Job | None]]:
    """The study's own of a user's jobs that wait or run, by the paths of their logs, and what they do.

    Parameters
    ----------
    study : `results/<study>`.
    """
    folder = log_folder(study).resolve()
    found = [(job, Path(job.log).resolve()) for job in queue]
    return [(job, of_log(path, folder)) for job, path in found if path.is_relative_to(folder)]
