"""Where the authors' optimiser stops by the number of starts and delta, and where ours does (paper, Figure 20)."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from gemstones.figures.axes import legend_below, scientific
from gemstones.figures.inputs import Tables
from gemstones.figures.output import Drawing
from gemstones.figures.style import PALETTE, figure

LOOKS = {"reference": PALETTE[1], "ours": PALETTE[0]}
PUBLISHED: dict[str, Any] = {"marker": "x", "color": "black", "linestyle": "none", "markersize": 5, "zorder": 4}
# Excesses below are drawn here: ours differ from the minimum by rounding alone.
LEAST_EXCESS = 1e-10


def draw_starts(tables: Tables) -> Drawing:
    """A column per delta, two rows per selection: excess of the best objective over the minimum, and the slope that goes with it."""
    data = with_published(tables)
    deltas = sorted(data["huber_delta"].unique(), reverse=True)
    selections = list(data["selection"].unique())
    drawn = figure(1.0 + 3.4 * len(selections))
    grid = drawn.subplots(2 * len(selections), len(deltas), sharex=True, sharey="row", squeeze=False)
    panels = [
        (grid[2 * i, j], grid[2 * i + 1, j], selection, delta)
        for i, selection in enumerate(selections)
        for j, delta in enumerate(deltas)
    ]
    for above, below, selection, delta in panels:
        rows = data[(data["huber_delta"] == delta) & (data["selection"] == selection)]
        for optimizer, color in LOOKS.items():
            part = rows[rows["optimizer"] == optimizer]
            for axes, name in ((above, "excess"), (below, "slope")):
                axes.fill_between(
                    part["starts"], part[f"{name}_low"], part[f"{name}_high"], color=color, alpha=0.2, linewidth=0
                )
                axes.plot(part["starts"], part[f"{name}_median"], color=color, marker="o", markersize=3)
        there = rows[rows["optimizer"] == "published"]
        above.plot(there["starts"], there["excess_median"], **PUBLISHED)
        below.plot(there["starts"], there["slope_median"], **PUBLISHED)
        above.set_title(f"{selection}, δ = {scientific(delta)}")
        above.set_yscale("log")
        _axis(above, int(data["starts"].max()))
    for axes in grid[-1]:
        axes.set_xlabel("number of starts")
    for above, below in zip(grid[::2, 0], grid[1::2, 0], strict=True):
        above.set_ylabel("objective above\nthe minimum (relative)")
        below.set_ylabel("slope a = β / (α + β)")
        _excess_axis(above, data)
    drawn.align_ylabels()
    sampled, size = int(data["sampled"].max()), int(data["grid"].max())
    handles: list[Any] = [
        Line2D(
            [],
            [],
            color=LOOKS["reference"],
            marker="o",
            markersize=3,
            label=f"authors' optimiser, median ({sampled:,} of {size:,} starts run)",
        ),
        Patch(color=LOOKS["reference"], alpha=0.2, label="its middle 90 %"),
        Line2D([], [], color=LOOKS["ours"], marker="o", markersize=3, label="this package"),
    ]
    if (data["optimizer"] == "published").any():
        handles.append(Line2D([], [], label=f"published by the authors, {size:,} starts", **PUBLISHED))
    legend_below(drawn, handles, 2)
    return Drawing(drawn, data)


def with_published(tables: Tables) -> pd.DataFrame:
    """The table of early stopping, with relative excesses, and the authors' own fits of the same rows at their grid's size."""
    data = tables.needed("early_stopping")
    theirs = tables.others.get("published")
    if theirs is not None:
        names = {
            (fit.selection, fit.huber_delta): name
            for name, fit in tables.study.fits.items()
            if fit.approach == 3
            and (fit.covariates, fit.param_count, fit.weights) == (("params", "tokens"), "params", None)
        }
        theirs = theirs[theirs["slope_published"].notna()].set_index("fit")
        key = ["selection", "huber_delta"]
        first = {tuple(row[key]): row for _, row in data.drop_duplicates(key).iterrows()}
        found = [
            {**first[place], "optimizer": "published", "starts": first[place]["grid"]}
            | {f"objective_{which}": theirs.at[name, "objective_published"] for which in ("median", "low", "high")}
            | {f"slope_{which}": theirs.at[name, "slope_published"] for which in ("median", "low", "high")}
            for place, name in names.items()
            if place in first and name in theirs.index
        ]
        data = pd.concat([data, pd.DataFrame(found, columns=data.columns)], ignore_index=True) if found else data
    excess = {
        f"excess_{which}": (data[f"objective_{which}"] / data["objective_minimum"] - 1).clip(lower=LEAST_EXCESS)
        for which in ("median", "low", "high")
    }
    return data.assign(**excess)


def _axis(axes: Axes, most: int) -> None:
    ticks = [tick for tick in (1, 10, 100, 1000, 10_000, 100_000) if tick <= most]
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{tick:,}" for tick in ticks]))
    axes.xaxis.set_minor_locator(NullLocator())


def _excess_axis(axes: Axes, data: pd.DataFrame) -> None:
    ticks = [1e-10, 1e-8, 1e-6, 1e-4, 1e-2, 1, 100]
    axes.set_ylim(LEAST_EXCESS / 3, max(3 * data["excess_high"].max(), 1))
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter(
        FixedFormatter([f"≤ {scientific(ticks[0])}", *(scientific(tick) for tick in ticks[1:])])
    )
    axes.yaxis.set_minor_locator(NullLocator())
