"""What a study would take if every run had another number of nodes."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from gemstones.cluster.makespan import planned_jobs, simulate
from gemstones.cluster.memory import check_devices
from gemstones.cluster.throughput import speed, speed_model
from gemstones.errors import UserError
from gemstones.study import Study, Throughput
from gemstones.suite.runs import all_runs

COLUMNS = [
    "plan", "jobs", "node_hours", "charged_node_hours", "gpu_hours", "hours", "longest_run_hours", "makespan_days",
    "extrapolated", "note",
]  # fmt: skip


def on_nodes(study: Study, nodes: int) -> Study:
    """The study with every run on so many nodes, as fast as the model of speed says.

    Raises
    ------
    UserError
        If what is measured does not say how fast that is, or the strategy has no use for them.
    """
    devices = nodes * study.plan.gpus_per_node
    if study.training.strategy == "single" and devices > 1:
        raise UserError(f"training.strategy: 'single' trains on one device, not on {devices}")
    shapes = {run.shape: run for run in all_runs(study)}
    there = {
        shape: Throughput(nodes=nodes, seconds_per_step=speed(study, run, nodes).seconds_per_step)
        for shape, run in shapes.items()
    }
    return study.model_copy(update={"plan": study.plan.model_copy(update={"throughput": there})})


def what_if(study: Study, nodes: Sequence[int]) -> pd.DataFrame:
    """The study as planned, and with every run on each of these numbers of nodes.

    Returns
    -------
    DataFrame with `COLUMNS`. Hours are those of all runs one after another, `makespan_days` has the queue's limits and the
    assumed wait; `extrapolated` is whether no shape was measured on so few or so many nodes. What cannot be run like that has
    a `note` that says why.
    """
    model = speed_model(study)
    rows = [{"plan": "as planned", "extrapolated": False, **_row(study)}]
    for count in nodes:
        try:
            row = _row(on_nodes(study, count))
        except UserError as error:
            row = {"note": str(error)}
        rows.append(
            {
                "plan": f"{count} node{'s' * (count > 1)}",
                "extrapolated": model is None or model.extrapolates(count),
                **row,
            }
        )
    return pd.DataFrame(rows, columns=COLUMNS).astype({"jobs": "Int64"})


def _row(study: Study) -> dict[str, float | str | None]:
    speeds = [(run, speed(study, run)) for run in all_runs(study)]
    hours = [(run.steps - (run.anchor or 0)) * each.seconds_per_step / 3600 for run, each in speeds]
    node_hours = sum(part * each.nodes for part, (_, each) in zip(hours, speeds, strict=True))
    row: dict[str, float | str | None] = {
        "node_hours": node_hours,
        "gpu_hours": node_hours * study.plan.gpus_per_node,
        "hours": sum(hours),
        "longest_run_hours": max(hours, default=0.0),
    }
    try:
        check_devices(study)
        jobs = planned_jobs(study)
    except UserError as error:
        return {**row, "note": str(error)}
    queue = study.plan.queues[study.plan.queue].model_dump(exclude={"bins"}) if study.plan.queue else {}
    schedule = simulate(jobs, wait_hours=study.plan.wait_minutes / 60, **queue)
    charged = sum(job.hours * job.nodes for job in jobs)
    return {
        **row, "jobs": len(jobs), "charged_node_hours": charged, "makespan_days": schedule.makespan_hours / 24,
    }  # fmt: skip
