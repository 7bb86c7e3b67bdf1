"""Attempts: each time that a job worked on a run, how long it took by Slurm's account or its own rows, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from gemstones.cluster.jobs import Job
from gemstones.cluster.parts import Part

# The last row of a file may be so much older than the file, or a process's steps so much shorter than its life.
SLACK_SECONDS = 600
FINAL = {
    "TIMEOUT": "out of time", "NODE_FAIL": "node failure", "BOOT_FAIL": "node failure", "OUT_OF_MEMORY": "out of memory",
    "CANCELLED": "cancelled", "PREEMPTED": "preempted", "DEADLINE": "out of time",
}  # fmt: skip


@dataclass
class Attempt:
    """One row of the ledger; `elapsed_seconds` of several runs in one job are each its own share."""

    run: str
    phase: str
    job_id: str = ""
    stop_step: int | None = None
    state: str = ""
    outcome: str = ""
    start: float | None = None
    end: float | None = None
    elapsed_seconds: float = 0.0
    nodes: int = 0
    gpus: int = 0
    part: Part | None = field(default=None, repr=False)

    @property
    def node_hours(self) -> float:
        return self.elapsed_seconds * self.nodes / 3600

    @property
    def gpu_hours(self) -> float:
        return self.elapsed_seconds * self.gpus / 3600

    @property
    def kept_node_hours(self) -> float:
        return min(self.part.kept_seconds, self.elapsed_seconds) * self.nodes / 3600 if self.part else 0.0

    @property
    def lost_steps(self) -> int:
        return self.part.steps - self.part.kept_steps if self.part else 0

    @property
    def replayed_node_hours(self) -> float:
        """Of steps that are not kept."""
        lost = self.part.seconds - self.part.kept_seconds if self.part else 0.0
        return min(lost * self.nodes / 3600, self.node_hours - self.kept_node_hours)

    @property
    def failed_node_hours(self) -> float:
        """Of an attempt without any step."""
        return 0.0 if self.part and self.part.steps else self.node_hours

    @property
    def efficiency(self) -> float:
        return self.kept_node_hours / self.node_hours if self.node_hours else 0.0


def local_attempts(
    parts: Sequence[Part],
    phase: str,
    stops: Sequence[int],
    manifests: Mapping[int, float],
    *,
    running: bool,
    stopped: bool,
) -> list[Attempt]:
    """Attempts at a run that are not in Slurm's account, timed by their first row, their steps and when files were written.

    Parameters
    ----------
    parts : of one file.
    stops : the planned last steps of the run's jobs, ascending.
    manifests : when that of a step was written, seconds since 1970.
    running : whether the last one goes on.
    stopped : whether the run was ended for good.
    """
    found = []
    for part, following in pairwise([*parts, None]):
        assert part is not None
        stop = next((step for step in stops if step > part.start_step), None)
        reached = stop is not None and (part.last_step or part.start_step) >= stop
        last = following is None
        outcome = (
            "running" if last and running
            else "finished" if reached
            else "stopped" if last and stopped
            else _ended(part, following)
        )  # fmt: skip
        written = [part.file_time] if part.file_time else []
        written += [manifests[stop]] if stop is not None and reached and stop in manifests else []
        elapsed = _lived(part, written, following.time if following else None)
        end = None if part.time is None or outcome == "running" else part.time + elapsed
        found.append(
            Attempt(
                part.run, phase, part.job_id, stop, "", outcome, part.time, end, elapsed, part.nodes, part.gpus, part
            )
        )  # fmt: skip
    return found


def _lived(part: Part, written: Sequence[float], before: float | None) -> float:
    """Seconds from a part's first row to the last of its files that can be its own; at least those of its steps.

    A file that was copied, or written again by a job with nothing to do, has a later time.
    """
    if part.time is None:
        return part.seconds
    most = 2 * part.seconds + SLACK_SECONDS
    if before is not None:
        most = min(most, before - part.time)
    return max([part.seconds, *(at - part.time for at in written if at - part.time <= most)])


def slurm_attempts(
    jobs: Sequence[Job], parts: Mapping[str, Sequence[Part]], phases: Mapping[str, str], gpus_per_node: int,
    following: Mapping[int, Part | None], stopped: Mapping[str, bool],
) -> list[Attempt]:  # fmt: skip
    """Attempts of jobs that Slurm has in its account; one that trained several runs has a row for each.

    Parameters
    ----------
    parts : by job.
    phases : by run; jobs of other rules have the phase `other`.
    following : of a part by its id(), what came after it in its run.
    stopped : whether a run was ended for good.
    """
    found = []
    for job in jobs:
        account = job.account
        assert account is not None
        own = sorted(parts.get(job.job_id, ()), key=lambda part: part.time or 0.0)
        begun = account.started
        end = None if begun is None else begun + account.elapsed_seconds
        run = job.run or job.rule or "unknown"
        if not own or begun is None or end is None:
            words = {"COMPLETED": "finished", "RUNNING": "running", "FAILED": "failed", "PENDING": "queued"}
            found.append(
                Attempt(
                    run, phases.get(run, "other"), job.job_id, job.step, account.state,
                    FINAL.get(account.state) or words.get(account.state, account.state.lower()), begun, account.ended,
                    account.elapsed_seconds, account.nodes, account.nodes * gpus_per_node,
                )
            )  # fmt: skip
            continue
        # A job that was put back into the queue waited there, before its second part.
        waited = max((account.ended or end) - end, 0.0)
        cuts = [begun, *(min(max((part.time or begun) - waited, begun), end) for part in own[1:]), end]
        for part, (first, last) in zip(own, pairwise(cuts), strict=True):
            final = part is own[-1]
            moved, after = waited if part is not own[0] else 0.0, following.get(id(part))
            put_back = waited > 1 and not final
            outcome = _ended(part, after) if put_back else _outcome(account.state, part, after, final, stopped)
            found.append(
                Attempt(
                    part.run, phases.get(part.run, "other"), job.job_id, job.step if part.run == job.run else None,
                    account.state, outcome, first + moved, account.ended if final else last + moved, last - first,
                    account.nodes, part.gpus, part,
                )
            )  # fmt: skip
    return found


def _outcome(state: str, part: Part, following: Part | None, final: bool, stopped: Mapping[str, bool]) -> str:
    if not final or state == "COMPLETED":
        return "finished"
    if state in FINAL:
        return FINAL[state]
    if state == "FAILED":
        return "stopped" if following is None and stopped.get(part.run) else _ended(part, following)
    return "running" if state == "RUNNING" else _ended(part, following)


def _ended(part: Part, following: Part | None) -> str:
    """Of an attempt that did not reach its step: whether it saved the last one that it did, to go on from there."""
    saved = part.saved if following is None else following.start_step == part.last_step
    return "continued" if part.steps and saved else "failed"
