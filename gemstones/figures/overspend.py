"""How much more each run used than the frontier needs for its loss (paper, Figure 7)."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from gemstones.figures.axes import legend_below, log_axis
from gemstones.figures.inputs import Tables
from gemstones.figures.output import Drawing
from gemstones.figures.style import FONT, GREY, PALETTE, figure, shape_names

TITLES = {"flops": "FLOPs", "gpu_hours": "GPU-hours"}
UNUSUAL = "*"
PERCENTS = (0, 5, 10, 20, 50, 100, 200)
STAR: dict[str, Any] = {"marker": "*", "markersize": 10, "markeredgecolor": "black", "markeredgewidth": 0.7}
POINT: dict[str, Any] = {"marker": "o", "markersize": 6.5, "markeredgecolor": GREY, "markeredgewidth": 0.5}
HOLLOW: dict[str, Any] = {
    "linestyle": "none",
    "marker": "o",
    "markersize": 5.5,
    "markerfacecolor": "none",
    "markeredgecolor": GREY,
}


def draw_overspend(tables: Tables) -> Drawing:
    """Maps of width and depth above; below a row per run, the largest at the top, interpolated and nearest in loss."""
    rows = overspend_rows(tables, "step")
    resources = [name for name in TITLES if (rows["resource"] == name).any()]
    names = list(dict.fromkeys(rows["shape"]))
    lengths = max(1.6, 0.165 * len(names) + 0.3)
    drawn = figure(2.3 + lengths + 0.75)
    panels = drawn.subplots(2, len(resources), sharey="row", squeeze=False, height_ratios=(2.3, lengths))
    colors = colors_of(PERCENTS)
    for column, resource in zip(panels.T, resources, strict=True):
        members = rows[rows["resource"] == resource]
        column[0].set_title(TITLES[resource])
        _map(column[0], members, colors)
        _bars(column[1], members, names, PALETTE[resources.index(resource)])
    for axes in panels[0]:
        axes.set_xlabel("width")
        log_axis(axes, "x", "plain", most=6)
        log_axis(axes, "y", "plain", most=5)
    panels[0, 0].set_ylabel("depth (layers)")
    panels[1, 0].set_yticks(range(len(names)), names)
    panels[1, 0].set_ylim(-0.7, len(names) - 0.3)
    panels[1, 0].set_ylabel("width×depth, by parameters")
    if "gpu_hours" in resources:
        _nodes(panels[1, -1], rows[rows["resource"] == "gpu_hours"], names)
    color_bar(drawn, colors, list(panels[0]), PERCENTS, location="right")
    handles = [
        Line2D([], [], linestyle="none", color="white", label="on the frontier", **STAR),
        Line2D(
            [], [], linestyle="none", marker="o", color="black", markersize=4, label="frontier interpolated at the loss"
        ),
        Line2D([], [], label="frontier's point nearest in loss", **HOLLOW),
    ]
    if rows["overspend_percent"].isna().any():
        handles.insert(
            1, Line2D([], [], linestyle="none", color="white", label="above the frontier's first point", **POINT)
        )
    legend_below(drawn, handles, columns=min(3, 2 + len(handles) % 2))
    return Drawing(drawn, rows)


def overspend_rows(tables: Tables, frontier: str) -> pd.DataFrame:
    """The overspends against one frontier (step, trajectories) in percent, with each run's shape, parameters and tokens.

    They are ordered by parameters. `nodes_of_siblings` is what runs of the same width trained on, where that is another number of
    nodes, so that GPU-hours do not compare.

    Raises
    ------
    UserError
        If the study has none.
    """
    table = tables.needed("overspend")
    table = table[table["frontier"] == frontier]
    runs = tables.losses.dropna(subset=["run"]).drop_duplicates("run").set_index("run")
    rows = table.assign(
        shape=shape_names(table),
        params=table["run"].map(runs["params"]),
        tokens=table["step"].astype(float) * table["run"].map(runs["tokens"] / runs["step"]),
        nodes_of_siblings=table["run"].map(_unusual(tables)),
        overspend_percent=100 * table["overspend_interpolated"],
        overspend_nearest_percent=100 * table["overspend_nearest"],
        loss_nats_per_token=table["loss"],
    ).sort_values(["params", "run", "resource", "step"], ignore_index=True)
    return rows[["run", "shape", "width", "depth", "params", "step", "tokens", "num_nodes", "nodes_of_siblings", "resource",
                 "used", "loss_nats_per_token", "overspend_percent", "overspend_nearest_percent", "on_frontier"]]  # fmt: skip


def _unusual(tables: Tables) -> dict[str, float]:
    """Nodes that runs of the same width trained on, of runs that are flagged for having trained on others."""
    found = tables.others.get("anomalies")
    if found is None:
        return {}
    found = found[(found["kind"] == "throughput") & (found["quantity"] == "num_nodes")]
    return dict(zip(found["run"], found["expected"], strict=True))


def colors_of(percents: tuple[int, ...]) -> ScalarMappable:
    """Colours of overspends, the darker the more, in steps that end at `percents`; the last is for all beyond."""
    ramp = mpl.colormaps["viridis_r"]
    return ScalarMappable(BoundaryNorm(percents, ramp.N, extend="max"), ramp)


def color_bar(
    drawn: Figure, colors: ScalarMappable, panels: list[Axes], percents: tuple[int, ...], **where: Any
) -> None:
    bar = drawn.colorbar(colors, ax=panels, extend="max", spacing="uniform", aspect=25, pad=0.02, **where)
    bar.set_ticks(percents, labels=[f"{percent} %" for percent in percents])
    bar.set_label("overspend", fontsize=FONT)
    bar.ax.tick_params(length=0)


def _map(axes: Axes, members: pd.DataFrame, colors: ScalarMappable) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    for row in members.sort_values(["on_frontier", "overspend_percent"], na_position="first").itertuples():
        known = np.isfinite(row.overspend_percent)
        face = colors.to_rgba(row.overspend_percent) if known else "white"
        axes.plot(row.width, row.depth, color=face, **(STAR if row.on_frontier else POINT))
    axes.margins(0.08)


def _bars(axes: Axes, members: pd.DataFrame, names: list[str], color: str) -> None:
    at = members["shape"].map({name: i for i, name in enumerate(names)})
    axes.axvline(0, color="black", linewidth=0.8)
    axes.hlines(at, 0, members["overspend_percent"].fillna(0), color=color, linewidth=1.2, alpha=0.5)
    axes.plot(members["overspend_nearest_percent"], at, **HOLLOW, markeredgewidth=0.9)
    axes.plot(members["overspend_percent"], at, linestyle="none", marker="o", color=color, markersize=4)
    axes.set_xlabel("overspend (%)")
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.grid(axis="y", linewidth=0.4)


def _nodes(axes: Axes, members: pd.DataFrame, names: list[str]) -> None:
    """The nodes of each run at the right, since GPU-hours depend on them."""
    known = members.drop_duplicates("shape").set_index("shape").dropna(subset=["num_nodes"])
    if known.empty:
        return
    unusual = known["nodes_of_siblings"].notna()
    labels = known["num_nodes"].map("{:.0f}".format) + unusual.map({True: UNUSUAL, False: ""})
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(len(names)), [labels.get(name, "") for name in names])
    right.tick_params(length=0)
    right.spines["right"].set_visible(False)
    right.set_ylabel(f"nodes ({UNUSUAL} not as runs of this width)" if unusual.any() else "nodes")
