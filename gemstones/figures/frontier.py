"""The frontier of the losses, coloured by the aspect ratio of the models that make it."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from gemstones.figures.axes import legend_below, loss_axis, spread
from gemstones.figures.hulls import FRONTIER, frontier_rows, hull_fits, plot_frontier, plot_runs, resource_axis
from gemstones.figures.inputs import Tables
from gemstones.figures.output import Drawing
from gemstones.figures.style import FONT, GREY, figure, fit_label
from gemstones.laws.hull import HullFit

# From deep to wide; not the colours of models, which tell their size.
COLORS = [mpl.colors.to_hex(mpl.colormaps["plasma"](place)) for place in (0.0, 0.35, 0.65, 0.88)]
DATA = ["fit", "run", "step", "flops", "gpu_hours", "width", "depth", "aspect_ratio", "quartile", "loss", "on_hull"]


def draw_frontier(tables: Tables) -> Drawing:
    """A panel per fit: every run in grey, and the frontier's points in the colour of their quartile of width/depth."""
    fits = hull_fits(tables)
    drawn = figure(4.0)
    panels = drawn.subplots(1, len(fits), sharey=True, squeeze=False)[0]
    rows = {name: frontier_rows(tables, name, law) for name, law in fits.items()}
    limits = quartile_limits(pd.concat(rows.values()))
    rows = {name: with_quartiles(table, limits) for name, table in rows.items()}
    for axes, (name, law) in zip(panels, fits.items(), strict=True):
        table = rows[name]
        grey = {"color": "#C4C4C4", "linestyle": "-", "linewidth": 0.6}
        plot_runs(axes, table, law, dict.fromkeys(table["shape"].dropna().unique(), grey))
        plot_frontier(axes, law)
        axes.set_title(fit_label(name), fontweight="bold")
        resource_axis(axes, law)
    loss_axis(panels[0])
    lowest, highest = panels[0].get_ylim()
    panels[0].set_ylim(lowest / (highest / lowest) ** 0.08, highest)  # room for names below the last points
    for axes, (name, law) in zip(panels, fits.items(), strict=True):
        hull = rows[name][rows[name]["on_hull"]].sort_values(law.resource, ignore_index=True)
        for quartile, points in hull.groupby("quartile"):
            axes.plot(
                points[law.resource], points["loss"], linestyle="none", marker="o", markersize=5, zorder=3,
                color=COLORS[int(str(quartile)) - 1], markeredgecolor="white", markeredgewidth=0.5,
            )  # fmt: skip
        _name(axes, hull, law)
    legend_below(drawn, [Line2D([], [], label="frontier", **FRONTIER), *_handles(limits)], columns=5)
    data = pd.concat([table.assign(fit=name) for name, table in rows.items()], ignore_index=True)
    return Drawing(drawn, data[DATA].rename(columns={"loss": "loss_nats_per_token"}))


def quartile_limits(rows: pd.DataFrame) -> list[float]:
    """Three ratios of width to depth that part the models of the rows into four classes of like number."""
    shapes = rows.loc[rows["run"].notna(), ["width", "depth"]].drop_duplicates().astype(float)
    return [float(f"{limit:.2g}") for limit in np.quantile(shapes["width"] / shapes["depth"], [0.25, 0.5, 0.75])]


def with_quartiles(rows: pd.DataFrame, limits: list[float]) -> pd.DataFrame:
    """Rows of runs with `aspect_ratio`, width/depth, and its `quartile` from 1, deep, to 4, wide."""
    rows = rows[rows["run"].notna()]
    ratio = rows["width"].astype(float) / rows["depth"].astype(float)
    return rows.assign(aspect_ratio=ratio, quartile=np.digitize(ratio, limits) + 1)


def _name(axes: Axes, hull: pd.DataFrame, law: HullFit) -> None:
    """Names of the models in turn, left of and below the middle of their points, where no run can lie."""
    low, high = axes.get_xlim()
    axes.set_xlim(low / (high / low) ** 0.2, high)
    to_axes = axes.transScale + axes.transLimits
    shapes = hull["shape"].astype(object)
    turns = (shapes != shapes.shift()).cumsum()
    middles = pd.DataFrame([points.iloc[len(points) // 2] for _, points in hull.groupby(turns)])
    ends = to_axes.transform(middles[[law.resource, "loss"]].to_numpy(float))
    order = np.argsort(ends[:, 1])
    height = axes.figure.bbox.height / axes.figure.dpi - 1.2  # inches, about: the layout is made later
    places = spread(np.maximum(ends[order, 1] - 0.06, 0.03), FONT * 1.25 / 72 / height)
    for name, (x, y), place in zip(middles["shape"].iloc[order], ends[order], places, strict=True):
        axes.plot([x, x - 0.045], [y, place], transform=axes.transAxes, color=GREY, linewidth=0.5, zorder=1)
        axes.text(x - 0.05, place, str(name), transform=axes.transAxes, ha="right", va="center", fontsize=FONT)


def _handles(limits: list[float]) -> list[Line2D]:
    first, middle, last = (f"{limit:g}" for limit in limits)
    labels = [f"w/d < {first}", f"{first}–{middle}", f"{middle}–{last}", f"≥ {last}"]
    return [
        Line2D([], [], linestyle="none", marker="o", markersize=5, color=color, label=label)
        for color, label in zip(COLORS, labels, strict=True)
    ]
