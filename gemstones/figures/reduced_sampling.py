"""Which checkpoints laws are fitted to: parameters against tokens of a few selections, ours and others'."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from gemstones.errors import UserError
from gemstones.figures.axes import legend_below, log_axis, scientific
from gemstones.figures.inputs import Tables
from gemstones.figures.output import Drawing
from gemstones.figures.style import FONT, figure, fit_label, law_styles
from gemstones.laws.fit import HuberFit
from gemstones.laws.uncertainty import Uncertainty

BUDGET: dict[str, Any] = {"color": "#C8C8C8", "linewidth": 0.8, "zorder": 1}


def draw_reduced_sampling(tables: Tables) -> Drawing:
    """Rows of each fit's selection in the plane of parameters and tokens; the legend has the slope a that each fit gives."""
    points = (
        pd.concat([selected_points(tables, name) for name in tables.laws], ignore_index=True) if tables.laws else None
    )
    if points is None:
        raise UserError("figure of kind 'reduced_sampling': it draws Approach 3 fits, and none was given")
    styles = law_styles(tables.study)
    slopes = slope_table(tables, points)
    drawn = figure(4.4, 6.0)
    axes = drawn.subplots()
    handles = []
    for place, row in enumerate(slopes.itertuples()):
        mine = points[points["fit"] == row.fit]
        look = {"color": styles[str(row.fit)].color, "linestyle": "none", "marker": "os^D"[place % 4]}
        look |= {"markerfacecolor": "none", "markersize": 5.5, "markeredgewidth": 1.3}
        axes.plot(mine["params"], mine["tokens"], **look)
        known = not np.isnan(row.slope)
        slope = f", a = {row.slope:.2f}" if known else ""
        interval = f" ({row.slope_low:.2f}, {row.slope_high:.2f})" if known and not np.isnan(row.slope_low) else ""
        label = f"{fit_label(str(row.fit))}: {row.rows} points{slope}{interval}"
        handles.append(Line2D([], [], label=label, **look))
    axes.set_xlabel("parameters")
    axes.set_ylabel("training tokens")
    for which in ("x", "y"):
        getattr(axes, f"set_{which}scale")("log")
    axes.margins(0.08)
    _budgets(axes)
    log_axis(axes, "x")
    log_axis(axes, "y")
    handles.append(Line2D([], [], label="equal 6NT (FLOPs)", **BUDGET))
    legend_below(drawn, handles, columns=1)
    return Drawing(drawn, points, {"Slopes: log optimal parameters on log C": slopes})


def selected_points(tables: Tables, name: str) -> pd.DataFrame:
    """Rows that a fit saw: `fit`, `run`, `step`, `params` in the fit's count, `tokens`, `flops`, `loss_nats_per_token`."""
    fit = tables.study.fits[name]
    rows = tables.rows(fit.selection)
    table = rows.assign(fit=name, params=rows[fit.param_count], loss_nats_per_token=rows["loss"])
    table = table[["fit", "run", "step", "params", "tokens", "flops", "loss_nats_per_token"]]
    return table.sort_values(["params", "tokens"], ignore_index=True)


def slope_table(tables: Tables, points: pd.DataFrame) -> pd.DataFrame:
    """By fit: its rows and runs, and the slope a = β/(α+β) of optimal parameters with its interval, if it has one."""
    found = []
    for name, law in tables.laws.items():
        slope = law.law.slope if isinstance(law, HuberFit) else None
        low = high = float("nan")
        resamples = tables.resamples.get(name)
        if slope is not None and resamples is not None and not resamples.empty:
            uncertainty = Uncertainty(law, resamples, tables.study.bootstrap.level)
            low, high = map(float, uncertainty.interval(uncertainty.quantities()["slope"]))
        rows = int((points["fit"] == name).sum())
        found.append((name, tables.study.fits[name].selection, rows, law.n_runs, slope, low, high))
    columns = ["fit", "selection", "rows", "runs", "slope", "slope_low", "slope_high"]
    return pd.DataFrame(found, columns=columns).astype({"runs": "Int64", "slope": float})


def _budgets(axes: Axes) -> None:
    """Lines of equal 6·N·T behind the points, one a decade, named where they leave the axes."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    first, last = np.ceil(np.log10(6 * left * low)), np.floor(np.log10(6 * right * high))
    for budget in 10.0 ** np.arange(first, last + 1):
        axes.plot([left, right], budget / 6 / np.array([left, right]), **BUDGET)
        end = budget / 6 / right
        below = end < low
        axes.annotate(
            scientific(budget), (budget / 6 / low, low) if below else (right, end), (3, 3) if below else (3, 0), "data",
            "offset points", color="#606060", ha="left", va="bottom" if below else "center",
            fontsize=FONT,
        )  # fmt: skip
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)
