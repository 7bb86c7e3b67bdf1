"""What each run used beyond the frontier of its suite that reaches the same loss (Gemstones, Figure 7)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gemstones.errors import UserError
from gemstones.laws.hull import RESOURCES, lower_hull
from gemstones.laws.power_law import positive_columns

KEYS = ["run", "width", "depth", "step", "num_nodes"]
COLUMNS = [
    "frontier", *KEYS, "resource", "used", "loss", "frontier_resource_interpolated", "overspend_interpolated",
    "overspend_nearest", "on_frontier",
]  # fmt: skip


def overspend(rows: pd.DataFrame, step: int | None = None) -> pd.DataFrame:
    """Overspend of runs: resource used / resource at which the frontier reaches the same loss − 1.

    The frontier is the lower convex hull of these runs at one step or, without a step, of every checkpoint of all of them. It is
    interpolated in log-log; the alternative `overspend_nearest`, the authors' way, takes the hull point nearest in loss, and
    may be negative.

    Parameters
    ----------
    rows : rows of the losses table, such as a selection's; reads `run`, `width`, `depth`, `step`, `loss`, `flops` and, where some
        row has them, `gpu_hours` and `num_nodes`.
    step : the optimizer step at which runs are compared; by default, whole trajectories are.

    Returns
    -------
    DataFrame with `COLUMNS`, one row for each run, step and resource (flops, gpu_hours), by resource, width, depth and step;
    `frontier` is `step` or `trajectories`. Overspends are ratios: 0.5 is 50 % more. Losses above the frontier's first point
    have no frontier resource: it and `overspend_interpolated` are null there (none can lie below the frontier's last point).

    Raises
    ------
    UserError
        If no row is at this step, a run has two at one step, or a value has no logarithm.
    """
    source = "overspend over trajectories" if step is None else f"overspend at step {step}"
    table = _rows(rows, step, source)
    resources = [name for name in RESOURCES if name in table and table[name].notna().any()]
    tables = [_for_resource(table, resource, source) for resource in resources]
    if not tables:
        raise UserError(f"{source}: no column {' or '.join(RESOURCES)} with values")
    frontier = "trajectories" if step is None else "step"
    return pd.concat(tables, ignore_index=True).assign(frontier=frontier)[COLUMNS]


def over_trajectories(table: pd.DataFrame, step: int) -> pd.DataFrame:
    """What is read off whole trajectories, one row for each resource and run.

    Parameters
    ----------
    table : as :func:`overspend` gives it without a step.
    step : a step of interest.

    Returns
    -------
    DataFrame with `resource`, `run`, `num_nodes` and the interpolated overspends `at_step`, null where the run has no such row, `least`
    with its step `least_at_step`, and `median` over the run's rows.
    """
    cost = "overspend_interpolated"
    found = []
    for (resource, run), rows in table.dropna(subset=[cost]).groupby(["resource", "run"], sort=False):
        best = rows.loc[rows[cost].idxmin()]
        at_step = rows.loc[rows["step"] == step, cost]
        found.append(
            {
                "resource": resource,
                "run": run,
                "num_nodes": best["num_nodes"],
                "at_step": at_step.iloc[0] if len(at_step) else np.nan,
                "least": best[cost],
                "least_at_step": best["step"],
                "median": rows[cost].median(),
            }
        )
    return pd.DataFrame(found)


def _rows(rows: pd.DataFrame, step: int | None, source: str) -> pd.DataFrame:
    for column in ("run", "width", "depth", "step"):
        if column not in rows:
            raise UserError(f"{source}: no column '{column}'; it has {', '.join(map(str, rows.columns))}")
    chosen = rows if step is None else rows[(rows["step"] == step).fillna(False).astype(bool)]
    table = chosen.sort_values(["width", "depth", "run", "step"], ignore_index=True)
    if table.empty:
        where = "no rows" if step is None else f"no row is at this step; the last is at {rows['step'].max()}"
        raise UserError(f"{source}: {where}")
    twice = table[table.duplicated(["run", "step"])]
    if len(twice):
        run, at = twice[["run", "step"]].iloc[0]
        raise UserError(f"{source}: run {run} has two rows at step {at}; select one phase and one validation set")
    return table


def _for_resource(table: pd.DataFrame, resource: str, source: str) -> pd.DataFrame:
    values = positive_columns(table, (resource, "loss"), source)
    used, loss = values.T
    at = lower_hull(used, loss)
    on_frontier = np.zeros(len(table), dtype=bool)
    on_frontier[at] = True
    reached = _interpolate(used[at], loss[at], loss)
    reached[at] = used[at]  # without rounding
    nearest = used[at][np.argmin(np.abs(loss[:, None] - loss[at]), axis=1)]
    return table.reindex(columns=KEYS).assign(
        resource=resource,
        used=used,
        loss=loss,
        frontier_resource_interpolated=reached,
        overspend_interpolated=used / reached - 1,
        overspend_nearest=used / nearest - 1,
        on_frontier=on_frontier,
    )


def _interpolate(
    frontier_used: NDArray[np.float64], frontier_loss: NDArray[np.float64], loss: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Resource at which the frontier (falling in loss) reaches `loss`, linear in log-log; nan outside its losses."""
    log_used = np.interp(
        np.log(loss), np.log(frontier_loss[::-1]), np.log(frontier_used[::-1]), left=np.nan, right=np.nan
    )
    return np.exp(log_used)
