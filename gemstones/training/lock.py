"""One job a run: a killed Snakemake leaves its jobs running, and would start them twice."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from pathlib import Path
from typing import IO

from gemstones.cluster import slurm
from gemstones.training.deadline import OutOfTime

log = logging.getLogger(__name__)

# Seconds between two reminders to a job that is to stop, how many it gets before it is cancelled, and how many it is waited for.
REMIND, REMINDERS, MOST_REMINDERS = 60, 5, 10


class Lock:
    """A file that the kernel locks, so that it ends with the process that holds it, however that ends.

    In it stands the Slurm job of that process, for file systems on which nodes do not see each other's locks: it is
    stale as soon as the job is over, or was put back into the queue. Of two Slurm jobs the later one goes on:
    it tells the earlier one to save and stop, cancels it if it does not, and does not wait for hours on nodes that are paid for.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[str] | None = None
        self._mine = slurm.job_id()
        self._reminded, self._reminders = -float(REMIND), 0
        self._warned = False

    def take(self) -> bool:
        """Try to get it.

        Raises
        ------
        OutOfTime
            If a later Slurm job than this one has it, or an earlier one does not end.
        """
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+")
        locks = True
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._wait_for(self._holder())
            return False
        except OSError as error:  # some shared file systems are mounted without locks
            locks = False
            if not self._mine:
                self._warn("%s: cannot be locked (%s); nothing keeps another process off this run", error.strerror)
        holder = self._holder()
        if holder not in ("", self._mine) and slurm.at_work(holder):
            if locks:
                fcntl.flock(self._file, fcntl.LOCK_UN)
            self._wait_for(holder)
            return False
        if self._holder() != holder:  # another job was faster
            return False
        self._write(self._mine or "")
        if not locks and self._mine:
            time.sleep(1)
            return self._holder() == self._mine
        return True

    def release(self) -> None:
        """Let others have it; Slurm's jobs when this one is over, since its Snakemake still removes what a failed job has written."""
        if self._file:
            self._file.close()
            self._file = None

    def _holder(self) -> str:
        """The Slurm job that has the lock, if it is one."""
        found = self.path.read_text().strip()
        return found if found.isdigit() else ""

    def _write(self, holder: str) -> None:
        assert self._file
        self._file.truncate(0)
        self._file.write(holder)
        self._file.flush()
        os.fsync(self._file.fileno())

    def _wait_for(self, holder: str) -> None:
        if not (self._mine and holder) or holder == self._mine:
            self._warn("%s: another process is training this run; waiting for it")
            return
        if int(holder) > int(self._mine):
            raise OutOfTime(f"{self.path}: Slurm job {holder}, submitted later, is training this run")
        if time.monotonic() - self._reminded < REMIND:
            return
        if self._reminders >= MOST_REMINDERS:
            raise OutOfTime(f"{self.path}: Slurm job {holder} is training this run, and does not end")
        self._reminded, self._reminders = time.monotonic(), self._reminders + 1
        if self._reminders <= REMINDERS:
            log.warning("%s: Slurm job %s is training this run; telling it to save and stop", self.path, holder)
            slurm.tell_to_stop(holder)
        else:
            log.warning("%s: Slurm job %s does not stop; cancelling it", self.path, holder)
            slurm.cancel(holder)

    def _warn(self, message: str, *values: object) -> None:
        if not self._warned:
            log.warning(message, self.path, *values)
        self._warned = True
