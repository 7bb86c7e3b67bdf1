"""Node-hours of runs: planned, and quickly what they have taken, by Slurm's account or, without it, by their steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gemstones.cluster.jobs import Job
from gemstones.cluster.progress import Progress
from gemstones.cluster.throughput import speed
from gemstones.study import Study
from gemstones.suite.runs import Run, Segment

# Of jobs that train no run: data, losses, laws, …
OTHER = "other"


def own_steps(run: Run) -> int:
    """Steps that a run trains itself."""
    return run.steps - (run.anchor or 0)


def planned(
    study: Study,
    run: Run,
    trained: Mapping[tuple[str, int], tuple[Run, ...]],
    step: int | None = None,
    until: int | None = None,
) -> float:
    """Node-hours of a run as the facility charges them: its steps, and the start of each job that has not begun.

    Parameters
    ----------
    trained : see :func:`trained_by`; a job that trains several runs starts for the last of them.
    step, until : from and up to where, by default all of the run.
    """
    start = run.anchor or 0
    step, until = max(start, step or 0), run.steps if until is None else until
    nodes, seconds_per_step, _ = speed(study, run)
    stops = sorted(stop for name, stop in trained if name == run.name and stop <= until)
    starts = sum(begin >= step for begin, _ in zip([start, *stops], stops, strict=False))
    return nodes * (max(until - step, 0) * seconds_per_step / 3600 + starts * study.plan.start_minutes / 60)


def trained_by(segments: Iterable[Segment]) -> dict[tuple[str, int], tuple[Run, ...]]:
    """The runs that a job trains, by its run and last step."""
    return {(segment.run.name, segment.stop): (*segment.before, segment.run) for segment in segments}


def spent(
    study: Study,
    runs: Iterable[Run],
    jobs: Mapping[str, Job],
    looks: Mapping[str, Progress],
    trained: Mapping[tuple[str, int], tuple[Run, ...]],
) -> dict[str, float]:
    """Node-hours by run, and of other jobs under OTHER.

    A job that trains several runs is shared among them by their steps. Runs of which Slurm's account has nothing, such as local
    ones, are taken to have trained each of their steps once, at their present speed.
    """
    hours: dict[str, float] = {OTHER: 0.0}
    for job in jobs.values():
        if job.account is None:
            continue
        members = trained.get((job.run, job.step or 0), ())
        total = sum(map(own_steps, members))
        for member in members:
            hours[member.name] = hours.get(member.name, 0.0) + job.node_hours * own_steps(member) / total
        if not members:
            name = job.run if job.run in looks else OTHER
            hours[name] = hours.get(name, 0.0) + job.node_hours
    for run in runs:
        look = looks[run.name]
        if run.name not in hours and look.seconds_per_step is not None:
            steps = max(look.step - (run.anchor or 0), 0)
            hours[run.name] = steps * look.seconds_per_step * (look.nodes or speed(study, run).nodes) / 3600
    return hours
