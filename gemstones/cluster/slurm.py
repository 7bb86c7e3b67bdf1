"""What Slurm says of jobs: `sacct` of all that ever ran, `squeue` of those that wait or run; and a job's own time."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from gemstones.errors import UserError

log = logging.getLogger(__name__)

# Ids in one call of sacct: a thousand would still fit on a command line, but keep its database busy.
CHUNK = 250
ACCOUNT_FIELDS = ("JobIDRaw", "State", "ElapsedRaw", "NNodes", "Submit", "Start", "End", "ExitCode")
# With their widths: squeue's other way of naming fields knows no paths.
QUEUE_FIELDS = {
    "JobID": 20, "State": 20, "Reason": 60, "TimeLeft": 20, "TimeUsed": 20, "NumNodes": 10, "StartTime": 24, "STDOUT": 1000,
}  # fmt: skip
WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT")
ACTIVE = (*WAITING, "RUNNING", "SUSPENDED", "COMPLETING", "RESIZING", "STOPPED", "STAGE_OUT", "SIGNALING")


class Unavailable(UserError):
    """Slurm is there and does not answer."""


@dataclass(frozen=True)
class Accounted:
    """A job in Slurm's account; times are seconds since 1970, and None before they came."""

    job_id: str
    state: str
    elapsed_seconds: int
    nodes: int
    submitted: float | None
    started: float | None
    ended: float | None
    exit_code: str

    @property
    def over(self) -> bool:
        return self.state not in (*ACTIVE, "UNKNOWN")


@dataclass(frozen=True)
class Queued:
    """A job in the queue, or running; `log` is the path of its output, with its id as %j or not."""

    job_id: str
    state: str
    reason: str
    seconds_left: int | None
    seconds_used: int
    nodes: int
    expected_start: float | None
    log: str

    @property
    def running(self) -> bool:
        return self.state not in WAITING


def job_id() -> str | None:
    """The Slurm job in which this process runs."""
    return os.environ.get("SLURM_JOB_ID")


def minutes_left() -> float | None:
    """Time that Slurm leaves this job; None where there is no limit, or no Slurm."""
    end, job = os.environ.get("SLURM_JOB_END_TIME"), job_id()
    if end and end.isdigit():
        return (int(end) - time.time()) / 60
    if not job:
        return None
    try:
        seconds = duration(_squeue(job, "%L"))
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("squeue does not say how much time is left (%s); stopping on signals only", error)
        return None
    return None if seconds is None else seconds / 60


def at_work(job: str) -> bool:
    """Whether a job may have processes; also where Slurm does not answer, since it is safer to wait."""
    try:
        state = _squeue(job, "%T")
    except FileNotFoundError:  # no Slurm on this machine
        return False
    except subprocess.CalledProcessError as error:
        return "Invalid job id" not in error.stderr
    except (OSError, subprocess.SubprocessError):
        return True
    # A waiting job has not begun, or was put back into the queue.
    return state in ACTIVE and state not in WAITING


def tell_to_stop(job: str) -> None:
    """Let a training job save and stop."""
    cancel(job, "--signal=USR1")


def cancel(job: str, *options: str) -> None:
    try:
        subprocess.run(["scancel", *options, job], capture_output=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("scancel does not reach Slurm job %s (%s)", job, error)


def _squeue(job: str, form: str) -> str:
    command = ["squeue", "--noheader", "--jobs", job, "--format", form]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip()


def account(ids: Iterable[str], timeout: float = 60) -> dict[str, Accounted]:
    """What sacct knows of jobs, by id; those that it does not know are left out.

    Raises
    ------
    Unavailable
        If there is no sacct, or it fails.
    """
    wanted = sorted(set(ids), key=lambda job: (len(job), job))
    found: dict[str, Accounted] = {}
    for first in range(0, len(wanted), CHUNK):
        chosen = ",".join(wanted[first : first + CHUNK])
        # With a line for each time that a job ran before it was put back into the queue: they are charged, too.
        options = ["-P", "-n", "-X", "-D", "-j", chosen, f"--format={','.join(ACCOUNT_FIELDS)}"]
        for line in _lines(["sacct", *options], timeout):
            job = _accounted(line)
            if job:
                found[job.job_id] = _together(found.get(job.job_id), job)
    return found


def _together(former: Accounted | None, job: Accounted) -> Accounted:
    """A job that ran several times."""
    if former is None:
        return job
    return replace(
        job, elapsed_seconds=former.elapsed_seconds + job.elapsed_seconds, nodes=job.nodes or former.nodes,
        started=former.started or job.started,
    )  # fmt: skip


def _accounted(line: str) -> Accounted | None:
    cells = line.split("|")
    if len(cells) != len(ACCOUNT_FIELDS):
        return None
    job_id, state, elapsed, nodes, submitted, started, ended, exit_code = cells
    # "CANCELLED by 123" tells who did it.
    words = state.split()
    return Accounted(
        job_id, words[0] if words else "UNKNOWN", int(elapsed or 0), int(nodes or 0), moment(submitted), moment(started),
        moment(ended), exit_code,
    )  # fmt: skip


def queue(timeout: float = 20) -> list[Queued]:
    """The user's jobs that wait or run, in one call; raises Unavailable as `account` does."""
    fields = ",".join(f"{name}:{width}" for name, width in QUEUE_FIELDS.items())
    found = []
    for line in _lines(["squeue", "-h", "--me", "-O", fields], timeout):
        cells, at = [], 0
        for width in QUEUE_FIELDS.values():
            cells.append(line[at : at + width].strip())
            at += width
        job_id, state, reason, left, used, nodes, start, log = cells
        found.append(
            Queued(
                job_id, state, reason, duration(left), duration(used) or 0, int(nodes) if nodes.isdigit() else 0,
                moment(start), log,
            )
        )  # fmt: skip
    return found


def duration(text: str) -> int | None:
    """Seconds of [days-][[hours:]minutes:]seconds, or None for other words, such as UNLIMITED."""
    days, dash, rest = text.rpartition("-")
    parts = rest.split(":")
    if not all(part.isdigit() for part in (*parts, *([days] if dash else []))):
        return None
    seconds = 0
    for part in parts:
        seconds = 60 * seconds + int(part)
    return seconds + 86_400 * int(days or 0)


def moment(text: str) -> float | None:
    """Seconds since 1970 of a time as Slurm prints it, in the machine's own zone; None for Unknown and the like."""
    if text.isdigit():
        return float(text)
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def _lines(command: Sequence[str], timeout: float) -> list[str]:
    if shutil.which(command[0]) is None:
        raise Unavailable(f"{command[0]}: not found")
    # Times without a zone would be ambiguous for an hour a year.
    environment = {**os.environ, "SLURM_TIME_FORMAT": "%s"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{command[0]}: no answer within {timeout:g} s") from None
    if done.returncode:
        why = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        said = re.sub(r"^\w+: (error|fatal): ", "", why[-1])
        raise Unavailable(f"{command[0]}: {said}")
    return done.stdout.splitlines()
