"""What every fit says the optimal parameters are, over budgets far beyond the data (paper, Figure 6), and their slopes."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from gemstones.errors import UserError
from gemstones.figures.axes import beyond_data, beyond_handle, legend_below, log_axis, spread
from gemstones.figures.inputs import Tables
from gemstones.figures.output import Drawing
from gemstones.figures.published import REFERENCES, Floats
from gemstones.figures.style import FONT, GREY, LINES, REFERENCE, figure, fit_label
from gemstones.laws.hull import HullFit
from gemstones.study import Fit

BUDGETS = 41
DECADES_BEYOND = 2  # above the range of the prescriptions: 1e28 FLOPs in the paper
KINDS = {1: ("Approach 1", LINES[1]), 3: ("Approach 3", LINES[0])}


def draw_rainbow(tables: Tables) -> Drawing:
    """Optimal parameters of every fit, coloured and labelled in the order of their values at the largest budget."""
    curves = optimal_params(tables)
    table = slope_table(tables, curves)
    last = curves["flops"].max()
    ends = curves[curves["flops"] == last].set_index("name")["params"].sort_values(kind="stable")
    fits = [name for name in ends.index if name not in REFERENCES]
    colors = dict(zip(fits, colormaps["viridis"](np.linspace(0, 0.92, len(fits))), strict=True))

    drawn = figure(max(4.2, 0.165 * len(ends) + 1.0))
    axes = drawn.subplots()
    for name, curve in curves.groupby("name", sort=False):
        if name in REFERENCES:
            style = REFERENCE[str(name)]
        else:
            style = {
                "color": colors[name],
                "linestyle": KINDS[tables.study.fits[str(name)].approach][1],
                "linewidth": 1.1,
            }
        axes.plot(curve["flops"], curve["params"], **style)
    axes.set_xlim(curves["flops"].min(), last)
    axes.set_yscale("log")
    axes.set_ylim(_limits(curves))
    log_axis(axes, "x", "power", most=7)
    log_axis(axes, "y", "power", most=9)
    beyond_data(axes, tables.data_end())
    axes.set_xlabel("training FLOPs")
    axes.set_ylabel("optimal parameters")
    _label(axes, tables, ends, colors)
    approaches = {tables.study.fits[name].approach for name in fits}
    handles = [
        Line2D([], [], color=GREY, linestyle=style, label=label)
        for key, (label, style) in KINDS.items()
        if key in approaches
    ]
    legend_below(drawn, [*handles, beyond_handle()], columns=3)
    return Drawing(drawn, curves, {"Slopes, ordered by the optimal parameters at the largest budget": table})


def optimal_params(tables: Tables) -> pd.DataFrame:
    """N* of every fit and of Kaplan and Chinchilla over the budgets: columns `name`, `flops`, `params`.

    Two-covariate laws and Approach 1 have closed forms; other laws are drawn by their relaxed prescriptions, as far as
    these reach, and on along the slope of their last decade. A law without either is left out.
    """
    low, high = tables.study.prescriptions.flops_range
    flops = np.geomspace(low, high * 10**DECADES_BEYOND, BUDGETS)
    found = {name: _of_fit(tables, name, flops) for name in tables.laws}
    drawn = {name: params for name, params in found.items() if params is not None}
    if not drawn:
        raise UserError(
            "figure of kind 'rainbow': no fit gives optimal parameters; name fits by FLOPs of Approach 1 or of Approach 3 "
            "with params and tokens, or with prescriptions"
        )
    if len(drawn) < len(found):
        logging.warning(
            "rainbow: no optimal parameters by FLOPs from %s", ", ".join(sorted(found.keys() - drawn.keys()))
        )
    drawn |= {name: of(flops) for name, of in REFERENCES.items()}
    return pd.concat(
        [pd.DataFrame({"name": name, "flops": flops, "params": params}) for name, params in drawn.items()],
        ignore_index=True,
    )


def slope_table(tables: Tables, curves: pd.DataFrame) -> pd.DataFrame:
    """One row per drawn line, largest first: what was fitted, d log N*/d log C, and N* at a few budgets."""
    low, high = tables.study.prescriptions.flops_range
    budgets = np.geomspace(low, high * 10**DECADES_BEYOND, 5)
    rows = []
    for name, curve in curves.groupby("name", sort=False):
        x, y = np.log(curve["flops"].to_numpy(float)), np.log(curve["params"].to_numpy(float))
        at = np.exp(np.interp(np.log(budgets), x, y))
        fit: Fit | None = tables.study.fits.get(str(name))
        rows.append(
            {
                "fit": name,
                "approach": fit.approach if fit else None,
                "selection": fit.selection if fit else "published",
                "param_count": fit.param_count if fit else "params",
                "warnings": "; ".join(getattr(tables.laws.get(str(name)), "warnings", ())),
                "slope": float(np.polyfit(x, y, 1)[0]),
                **{f"params at {budget:.0e} FLOPs": value for budget, value in zip(budgets, at, strict=True)},
            }
        )
    table = pd.DataFrame(rows).astype({"approach": "Int64"})
    return table.sort_values(table.columns[-1], ascending=False, ignore_index=True, kind="stable")


def _limits(curves: pd.DataFrame) -> tuple[float, float]:
    """All of the fits; of published lines what lies within a factor of 30 of these."""
    fits = curves.loc[~curves["name"].isin(list(REFERENCES)), "params"]
    shown = curves["params"].clip(fits.min() / 30, fits.max() * 30)
    return float(shown.min()) / 1.5, float(shown.max()) * 1.5


def _of_fit(tables: Tables, name: str, flops: Floats) -> Floats | None:
    law = tables.laws[name]
    if isinstance(law, HullFit):
        return law.lines["params"].predict(flops) if law.resource == "flops" else None
    if law.law.slope is not None:
        return law.law.allocation().params(flops)
    if name not in tables.prescriptions:
        return None
    table = tables.prescriptions[name]
    relaxed = table.query("resource == 'flops' and variant == 'relaxed'").sort_values("flops")
    x, y = np.log(relaxed["flops"].to_numpy(float)), np.log(relaxed["law_params"].to_numpy(float))
    tail = x > x[-1] - np.log(10) - 1e-9
    slope = float(np.polyfit(x[tail], y[tail], 1)[0])
    log_flops = np.log(flops)
    return np.exp(np.where(log_flops <= x[-1], np.interp(log_flops, x, y), y[-1] + slope * (log_flops - x[-1])))


def _label(axes: Axes, tables: Tables, ends: pd.Series, colors: dict[str, Floats]) -> None:
    """Names at the right, in the order of the lines' ends and joined to them."""
    low, high = np.log(axes.get_ylim())
    wanted = np.clip((np.log(ends.to_numpy(float)) - low) / (high - low), 0, 1)
    height = axes.figure.bbox.height / axes.figure.dpi - 1.0  # inches
    for name, start, place in zip(ends.index, wanted, spread(wanted, FONT * 1.3 / 72 / height), strict=True):
        color = "black" if name in REFERENCES else colors[name]
        axes.plot(
            [1, 1.085, 1.095],
            [start, place, place],
            transform=axes.transAxes,
            color=color,
            linewidth=0.7,
            clip_on=False,
        )
        text = name if name in REFERENCES else fit_label(name)
        axes.text(1.1, place, text, transform=axes.transAxes, va="center", ha="left", fontsize=FONT)
