"""The plan of a study: what every job takes of a cluster, summed by run and by phase, before anything is submitted."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pandas as pd

from gemstones.cluster.memory import planned_memory_bytes
from gemstones.cluster.throughput import speed
from gemstones.errors import UserError
from gemstones.study import Study
from gemstones.suite import counting
from gemstones.suite.runs import Run, Segment, segments
from gemstones.suite.shapes import architecture

PLAN_COLUMNS = [
    "run", "phase", "shape", "start_step", "stop_step", "runs", "steps", "tokens", "nodes", "devices", "strategy", "queue",
    "bin_nodes", "walltime_minutes", "memory_bytes", "seconds_per_step", "speed_source", "hours", "node_hours",
    "charged_node_hours", "gpu_hours", "flops", "mfu", "checkpoint_bytes",
]  # fmt: skip
SUMS = ["steps", "tokens", "hours", "node_hours", "charged_node_hours", "gpu_hours", "flops", "checkpoint_bytes"]
ALIKE = [
    "nodes",
    "devices",
    "strategy",
    "queue",
    "walltime_minutes",
    "memory_bytes",
    "seconds_per_step",
    "speed_source",
]
RUN_COLUMNS = ["run", "phase", "shape", "runs", "jobs", *ALIKE, *SUMS, "mfu"]
SHAPE_COLUMNS = [name for name in RUN_COLUMNS if name != "run"]
TOTAL_COLUMNS = ["phase", "runs", "jobs", *SUMS, "mfu"]
# A weight and AdamW's two moments, in float32.
CHECKPOINT_BYTES_PER_PARAMETER = 12
# Written to CSV: enough to sum up thousands of jobs.
DIGITS = 7


def plan_table(study: Study) -> pd.DataFrame:
    """The planned jobs, one row each.

    Returns
    -------
    DataFrame with `PLAN_COLUMNS`. `runs` is how many runs the job trains. `bin_nodes` is the most nodes of the queue's bin.
    `memory_bytes` is what a step takes of each device at its peak, and `checkpoint_bytes` what the job leaves on disk. Hours
    and what follows from them are those of steps alone; `charged_node_hours` has the time to start, too. `mfu` is the model's
    FLOP/s of a device over `plan.gpu_peak_flops`, empty if that is not set.
    """
    plan, arch = study.plan, architecture(study.suite)
    memory: dict[str, int] = {}
    rows = []
    for segment in segments(study):
        run = segment.run
        nodes, seconds_per_step, source = speed(study, run)
        if run.shape not in memory:
            memory[run.shape] = round(planned_memory_bytes(study, run))
        steps = segment.steps
        tokens, devices = steps * run.tokens_per_step, nodes * plan.gpus_per_node
        hours = steps * seconds_per_step / 3600
        flops = tokens * counting.flops_per_token(run.width, run.depth, arch)
        found = plan.queue_bin(nodes)
        rows.append(
            (
                run.name, run.phase, run.shape, segment.start, segment.stop, 1 + len(segment.before), steps, tokens, nodes,
                devices, study.training.strategy, plan.queue, found and found.nodes, plan.walltime(nodes), memory[run.shape],
                seconds_per_step, source, hours, nodes * hours, nodes * (hours + plan.start_minutes / 60),
                devices * hours, flops, _mfu(study, flops, devices * hours),
                counting.params(run.width, run.depth, arch) * CHECKPOINT_BYTES_PER_PARAMETER * _kept(study, segment),
            )
        )  # fmt: skip
    return pd.DataFrame(rows, columns=PLAN_COLUMNS).astype({"bin_nodes": "Int64"})


def runs_table(study: Study, jobs: pd.DataFrame) -> pd.DataFrame:
    """The jobs of :func:`plan_table` by run, or by shape where its runs share a job: `RUN_COLUMNS`."""
    return _sums(study, jobs, ["run", "phase", "shape"])[RUN_COLUMNS]


def shapes_table(study: Study, jobs: pd.DataFrame) -> pd.DataFrame:
    """The jobs of :func:`plan_table` by phase and shape: `SHAPE_COLUMNS`."""
    return _sums(study, jobs, ["phase", "shape"])[SHAPE_COLUMNS]


def totals(study: Study, jobs: pd.DataFrame) -> pd.DataFrame:
    """The jobs of :func:`plan_table` by phase, with a last row `all`: `TOTAL_COLUMNS`."""
    parts, whole = (_sums(study, each, ["phase"]) for each in (jobs, jobs.assign(phase="all")))
    return pd.concat([parts, whole], ignore_index=True)[TOTAL_COLUMNS]


def _sums(study: Study, jobs: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    # A run is counted in its first job.
    counted = jobs.assign(jobs=1, runs=jobs["runs"].where(~jobs["run"].duplicated(), 0))
    how = dict.fromkeys(ALIKE, "first") | dict.fromkeys(["runs", "jobs", *SUMS], "sum")
    sums = counted.groupby(keys, sort=False).agg(how).reset_index()
    return sums.assign(mfu=[_mfu(study, *each) for each in zip(sums["flops"], sums["gpu_hours"], strict=True)])


def _mfu(study: Study, flops: float, gpu_hours: float) -> float:
    peak = study.plan.gpu_peak_flops
    return math.nan if peak is None else flops / (3600 * gpu_hours * peak)


def _kept(study: Study, segment: Segment) -> int:
    """Checkpoints that a job leaves: those that others start from and its last one, or all of them."""

    def of(run: Run, start: int, stop: int, asked: Iterable[int]) -> int:
        steps = {stop, *asked}
        if study.training.keep_checkpoints == "all":
            every = run.evaluate_every
            steps |= set(range(start // every * every + every, stop + 1, every))
        return len(steps)

    shared = sum(of(run, run.anchor or 0, run.steps, ()) for run in segment.before)
    return shared + of(segment.run, segment.start, segment.stop, segment.checkpoints)


def rounded(table: pd.DataFrame) -> pd.DataFrame:
    """The table with seven significant digits of what is no whole number by nature."""
    floats = table.select_dtypes("float").columns
    return table.assign(**{name: [float(f"{value:.{DIGITS}g}") for value in table[name]] for name in floats})


def check_budget(study: Study, spent_node_hours: float, remaining_node_hours: float) -> None:
    """Raises UserError if what was spent and what is still planned are together more than `plan.budget_node_hours`.

    Parameters
    ----------
    spent_node_hours, remaining_node_hours : as the facility charges them, with the time that jobs take to start.
    """
    budget, together = study.plan.budget_node_hours, spent_node_hours + remaining_node_hours
    if budget is not None and together > budget:
        more = together - budget
        more = math.ceil(more) if more >= 1 else 1.01 * more
        raise UserError(
            f"plan.budget_node_hours: {_hours(spent_node_hours)} node-hours spent and {_hours(remaining_node_hours)} still planned "
            f"are {_hours(together)}, of {_hours(budget)}; raise the budget by {_hours(more)}, or plan less under 'runs'"
        )


def _hours(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def json_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows for JSON, in which what is missing is null."""
    return [
        {str(name): None if pd.isna(value) else value for name, value in row.items()}
        for row in rounded(table).astype(object).to_dict("records")
    ]
