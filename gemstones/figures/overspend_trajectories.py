"""How far each run is from the frontier of all runs while it trains (paper, section on overspending, for whole trajectories)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm
from matplotlib.lines import Line2D

from gemstones.figures.axes import legend_below, log_axis
from gemstones.figures.inputs import Tables
from gemstones.figures.output import Drawing
from gemstones.figures.overspend import TITLES, UNUSUAL, color_bar, colors_of, overspend_rows
from gemstones.figures.style import figure
from gemstones.prescriptions.overspend import over_trajectories

PERCENTS = (0, 5, 10, 20, 50, 100, 200, 500, 1000)


def draw_overspend_trajectories(tables: Tables) -> Drawing:
    """A row per run, the largest at the top, coloured by its overspend at every checkpoint; the least one is marked."""
    rows = overspend_rows(tables, "trajectories")
    resources = [name for name in TITLES if (rows["resource"] == name).any()]
    names = list(dict.fromkeys(rows["shape"]))
    drawn = figure(max(2.6, 0.17 * len(names) + 1.4))
    panels = drawn.subplots(1, len(resources), sharex=True, squeeze=False)[0]
    colors = colors_of(PERCENTS)
    for axes, resource in zip(panels, resources, strict=True):
        members = rows[rows["resource"] == resource]
        axes.set_title(TITLES[resource])
        axes.set_xscale("log")
        axes.grid(False)
        least = {}
        for place, name in enumerate(names):
            least[name] = _row(axes, members[members["shape"] == name], resource, place, colors)
        axes.set_yticks(range(len(names)), names if axes is panels[0] else [""] * len(names))
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(-0.6, len(names) - 0.4)
        right = axes.secondary_yaxis("right")
        right.set_yticks(range(len(names)), [least[name] for name in names])
        right.tick_params(length=0, pad=6)
        right.spines["right"].set_visible(False)
        right.set_ylabel("least overspend")
        axes.set_xlabel("training tokens")
        log_axis(axes, "x", most=4)
    panels[0].set_ylabel("width×depth, by parameters")
    color_bar(drawn, colors, list(panels), PERCENTS, location="right")
    mark = Line2D([], [], linestyle="none", marker="o", color="white", markeredgecolor="black", markersize=4.5)
    mark.set_label("where a run's overspend is least")
    legend_below(drawn, [mark], columns=1)
    step = tables.study.overspend.step if tables.study.overspend else 0
    table = tables.needed("overspend")
    summary = over_trajectories(table[table["frontier"] == "trajectories"], step)
    percent = summary.assign(**{name: 100 * summary[name] for name in ("at_step", "least", "median")})
    columns = {"at_step": f"at_step_{step}_percent", "least": "least_percent", "median": "median_percent"}
    return Drawing(drawn, rows, {"Overspend over whole trajectories": percent.rename(columns=columns)})


def _row(axes: Axes, run: pd.DataFrame, resource: str, place: int, colors: ScalarMappable) -> str:
    """Draw one run; gives its least overspend."""
    tokens, percent = run["tokens"].to_numpy(float), run["overspend_percent"].to_numpy(float)
    middles = np.sqrt(tokens[1:] * tokens[:-1])
    # The first and the last checkpoint have no neighbour on one side.
    edges = np.concatenate([[tokens[0] ** 2 / middles[0]], middles, tokens[-1:]]) if len(middles) else tokens[[0, 0]]
    assert isinstance(colors.norm, BoundaryNorm)
    axes.pcolormesh(
        edges, [place - 0.42, place + 0.42], percent[None], norm=colors.norm, cmap=colors.cmap, rasterized=True
    )
    if not np.isfinite(percent).any():
        return "–"
    best = int(np.nanargmin(percent))
    axes.plot(
        tokens[best], place, marker="o", color="white", markeredgecolor="black", markersize=4.5, clip_on=False, zorder=3
    )
    unusual = resource == "gpu_hours" and run["nodes_of_siblings"].notna().any()
    return f"{percent[best]:.0f} %" + (UNUSUAL if unusual else "")
