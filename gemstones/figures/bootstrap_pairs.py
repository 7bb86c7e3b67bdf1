"""Resamples of laws, pair by pair of what they give: which directions the data do not fix."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from gemstones.errors import UserError
from gemstones.figures.axes import legend_below
from gemstones.figures.inputs import Tables
from gemstones.figures.output import Drawing
from gemstones.figures.style import FONT, Style, figure, fit_label, law_styles
from gemstones.laws.fit import HuberFit
from gemstones.laws.power_law import exponent_names
from gemstones.laws.uncertainty import Uncertainty

SYMBOLS = {"irreducible_loss": "E (nats/token)", "slope": "slope a"}
BINS = 24
# The middle of the resamples that is drawn; a few far outside would hide the rest.
SHOWN = (0.025, 0.975)
SIZE = 1.35  # inches of a panel, at most


def draw_bootstrap_pairs(tables: Tables) -> Drawing:
    """Scatter below the diagonal, histograms on it, correlations above it; large markers are the fits to all runs."""
    data = pairs(tables)
    styles = law_styles(tables.study)
    columns = [name for name in data.columns if name not in ("fit", "of")]
    resamples = data[data["of"] == "resample"]
    n = len(columns)
    drawn = figure(min(7.0, SIZE * n + 0.4), 7.0)
    grid = drawn.subplots(n, n, squeeze=False)
    limits = {name: _limits(data, name) for name in columns}
    for i, row in enumerate(columns):
        for j, column in enumerate(columns):
            axes = grid[i, j]
            if i < j:
                _correlation(axes, resamples, column, row, styles)
                continue
            axes.set_xlim(limits[column])
            for name, part in data.groupby("fit", sort=False):
                style, drawn_part = styles[str(name)], part[part["of"] == "resample"]
                fitted = part[part["of"] == "fit"]
                if i == j:
                    bins = np.linspace(*limits[column], BINS + 1)
                    axes.hist(drawn_part[column].dropna(), bins, color=style.color, alpha=0.45)
                    axes.axvline(fitted[column].item(), color=style.color, linewidth=1.3)
                else:
                    axes.plot(
                        drawn_part[column], drawn_part[row], **style.points(markersize=2, alpha=0.4, markeredgewidth=0)
                    )
                    axes.plot(fitted[column], fitted[row], **style.points(markersize=6, markeredgecolor="black"))
            if i != j:
                axes.set_ylim(limits[row])
            _ticks(axes, left=j == 0, below=i == n - 1, counts=i == j, most=3 if n < 6 else 2)
        grid[i, 0].set_ylabel(_name(row) if i else "resamples")
        grid[-1, i].set_xlabel(_name(row))
    drawn.align_labels()
    handles = [
        Line2D([], [], label=fit_label(name), **styles[name].points(markersize=5)) for name in data["fit"].unique()
    ]
    legend_below(drawn, handles, len(handles))
    return Drawing(drawn, data)


def pairs(tables: Tables) -> pd.DataFrame:
    """Exponents, E and slope of every resample and, where `of` is `fit`, of the fits themselves.

    Raises
    ------
    UserError
        If there are no resamples.
    """
    parts = []
    for name, fit in tables.laws.items():
        table = tables.resamples.get(name)
        if table is None or table.empty or not isinstance(fit, HuberFit):
            continue
        law = fit.law
        one = dict(zip(exponent_names(law.covariates), law.flat_exponents, strict=True))
        one |= {"irreducible_loss": law.irreducible_loss} | ({} if law.slope is None else {"slope": law.slope})
        quantities = Uncertainty(fit, table, tables.study.bootstrap.level).quantities()
        parts.append(pd.DataFrame([{"fit": name, "of": "fit", **one}]))
        parts.append(quantities.assign(fit=name, of="resample"))
    if not parts:
        raise UserError("figure of kind 'bootstrap_pairs': none of its fits has resamples; see bootstrap.resamples")
    return pd.concat(parts, ignore_index=True)


def _limits(data: pd.DataFrame, name: str) -> tuple[float, float]:
    """The middle of the resamples of every fit, and the fits."""
    groups = [part[name].dropna() for _, part in data.groupby("fit") if part[name].notna().any()]
    fitted = data.loc[data["of"] == "fit", name]
    low = min([*(values.quantile(SHOWN[0]) for values in groups), fitted.min()])
    high = max([*(values.quantile(SHOWN[1]) for values in groups), fitted.max()])
    margin = 0.06 * (high - low) or 0.1
    return float(low - margin), float(high + margin)


def _correlation(axes: Axes, resamples: pd.DataFrame, x: str, y: str, styles: dict[str, Style]) -> None:
    """Spearman's rank correlation of each fit, in its colour: some resamples lie far outside."""
    axes.axis("off")
    axes.set(xticks=[], yticks=[])
    known = [(str(name), part[[x, y]].dropna()) for name, part in resamples.groupby("fit", sort=False)]
    known = [(name, part) for name, part in known if len(part) > 2]
    for k, (name, part) in enumerate(known):
        value = f"{part[x].rank().corr(part[y].rank()):+.2f}".replace("-", "−")
        at: dict[str, Any] = {"transform": axes.transAxes, "ha": "center", "va": "center", "fontsize": FONT + 2}
        axes.text(0.5, 0.5 + 0.22 * ((len(known) - 1) / 2 - k), value, color=styles[name].color, **at)


def _ticks(axes: Axes, left: bool, below: bool, counts: bool, most: int) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(most))
    axes.yaxis.set_major_locator(NullLocator() if counts else MaxNLocator(3))
    axes.tick_params(labelleft=left, labelbottom=below)


def _name(column: str) -> str:
    factor, _, term = column.removeprefix("exponent_").partition("_in_")
    return SYMBOLS.get(column, f"exponent of\n{factor}" + (f" in\n{term}" if term else ""))
