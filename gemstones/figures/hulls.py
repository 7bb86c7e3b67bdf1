"""The frontier of a selection's losses, which figures of Approach 1 share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from gemstones.errors import UserError
from gemstones.figures.axes import log_axis
from gemstones.figures.inputs import Tables
from gemstones.figures.style import UNSTYLED, shape_names
from gemstones.laws.hull import HullFit, best_per_bin

RESOURCES = {"flops": "training FLOPs", "gpu_hours": "GPU-hours"}
FRONTIER: dict[str, Any] = {"color": "black", "linewidth": 0.9, "zorder": 2.5}


def hull_fits(tables: Tables) -> dict[str, HullFit]:
    """The figure's Approach 1 fits; UserError where it has others or none."""
    wrong = [name for name, law in tables.laws.items() if not isinstance(law, HullFit)]
    if wrong or not tables.laws:
        raise UserError(
            f"figure of kind '{tables.figure.kind}': needs Approach 1 fits, has {', '.join(wrong) or 'none'}"
        )
    return {name: law for name, law in tables.laws.items() if isinstance(law, HullFit)}


def frontier_rows(tables: Tables, name: str, law: HullFit) -> pd.DataFrame:
    """Rows of the fit's selection, by run and resource, with `shape`, `tokens_per_param`, `on_hull` and `best_of_bin`.

    `params` is the fit's own count; `best_of_bin` says whether Hoffmann's binning keeps the row.
    """
    rows = tables.rows(tables.study.fits[name].selection)
    corners = {(point.resource, point.loss) for point in law.hull}
    at = zip(rows[law.resource].astype(float), rows["loss"].astype(float), strict=True)
    rows = rows.assign(
        on_hull=[point in corners for point in at], shape=shape_names(rows), params=rows[law.param_count].astype(float)
    )
    rows["tokens_per_param"] = rows["tokens"] / rows["params"]
    kept = best_per_bin(rows.assign(place=np.arange(len(rows))), law.resource)["place"]
    rows["best_of_bin"] = np.isin(np.arange(len(rows)), kept)
    return rows.sort_values(["params", "run", law.resource], ignore_index=True)


def plot_runs(axes: Axes, rows: pd.DataFrame, law: HullFit, looks: Mapping[str, dict[str, Any]]) -> None:
    """A thin line per run, in the look of its shape; per shape where runs have one row each, as ends of cooldowns do."""
    single = not rows["run"].duplicated().any()
    for shape, run in rows.groupby("shape" if single else "run", sort=False, dropna=False):
        look = {"linewidth": 0.7, **looks.get(str(run["shape"].iloc[0]), UNSTYLED.line(alpha=0.6))}
        run = run.sort_values(law.resource)
        if pd.isna(shape):
            look |= {"linestyle": "none", "marker": ".", "markersize": 2.5}
        axes.plot(run[law.resource], run["loss"], **look)


def plot_frontier(axes: Axes, law: HullFit) -> None:
    axes.plot(*zip(*((point.resource, point.loss) for point in law.hull), strict=True), **FRONTIER)


def resource_axis(axes: Axes, law: HullFit) -> None:
    """Named logarithmic x axis of the fit's resource."""
    log_axis(axes, "x", *(("power", 5) if law.resource == "flops" else ("count", 4)))
    axes.set_xlabel(RESOURCES[law.resource])
