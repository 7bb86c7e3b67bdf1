"""What is asked of Slurm, where there is one: how much time a job has left, whether another one is still there."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import time
from pathlib import Path

log = logging.getLogger(__name__)

# A job in any other state has no process that trains: a waiting one has not begun, or was put back into the queue.
AT_WORK = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING", "STARTING")


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
        return minutes(_squeue(job, "%L"))
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("squeue does not say how much time is left (%s); stopping on signals only", error)
        return None


def minutes(text: str) -> float | None:
    """Slurm's [days-][[hours:]minutes:]seconds in minutes; None for UNLIMITED and the like."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(?:(\d+):)?(\d+):)?(\d+)", text)
    if not found:
        return None
    days, hours, whole, seconds = (int(part or 0) for part in found.groups())
    return 1440 * days + 60 * hours + whole + seconds / 60


def at_work(job: str) -> bool:
    """Whether a job may have processes; also where Slurm does not answer, since it is safer to wait."""
    try:
        return _squeue(job, "%T") in AT_WORK
    except FileNotFoundError:  # no Slurm on this machine
        return False
    except subprocess.CalledProcessError as error:
        return "Invalid job id" not in error.stderr
    except (OSError, subprocess.SubprocessError):
        return True


def tell_to_stop(job: str) -> None:
    """Let a training job save and stop."""
    try:
        subprocess.run(["scancel", "--signal=USR1", job], capture_output=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("scancel does not reach Slurm job %s (%s)", job, error)


def jobs_left(prefix: str, folder: Path) -> list[str]:
    """Jobs whose names begin with a prefix, submitted from a folder, that wait or run; none where Slurm does not answer."""
    command = ["squeue", "--noheader", "--me", "--format", "%i|%j|%Z"]
    try:
        text = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    found = [line.split("|", 2) for line in text.splitlines()]
    return [job for job, name, place in found if prefix and name.startswith(prefix) and place == str(folder)]


def _squeue(job: str, form: str) -> str:
    command = ["squeue", "--noheader", "--jobs", job, "--format", form]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip()
