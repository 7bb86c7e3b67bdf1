"""How much more each run used than the frontier needs for its loss (paper, Figure 7)."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from gemstones.figures.axes import legend_below
from gemstones.figures.inputs import Tables
from gemstones.figures.output import Drawing
from gemstones.figures.style import GREY, PALETTE, figure, shape_names

TITLES = {"flops": "FLOPs", "gpu_hours": "GPU-hours"}


def draw_overspend(tables: Tables) -> Drawing:
    """A row per run, the largest at the top: interpolated overspend as a filled dot, nearest-loss as a hollow one."""
    rows = overspend_rows(tables)
    resources = [name for name in TITLES if (rows["resource"] == name).any()]
    names = list(dict.fromkeys(rows["shape"]))
    place = {name: i for i, name in enumerate(names)}
    drawn = figure(max(2.4, 0.17 * len(names) + 1.0))
    panels = drawn.subplots(1, len(resources), sharey=True, squeeze=False)[0]
    for axes, resource, color in zip(panels, resources, PALETTE, strict=False):
        members = rows[rows["resource"] == resource]
        at = members["shape"].map(place)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.hlines(at, 0, members["overspend_percent"].fillna(0), color=color, linewidth=1.2, alpha=0.5)
        hollow: dict[str, Any] = {
            "linestyle": "none",
            "marker": "o",
            "markersize": 5.5,
            "markerfacecolor": "none",
            "markeredgecolor": GREY,
        }
        axes.plot(members["overspend_nearest_percent"], at, **hollow, markeredgewidth=0.9)
        axes.plot(members["overspend_percent"], at, linestyle="none", marker="o", color=color, markersize=4)
        axes.set_title(TITLES[resource])
        axes.set_xlabel("overspend over the frontier (%)")
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.grid(axis="y", linewidth=0.4)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(-0.7, len(names) - 0.3)
    panels[0].set_ylabel("width×depth, by parameters")
    handles = [
        Line2D(
            [],
            [],
            linestyle="none",
            marker="o",
            color="black",
            markersize=4,
            label="frontier interpolated at the run's loss",
        ),
        Line2D([], [], label="frontier's point nearest in loss", **hollow),
    ]
    legend_below(drawn, handles, columns=2)
    return Drawing(drawn, rows)


def overspend_rows(tables: Tables) -> pd.DataFrame:
    """The table of overspends in percent with each run's shape and parameters, ordered by parameters.

    Raises
    ------
    UserError
        If the study has none.
    """
    table = tables.needed("overspend")
    params = tables.losses.dropna(subset=["run"]).drop_duplicates("run").set_index("run")["params"]
    rows = table.assign(
        shape=shape_names(table),
        params=table["run"].map(params),
        overspend_percent=100 * table["overspend_interpolated"],
        overspend_nearest_percent=100 * table["overspend_nearest"],
        loss_nats_per_token=table["loss"],
    ).sort_values(["params", "run", "resource"], ignore_index=True)
    return rows[["run", "shape", "params", "resource", "used", "loss_nats_per_token", "overspend_percent",
                 "overspend_nearest_percent", "on_frontier"]]  # fmt: skip
