"""What every fit says the optimal parameters are, over budgets far beyond the data (paper, Figure 6), and their slopes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import ConnectionPatch

from gemstones.errors import UserError
from gemstones.figures.axes import beyond_data, beyond_handles, legend_below, log_axis, scientific
from gemstones.figures.inputs import Tables
from gemstones.figures.output import Drawing
from gemstones.figures.published import REFERENCES, Floats, published_params
from gemstones.figures.style import FONT, GREY, LINES, REFERENCE, RING, figure, fit_label, interacts
from gemstones.laws.hull import HullFit
from gemstones.laws.power_law import Allocation
from gemstones.laws.uncertainty import Uncertainty
from gemstones.study import Fit

BUDGETS = 41
DECADES_BEYOND = 2  # above the range of the prescriptions: 1e28 FLOPs in the paper
KINDS = {"Approach 1": LINES[1], "Approach 3": LINES[0], "Approach 3, interaction": LINES[3]}
PUBLISHED: dict[str, Any] = {"linestyle": LINES[2], "linewidth": 0.9}
# Widths of the lines, their names, and N* at two budgets.
WIDTHS = (2.7, 1.95, 1.0, 1.0)


def draw_rainbow(tables: Tables) -> Drawing:
    """Optimal parameters of every fit, coloured and named in the order of their values at the largest budget, with intervals."""
    curves = optimal_params(tables)
    last = curves["flops"].max()
    ends = curves[curves["flops"] == last].set_index("name")["params"].sort_values(kind="stable")
    fits = [name for name in ends.index if name not in REFERENCES]
    colors = dict(zip(fits, colormaps["viridis"](np.linspace(0, 0.92, len(fits))), strict=True))
    ends_of_data = tables.data_ends()
    at = [ends_of_data[1], float(last)]
    points = intervals(tables, curves, at)

    drawn = figure(max(4.2, 0.175 * len(ends) + 1.2))
    axes, names, *forests = drawn.subplots(1, 4, gridspec_kw={"width_ratios": WIDTHS})
    for name, curve in curves.groupby("name", sort=False):
        style = _style(tables, str(name), colors)
        axes.plot(curve["flops"], curve["params"], **style)
        if tables.figure.published and curve["published_params"].notna().any():
            axes.plot(curve["flops"], curve["published_params"], **{**style, **PUBLISHED})
    axes.set_xlim(curves["flops"].min(), last)
    axes.set_yscale("log")
    axes.set_ylim(_limits(curves))
    log_axis(axes, "x", "power", most=6)
    log_axis(axes, "y", "power", most=9)
    beyond_data(axes, ends_of_data)
    axes.set_xlabel("training FLOPs")
    axes.set_ylabel("optimal parameters")
    _names(names, axes, ends, colors)
    for forest, budget in zip(forests, at, strict=True):
        _forest(forest, points[points["flops"] == budget], list(ends.index), tables, colors)
        forest.set_title(f"{scientific(float(f'{budget:.2g}'))} FLOPs", fontsize=FONT)
        forest.set_xlabel("parameters")
    kinds = {_kind(tables.study.fits[name]) for name in fits}
    approaches = {tables.study.fits[name].approach for name in fits}
    handles: list[Artist] = [
        Line2D([], [], color=GREY, linestyle=style, label=kind) for kind, style in KINDS.items() if kind in kinds
    ]
    if points["low"].notna().any():
        level = f"{100 * tables.study.bootstrap.level:g} %"
        label = f"{level} interval" if 3 in approaches else f"middle {level}"
        label += f" (Approach 1: middle {level})" if {1, 3} <= approaches else ""
        handles.append(Line2D([], [], color=GREY, marker="o", linewidth=1.1, label=label))
    if tables.figure.published:
        handles.append(Line2D([], [], label="as published", **RING | PUBLISHED))
    legend_below(drawn, [*handles, *beyond_handles(ends_of_data)], columns=3)
    table = slope_table(tables, curves)
    # The panels at the right have intervals; the first of them is at a budget between those of the lines.
    data = pd.concat([curves, points], ignore_index=True).drop_duplicates(["name", "flops"], keep="last")
    data = data.rename(columns={"low": "params_low", "high": "params_high"})
    return Drawing(
        drawn,
        data if tables.figure.published else data.drop(columns="published_params"),
        {"Slopes, ordered by the optimal parameters at the largest budget": table, "Intervals": points},
    )


def optimal_params(tables: Tables) -> pd.DataFrame:
    """N* of every fit and of Kaplan and Chinchilla over the budgets: columns `name`, `flops`, `params`, `published_params`.

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
    published = tables.others.get("published", pd.DataFrame(columns=["fit"])).set_index("fit")
    parts = [
        pd.DataFrame(
            {
                "name": name,
                "flops": flops,
                "params": params,
                "published_params": published_params(published, name, flops),
            }
        )
        for name, params in drawn.items()
    ]
    return pd.concat(parts, ignore_index=True)


