"""The command `gemstones plan`: what a study takes of a cluster, as tables on a terminal or as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from gemstones.cluster import plan
from gemstones.cluster.config import read
from gemstones.cluster.makespan import in_queue, makespan_table
from gemstones.cluster.page import assumptions
from gemstones.cluster.what_if import what_if
from gemstones.errors import UserError
from gemstones.faults import choices
from gemstones.report import number
from gemstones.study import Study

if TYPE_CHECKING:
    from rich.console import Console

# Of a file or a pipe; a terminal says its own.
WIDTH = 100
HEADS = {
    "plan": "every run on", "run": "run", "shape": "shape", "phase": "phase", "start_step": "from step", "stop_step": "to step",
    "runs": "runs", "jobs": "jobs", "nodes": "nodes", "seconds_per_step": "s/step", "walltime_minutes": "limit min",
    "hours": "hours", "longest_run_hours": "longest run", "node_hours": "node-h", "charged_node_hours": "charged",
    "gpu_hours": "GPU-h", "flops": "FLOPs", "mfu": "MFU", "memory_bytes": "GB/GPU", "checkpoint_bytes": "on disk",
    "queue": "queue", "wait_minutes": "wait min", "makespan_days": "makespan days", "longest_chain_days": "longest chain",
    "job_days": "all in a row", "peak_nodes": "most nodes", "peak_jobs": "most jobs",
}  # fmt: skip
COSTS = ["hours", "node_hours", "gpu_hours", "flops", "mfu", "checkpoint_bytes"]
SPEED = ["nodes", "seconds_per_step"]


def show_plan(
    path: Path, *, nodes: Sequence[int], queue: str | None, wait_minutes: float | None, detail: str, as_json: bool
) -> None:
    """Print the plan of a study by shape, run or job (`detail`), with totals and makespan.

    Parameters
    ----------
    nodes : to compare the plan with every run on so many.
    queue : to plan for, instead of the config's.
    wait_minutes : assumed wait, instead of the config's.

    Raises
    ------
    UserError
        If an option or the file is at fault, before anything is printed; if the plan is beyond its budget, after it.
    """
    study = read(path, trains=True)
    if queue is not None:
        if queue not in study.plan.queues:
            known = list(study.plan.queues)
            said = choices(queue, known) if known else "the config has none under plan.queues"
            raise UserError(f"--queue: unknown queue '{queue}'; {said}")
        study = in_queue(study, queue)
    if wait_minutes is not None:
        update = {"wait_minutes": wait_minutes}
        study = study.model_copy(update={"plan": study.plan.model_copy(update=update)})
    jobs = plan.plan_table(study)
    tables = {
        "totals": plan.totals(study, jobs),
        "makespan": makespan_table(study, [queue] if queue else None),
        "runs": plan.runs_table(study, jobs),
    }
    compared = what_if(study, nodes) if nodes else None
    if as_json:
        tables |= {"jobs": jobs} if detail == "jobs" else {}
        tables |= {} if compared is None else {"what_if": compared}
        rows = {name: plan.json_rows(table) for name, table in tables.items()}
        content = {"study": study.study, **rows, "assumptions": assumptions(study)}
        print(json.dumps(content, indent=2, allow_nan=False))
    else:
        detailed = {"jobs": jobs, "runs": tables["runs"], "shapes": plan.shapes_table(study, jobs)}[detail]
        _print(study, detailed, tables["totals"], tables["makespan"], compared, detail)
    plan.check_budget(study, 0.0, float(jobs["charged_node_hours"].sum()))


def _print(
    study: Study,
    detailed: pd.DataFrame,
    totals: pd.DataFrame,
    makespan: pd.DataFrame,
    compared: pd.DataFrame | None,
    detail: str,
) -> None:
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = WIDTH
    # As many as fit; the CSV and the JSON have them all.
    named = {
        "jobs": [
            "run",
            "start_step",
            "stop_step",
            *SPEED,
            "walltime_minutes",
            "hours",
            "node_hours",
            "checkpoint_bytes",
        ],
        "runs": ["run", "jobs", *SPEED, *COSTS],
        "shapes": ["shape", "runs", "jobs", *SPEED, "walltime_minutes", *COSTS],
    }
    for phase, rows in detailed.groupby("phase", sort=False):
        _table(console, str(phase), rows, named[detail])
    _table(
        console, "totals", totals, ["phase", "runs", "jobs", "hours", "node_hours", "charged_node_hours", *COSTS[2:]]
    )
    _table(
        console, "makespan", makespan,
        ["queue", "wait_minutes", "jobs", "makespan_days", "longest_chain_days", "job_days", "charged_node_hours",
         "peak_nodes", "peak_jobs"],
    )  # fmt: skip
    if compared is not None:
        _table(
            console, "what if", compared,
            ["plan", "jobs", "node_hours", "charged_node_hours", "gpu_hours", "hours", "longest_run_hours", "makespan_days"],
        )  # fmt: skip
        beyond = compared["plan"][compared["extrapolated"] & compared["node_hours"].notna()]
        if len(beyond):
            console.print(f"extrapolated beyond what was measured: {', '.join(beyond)}", style="yellow")
    for line in assumptions(study):
        console.print(line, style="dim")


def _table(console: Console, title: str, rows: pd.DataFrame, names: Sequence[str]) -> None:
    """Print a table without the columns that are empty; notes follow below it."""
    from rich import box
    from rich.table import Table

    from gemstones.cluster.narrow import narrowed

    notes = rows["note"].notna() if "note" in rows else pd.Series(False, rows.index)
    shown = [name for name in names if rows[name].notna().any()]
    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1), title=title, title_justify="left", title_style="bold"
    )
    for name in shown:
        table.add_column(HEADS[name], justify="left" if name in ("run", "shape", "phase", "queue", "plan") else "right")
    for _, row in rows.iterrows():
        table.add_row(*(_cell(name, row) for name in shown))
    least = (
        "flops",
        "gpu_hours",
        "memory_bytes",
        "walltime_minutes",
        "job_days",
        "longest_chain_days",
        "checkpoint_bytes",
        "mfu",
        "hours",
    )
    console.print(narrowed(table, console, [HEADS[name] for name in least]))
    for _, row in rows[notes].iterrows():
        console.print(f"{row[names[0]]}: {row['note']}", style="yellow")


def _cell(name: str, row: pd.Series[Any]) -> str:
    value = row[name]
    if pd.isna(value):
        return "–"
    if isinstance(value, str):
        return value
    if name == "seconds_per_step":
        # What is not measured is marked.
        return f"{'' if row['speed_source'] == 'measured' else '~'}{value:.4g}"
    if name == "mfu":
        return f"{100 * value:.1f} %"
    if name.endswith("_bytes"):
        return _bytes(value) if name == "checkpoint_bytes" else f"{value / 1e9:.3g}"
    if name == "flops":
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= 1000 else number(float(f"{value:.3g}"))


def _bytes(count: float) -> str:
    power = min(4, max(0, (len(str(int(count))) - 1) // 3))
    return f"{count / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"
