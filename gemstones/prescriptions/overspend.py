"""What each run used beyond the frontier of its suite that reaches the same loss (Gemstones, Figure 7)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gemstones.errors import UserError
from gemstones.laws.hull import RESOURCES, lower_hull
from gemstones.laws.power_law import positive_columns

COLUMNS = [
    "run", "width", "depth", "resource", "used", "loss", "frontier_resource_interpolated", "overspend_interpolated",
    "overspend_nearest", "on_frontier",
]  # fmt: skip


def overspend(rows: pd.DataFrame, step: int) -> pd.DataFrame:
    """Overspend of the runs at one step: resource used / resource at which the frontier reaches the same loss − 1.

    The frontier is the lower convex hull of these runs at this step. It is interpolated in log-log; the alternative
    `overspend_nearest`, the authors' way, takes the hull point nearest in loss, and may be negative.

    Parameters
    ----------
    rows : rows of the losses table, such as a selection's; reads `run`, `width`, `depth`, `step`, `loss`, `flops` and
        `gpu_hours`, the last only where some row has it.
    step : the optimizer step at which runs are compared.

    Returns
    -------
    DataFrame with `COLUMNS`, one row for each run and resource (flops, gpu_hours), by resource, width and depth.
    Overspends are ratios: 0.5 is 50 % more. Losses above the frontier's first point have no frontier resource: it and
    `overspend_interpolated` are null there (none can lie below the frontier's last point).

    Raises
    ------
    UserError
        If no row is at this step, a run has two, or a value has no logarithm.
    """
    source = f"overspend at step {step}"
    table = _rows_at(rows, step, source)
    resources = [name for name in RESOURCES if name in table and table[name].notna().any()]
    tables = [_for_resource(table, resource, source) for resource in resources]
    if not tables:
        raise UserError(f"{source}: no column {' or '.join(RESOURCES)} with values")
    return pd.concat(tables, ignore_index=True)


def _rows_at(rows: pd.DataFrame, step: int, source: str) -> pd.DataFrame:
    for column in ("run", "width", "depth", "step"):
        if column not in rows:
            raise UserError(f"{source}: no column '{column}'; it has {', '.join(map(str, rows.columns))}")
    at_step = (rows["step"] == step).fillna(False).astype(bool)
    table = rows[at_step].sort_values(["width", "depth", "run"], ignore_index=True)
    if table.empty:
        last = rows["step"].max()
        raise UserError(f"{source}: no row is at this step; the last is at {last}")
    twice = table["run"][table["run"].duplicated()]
    if len(twice):
        raise UserError(f"{source}: run {twice.iloc[0]} has two rows; select one phase and one validation set")
    return table


def _for_resource(table: pd.DataFrame, resource: str, source: str) -> pd.DataFrame:
    values = positive_columns(table, (resource, "loss"), source)
    used, loss = values.T
    at = lower_hull(used, loss)
    on_frontier = np.zeros(len(table), dtype=bool)
    on_frontier[at] = True
    reached = _interpolate(used[at], loss[at], loss)
    nearest = used[at][np.argmin(np.abs(loss[:, None] - loss[at]), axis=1)]
    return pd.DataFrame(
        {
            "run": table["run"],
            "width": table["width"],
            "depth": table["depth"],
            "resource": resource,
            "used": used,
            "loss": loss,
            "frontier_resource_interpolated": reached,
            "overspend_interpolated": used / reached - 1,
            "overspend_nearest": used / nearest - 1,
            "on_frontier": on_frontier,
        },
        columns=COLUMNS,
    )


def _interpolate(
    frontier_used: NDArray[np.float64], frontier_loss: NDArray[np.float64], loss: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Resource at which the frontier (falling in loss) reaches `loss`, linear in log-log; nan outside its losses."""
    log_used = np.interp(
        np.log(loss), np.log(frontier_loss[::-1]), np.log(frontier_used[::-1]), left=np.nan, right=np.nan
    )
    return np.exp(log_used)