def intervals(tables: Tables, curves: pd.DataFrame, budgets: Sequence[float]) -> pd.DataFrame:
    """N* of every line at budgets: `name`, `flops`, `params`, `published_params`, and `low` and `high` where resamples are known."""
    rows = []
    for name, curve in curves.groupby("name", sort=False):
        x = np.log(curve["flops"].to_numpy(float))
        low, high = _interval(tables, str(name), np.asarray(budgets))
        for i, budget in enumerate(budgets):
            here = {
                column: float(np.exp(np.interp(np.log(budget), x, np.log(curve[column].to_numpy(float)))))
                for column in ("params", "published_params")
            }
            rows.append({"name": name, "flops": budget, **here, "low": low[i], "high": high[i]})
    return pd.DataFrame(rows)


def _interval(tables: Tables, name: str, budgets: Floats) -> tuple[Floats, Floats]:
    unknown = np.full(len(budgets), np.nan)
    law, resamples = tables.laws.get(name), tables.resamples.get(name)
    if law is None or resamples is None or resamples.empty:
        return unknown, unknown
    if isinstance(law, HullFit):
        slope, intercept = (resamples[f"{what}_params"].to_numpy(float)[:, None] for what in ("slope", "intercept"))
        log_params = slope * np.log(budgets) + intercept
    elif law.law.slope is not None:
        log_params = Allocation.of_laws(resamples, law.law.covariates).log_params(budgets)
    else:
        return unknown, unknown
    low, high = Uncertainty(law, resamples, tables.study.bootstrap.level).interval(log_params)
    return np.exp(low), np.exp(high)


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


def _style(tables: Tables, name: str, colors: Mapping[str, Floats]) -> dict[str, Any]:
    if name in REFERENCES:
        return REFERENCE[name]
    return {"color": colors[name], "linestyle": KINDS[_kind(tables.study.fits[name])], "linewidth": 1.1}


def _kind(fit: Fit) -> str:
    if fit.approach == 1:
        return "Approach 1"
    return "Approach 3, interaction" if interacts(fit.covariates) else "Approach 3"


def _names(axes: Axes, lines: Axes, ends: pd.Series, colors: Mapping[str, Floats]) -> None:
    """Names in the order of the lines' ends, evenly spread and joined to them."""
    axes.axis("off")
    axes.set(xlim=(0, 1), ylim=(-0.5, len(ends) - 0.5))
    low, high = np.log(lines.get_ylim())
    starts = np.clip((np.log(ends.to_numpy(float)) - low) / (high - low), 0, 1)
    for place, (name, start) in enumerate(zip(ends.index, starts, strict=True)):
        look: dict[str, Any] = {"color": colors.get(name, "black"), "linewidth": 0.7}
        joint = ConnectionPatch((1, start), (0.08, place), lines.transAxes, axes.transData, **look)
        joint.set_in_layout(False)
        axes.add_artist(joint)
        axes.plot([0.08, 0.11], [place, place], **look)
        axes.text(0.13, place, name if name in REFERENCES else fit_label(name), va="center", ha="left", fontsize=FONT)


def _forest(axes: Axes, points: pd.DataFrame, order: list[str], tables: Tables, colors: Mapping[str, Floats]) -> None:
    """N* at one budget with its interval, in the order of the names beside."""
    for row in points.itertuples():
        place, color = order.index(row.name), colors.get(row.name, "black")
        if row.low == row.low:
            axes.plot([row.low, row.high], [place, place], color=color, linewidth=1.1)
        filled: dict[str, Any] = {} if row.name in colors else {"markerfacecolor": "white"}
        axes.plot(row.params, place, color=color, marker="o", markersize=3.4, zorder=3, **filled)
        if tables.figure.published and row.published_params == row.published_params:
            axes.plot(row.published_params, place, **RING)
    axes.set_ylim(-0.5, len(order) - 0.5)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xscale("log")
    shown = points[["params", "low", "high", "published_params"]].stack()
    middle = points.loc[points["name"].isin(list(colors)), "params"]
    # An interval that spans everything would hide all others.
    axes.set_xlim(max(shown.min() / 2, middle.min() / 1e3), min(shown.max() * 2, middle.max() * 1e3))
    log_axis(axes, "x", "power", most=3)
