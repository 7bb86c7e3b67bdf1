"""How often intervals hold the truth: the simulation's suites, by scenario, quantity and method."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator
from numpy.typing import NDArray

from gemstones.figures.axes import legend_below, scientific
from gemstones.figures.inputs import Tables
from gemstones.figures.output import Drawing
from gemstones.figures.style import MARKERS, PALETTE, figure

# A method whose coverage lies in this band is called right.
GOOD = (0.90, 0.97)
BAND = "#DDEBDD"
TICKS = (0, 30, 50, 70, 80, 90, 95, 100)
LEAST_SHOWN = 0.25
OPTIMA = {
    "params": "N*", "tokens": "T*", "tokens_per_param": "T*/N*", "aspect_ratio": "width/depth", "loss": "loss",
}  # fmt: skip
SYMBOLS = {"irreducible_loss": "E", "slope": "slope a", "log_loss_ahead": "loss ahead"}


def draw_coverage(tables: Tables) -> Drawing:
    """A panel per scenario, a line per quantity, a dot per method with the coverage's binomial 95 % interval."""
    table = tables.needed("coverage")
    assert tables.study.simulation is not None  # where the table comes from
    scenarios, methods = list(table["scenario"].unique()), list(table["method"].unique())
    # Exponents first, hulls last, otherwise in the order of the table.
    groups = (r"^exponent_", r"^(?!exponent_|hull_)", r"^hull_")
    names = pd.Series(table["quantity"].unique())
    quantities = [name for group in groups for name in names[names.str.contains(group)]]
    drawn = figure(0.42 * len(quantities) + 1.2)
    panels = drawn.subplots(1, len(scenarios), sharey=True, squeeze=False)[0]
    least = min(LEAST_SHOWN, table["coverage_low"].min())
    ticks = [tick for tick in TICKS if tick / 100 >= least]
    for axes, scenario in zip(panels, scenarios, strict=True):
        rows = table[table["scenario"] == scenario]
        axes.axvspan(*GOOD, color=BAND, zorder=0, linewidth=0)
        axes.axvline(tables.study.bootstrap.level, color="black", linewidth=0.8, zorder=1)
        for i, method in enumerate(methods):
            shown = rows[rows["method"] == method]
            place = np.array([quantities.index(name) for name in shown["quantity"]])
            axes.errorbar(
                shown["coverage"],
                place + (i - (len(methods) - 1) / 2) * 0.8 / len(methods),
                xerr=_binomial(shown),
                color=PALETTE[i % len(PALETTE)],
                marker=MARKERS[i % len(MARKERS)],
                linestyle="none",
                elinewidth=0.9,
                clip_on=False,
            )
        for between in range(1, len(quantities)):
            axes.axhline(between - 0.5, color="#D0D0D0", linewidth=0.6, zorder=0)
        axes.set_title(f"{scenario.replace('_', ' ')}, {rows['suites'].max()} suites")
        axes.set_xscale("function", functions=(_stretch, _shrink))
        axes.set_xlim(least - 0.02, 1)
        axes.xaxis.set_major_locator(FixedLocator([tick / 100 for tick in ticks]))
        axes.xaxis.set_major_formatter(FixedFormatter([str(tick) for tick in ticks]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
    panels[0].set_yticks(range(len(quantities)), [_label(name) for name in quantities])
    panels[0].set_ylim(len(quantities) - 0.5, -0.5)
    panels[0].set_ylabel("quantity")
    level = f"{100 * tables.study.bootstrap.level:g}"
    panels[len(panels) // 2].set_xlabel(f"suites whose {level} % interval holds the truth (%)")
    handles = [
        Line2D(
            [], [], color=PALETTE[i % len(PALETTE)], marker=MARKERS[i % len(MARKERS)], linestyle="none", label=method
        )
        for i, method in enumerate(methods)
    ]
    band = Patch(facecolor=BAND, label=f"{100 * GOOD[0]:g}–{100 * GOOD[1]:g} %")
    legend_below(drawn, [*handles, band], 4)
    return Drawing(drawn, table)


def _binomial(rows: pd.DataFrame) -> NDArray[np.float64]:
    """Lengths (2, rows) of error bars."""
    share, low, high = (rows[name].to_numpy() for name in ("coverage", "coverage_low", "coverage_high"))
    return np.stack([share - low, high - share])


def _stretch(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """An axis on which differences near 1 are seen, and 1 itself is."""
    return np.asarray(-np.log(1.05 - np.minimum(share, 1.04)))


def _shrink(place: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1.05 - np.exp(-place))


def _label(quantity: str) -> str:
    if quantity.startswith("log_") and quantity not in SYMBOLS:
        name, _, budget = quantity.removeprefix("log_").removeprefix("optimal_").rpartition("_")
        if name in OPTIMA:
            return f"{OPTIMA[name]} at {scientific(float(budget))}"
    if quantity.startswith("hull_slope_"):
        return f"hull: {quantity.removeprefix('hull_slope_').replace('_per_', '/')} slope"
    return SYMBOLS.get(quantity, quantity.replace("_", " "))
