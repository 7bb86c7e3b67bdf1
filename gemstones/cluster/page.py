"""The plan as a page for the report, and in words what it rests on."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pandas as pd

from gemstones.cluster.makespan import makespan_table
from gemstones.cluster.plan import shapes_table, totals
from gemstones.cluster.throughput import speed, speed_model
from gemstones.report import write_html_table
from gemstones.study import Study
from gemstones.suite.runs import all_runs


def write_page(study: Study, jobs: pd.DataFrame, path: str | Path) -> None:
    """Write totals, makespan and runs by shape, of the jobs of `plan_table`, without columns that are empty."""
    runs = shapes_table(study, jobs).drop(columns=["strategy", "queue"])
    tables = {"Totals": totals(study, jobs), "Makespan": makespan_table(study), "Runs": runs}
    shown = {heading: _readable(table).dropna(axis="columns", how="all") for heading, table in tables.items()}
    write_html_table(shown, path, "The plan of training", " ".join(assumptions(study)))


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    """Bytes in GB, and whole hours where there are many, since the page has four digits of all but whole numbers."""
    if table.empty:
        return table
    hours = [name for name in table if str(name).endswith("hours")]
    whole = {name: table[name].where(table[name] < 1000, table[name].round()) for name in hours}
    sizes = [str(name) for name in table if str(name).endswith("_bytes")]
    in_gb = {name: table[name] / 1e9 for name in sizes}
    return table.assign(**whole, **in_gb).rename(columns={name: name.replace("_bytes", "_gb") for name in sizes})


def assumptions(study: Study) -> list[str]:
    """What the plan rests on, a sentence each."""
    plan = study.plan
    shapes = {run.shape: run for run in all_runs(study)}
    if not shapes:
        return ["The study trains nothing."]
    sources = Counter(speed(study, run).source for run in shapes.values())
    by = {"measured": "measured", "flops_per_second": "by plan.flops_per_second", "fitted": "by the model"}
    counts = ", ".join(f"{count} {by[source]}" for source, count in sources.items())
    queue = "without a queue's limits" if plan.queue is None else f"queue '{plan.queue}'"
    said = [f"Speed of {len(shapes)} shapes: {counts}. Strategy {study.training.strategy}, {queue}."]
    model = speed_model(study)
    if model:
        said.append(
            f"The model of speed for other shapes and nodes is fitted to {model.shapes} shapes on {model.nodes[0]} to "
            f"{model.nodes[1]} nodes; a shape that is left out of the fit is typically off by {100 * model.error:.0f} %."
        )
    said += [
        f"A job takes {plan.start_minutes:g} minutes to start (plan.start_minutes): charged, but not among hours, node-hours and GPU-hours, which are those of steps.",
        f"Makespan: a job starts {plan.wait_minutes:g} minutes after the scheduler began to look at it, a guess "
        "(plan.wait_minutes); all else is as planned, nothing fails, and the longest chain goes first.",
    ]
    return said
