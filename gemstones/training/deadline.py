"""When a job has to stop by itself: told by a signal, or because its time is nearly over."""

from __future__ import annotations

import signal
import time
from types import FrameType

from gemstones.cluster import slurm
from gemstones.study import Training

# Exit status of a job that saved its state and wants to be started again (EX_TEMPFAIL of sysexits.h).
CONTINUE = 75
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class OutOfTime(Exception):
    """The state is saved, the step not reached: start the job again."""


class Deadline:
    """Notices SIGTERM, SIGUSR1, SIGINT and the end of a Slurm job, or of `walltime_minutes`, some minutes before.

    It is made as the job starts. A job takes at least one step, however little time it has, so that jobs get somewhere.

    Attributes
    ----------
    reason : why it has passed.
    """

    def __init__(self, settings: Training) -> None:
        self.reason = ""
        self._step = time.monotonic()
        self._longest = 0.0
        self._interrupted: float | None = None
        left = slurm.minutes_left() if settings.walltime_minutes is None else settings.walltime_minutes
        # Of a short job, no more than half goes by unused.
        self._end = None if left is None else self._step + 60 * (left - min(settings.save_minutes_before, left / 2))
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    def begin_steps(self) -> None:
        """Steps follow: what went before them is none."""
        self._step = time.monotonic()

    def over(self) -> bool:
        """Whether to stop what is no step, such as waiting."""
        if self._end is not None and time.monotonic() > self._end and not self.reason:
            self.reason = "the time is over"
        return bool(self.reason)

    def passed(self) -> bool:
        """Whether to save and stop now; called once a step, so that another step of the longest length still fits."""
        now = time.monotonic()
        self._longest, self._step = max(self._longest, now - self._step), now
        if self._end is not None and now + self._longest > self._end and not self.reason:
            self.reason = "the time is nearly over"
        return bool(self.reason)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            self._interrupted = self._interrupted or time.monotonic()
            if time.monotonic() - self._interrupted > 1:
                raise KeyboardInterrupt  # someone is impatient
        self.reason = f"told to stop by {signal.Signals(number).name}"
