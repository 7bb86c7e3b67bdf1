"""How long a plan takes from the first job to the last, by a simulation of a queue's limits.

Assumed: a job starts so many minutes after the scheduler began to look at it (`plan.wait_minutes`), or later if as many jobs
as the queue lets a user run do run; every job takes as long as planned, and none fails. A job is submitted once those before it
have ended, as Snakemake does it. Of ready jobs, those with the longest chain still to go come first; Snakemake itself takes
them as they come. Shards of tokens are there already, and laws and figures come after.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

import pandas as pd

from gemstones.cluster.throughput import speed
from gemstones.errors import UserError
from gemstones.study import Queue, Study
from gemstones.suite.runs import segments

COLUMNS = [
    "queue", "wait_minutes", "jobs", "makespan_days", "longest_chain_days", "job_days", "charged_node_hours", "peak_nodes", "peak_jobs",
    "note",
]  # fmt: skip
# Factors on the assumed wait, which is a guess.
WAITS = (0, 1, 4)


@dataclass(frozen=True)
class Job:
    """One job: which jobs, by key, must have ended before it, how long it takes, and on how many nodes."""

    key: Hashable
    after: tuple[Hashable, ...]
    hours: float
    nodes: int = 1


class Times(NamedTuple):
    """Of a job, in hours: when it was submitted, looked at by the scheduler, started and ended."""

    submitted: float
    eligible: float
    start: float
    end: float


@dataclass(frozen=True)
class Schedule:
    """Times of all jobs, in their order, and what they come to."""

    times: tuple[Times, ...]
    makespan_hours: float
    longest_chain_hours: float
    peak_nodes: int
    peak_jobs: int


def simulate(
    jobs: Sequence[Job],
    *,
    wait_hours: float = 0,
    running: int | None = None,
    eligible: int | None = None,
    queued: int | None = None,
) -> Schedule:
    """Run jobs through a queue, in O(n log n).

    Parameters
    ----------
    jobs : each after those it waits for.
    wait_hours : from when the scheduler looks at a job until it may start.
    running : most jobs at the same time.
    eligible : most waiting jobs that the scheduler looks at.
    queued : most jobs that run and wait, eligible or not.
    """
    most_running, most_eligible, most_queued = (inf if most is None else most for most in (running, eligible, queued))
    place = {job.key: number for number, job in enumerate(jobs)}
    before = [[place[key] for key in job.after] for job in jobs]
    following: list[list[int]] = [[] for _ in jobs]
    for number, those in enumerate(before):
        for other in those:
            following[other].append(number)
    # Hours from the start of a job to the end of all that waits for it, waits included.
    left = [0.0] * len(jobs)
    for number in reversed(range(len(jobs))):
        ahead = max((wait_hours + left[other] for other in following[number]), default=0.0)
        left[number] = jobs[number].hours + ahead
    missing = [len(those) for those in before]

    now, in_queue, looked_at, runs, nodes, peak_nodes, peak_jobs = 0.0, 0, 0, 0, 0, 0, 0
    submitted, looked, started, ended = ([0.0] * len(jobs) for _ in range(4))
    # Each by the longest way to go: not submitted yet, waiting, and due to start.
    ready = [(-left[number], number) for number in range(len(jobs)) if not missing[number]]
    heapq.heapify(ready)
    waiting: list[tuple[float, int]] = []
    due: list[tuple[float, int]] = []
    # What happens next: (hour, whether it is an end, job); starts come to be due.
    events: list[tuple[float, bool, int]] = []
    while True:
        changed = True
        while changed:
            changed = False
            while ready and in_queue < most_queued:
                item = heapq.heappop(ready)
                submitted[item[1]], in_queue = now, in_queue + 1
                heapq.heappush(waiting, item)
            while waiting and looked_at < most_eligible:
                _, number = item = heapq.heappop(waiting)
                looked[number], looked_at, changed = now, looked_at + 1, True
                if wait_hours:
                    heapq.heappush(events, (now + wait_hours, False, number))
                else:
                    heapq.heappush(due, item)
            while due and runs < most_running:
                _, number = heapq.heappop(due)
                started[number], ended[number] = now, now + jobs[number].hours
                looked_at, runs, nodes, changed = looked_at - 1, runs + 1, nodes + jobs[number].nodes, True
                heapq.heappush(events, (ended[number], True, number))
        peak_nodes, peak_jobs = max(peak_nodes, nodes), max(peak_jobs, runs)
        if not events:
            break
        now = events[0][0]
        while events and events[0][0] == now:
            _, has_ended, number = heapq.heappop(events)
            if not has_ended:
                heapq.heappush(due, (-left[number], number))
                continue
            in_queue, runs, nodes = in_queue - 1, runs - 1, nodes - jobs[number].nodes
            for other in following[number]:
                missing[other] -= 1
                if not missing[other]:
                    heapq.heappush(ready, (-left[other], other))
    times = tuple(map(Times._make, zip(submitted, looked, started, ended, strict=True)))
    longest = max((wait_hours + hours for hours in left), default=0.0)
    return Schedule(times, max(ended, default=0.0), longest, peak_nodes, peak_jobs)


def planned_jobs(study: Study) -> list[Job]:
    """The study's training jobs, with the time that each takes to start."""
    jobs = []
    for segment in segments(study):
        nodes, seconds_per_step, _ = speed(study, segment.run)
        hours = segment.steps * seconds_per_step / 3600 + study.plan.start_minutes / 60
        jobs.append(Job((segment.run.name, segment.stop), segment.after, hours, nodes))
    return jobs


def in_queue(study: Study, queue: str) -> Study:
    """The study planned for another queue, with that one's walltimes; a job takes as long to start as before."""
    plan = study.plan
    if queue == plan.queue:
        return study
    update = {"queue": queue, "walltime_minutes": None}
    return study.model_copy(update={"plan": plan.model_copy(update=update)})


def makespan_table(study: Study, queues: Sequence[str] | None = None) -> pd.DataFrame:
    """How long the study takes in each queue, without wait, with the assumed one, and with four times as much.

    Returns
    -------
    DataFrame with `COLUMNS`. `longest_chain_days` is the time that no number of nodes shortens, `job_days` that of all jobs
    one after another, and a queue that does not take the study's jobs has only a `note` that says why.
    """
    if study.runs is None:
        return pd.DataFrame(columns=COLUMNS)
    names = list(queues or study.plan.queues)
    found: list[dict[str, object]] = []
    for name in [study.plan.queue] if study.plan.queue is None and not queues else names:
        limits = study.plan.queues[name] if name else None
        try:
            jobs = planned_jobs(in_queue(study, name) if name else study)
        except UserError as error:
            found.append({"queue": name, "note": str(error)})
            continue
        for wait_minutes in dict.fromkeys(factor * study.plan.wait_minutes for factor in WAITS):
            found.append({"queue": name, "wait_minutes": wait_minutes, **_row(jobs, limits, wait_minutes)})
    return pd.DataFrame(found, columns=COLUMNS).astype(dict.fromkeys(("jobs", "peak_nodes", "peak_jobs"), "Int64"))


def _row(jobs: Sequence[Job], limits: Queue | None, wait_minutes: float) -> dict[str, float | None]:
    most = {} if limits is None else limits.model_dump(exclude={"bins"})
    schedule = simulate(jobs, wait_hours=wait_minutes / 60, **most)
    return {
        "jobs": len(jobs),
        "makespan_days": schedule.makespan_hours / 24,
        "longest_chain_days": schedule.longest_chain_hours / 24,
        "job_days": sum(job.hours for job in jobs) / 24,
        "charged_node_hours": sum(job.hours * job.nodes for job in jobs),
        "peak_nodes": schedule.peak_nodes,
        "peak_jobs": schedule.peak_jobs,
    }
