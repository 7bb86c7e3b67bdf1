"""What it costs to train longer and smaller, or shorter and larger, than the optimum (paper, Figure 8)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

from gemstones.figures.axes import human, legend_below, log_axis, scientific, spread
from gemstones.figures.inputs import Tables
from gemstones.figures.output import Drawing
from gemstones.figures.style import BEYOND, FONT, GREY, WIDTH, Style, figure, fit_label, law_styles
from gemstones.prescriptions.run_curves import Curves

# A model's loss is drawn where it is this near a panel's losses, in nats (the authors' choice).
NEAR = 0.01
ALPHA = 0.2
RUN: dict[str, Any] = {"color": "black", "marker": "x", "markersize": 3.5, "linestyle": "none", "zorder": 3}
# Left out by the authors: its loss stands out from its family's.
NOT_SHOWN = ("Llama-3.1-70B",)
COLUMNS = ["fit", "resource", "budget", "flops", "gpu_hours", "factor", "tokens", "width", "depth", "params",
           "tokens_per_param", "extrapolated"]  # fmt: skip
LOSSES = [f"{name}{end}" for name in ("loss", "loss_increase") for end in ("", "_low", "_high")]


def draw_overtraining(tables: Tables) -> Drawing:
    """A panel per budget; budgets beyond the fitted data have a shaded background. Bands are of the increase over the optimum.

    One fit is drawn against the nominal factor. Several are drawn against tokens per parameter, since each has its own optimum, with
    the runs that have spent the budget.
    """
    rows = tables.needed("overtraining").sort_values(["resource", "budget", "factor"], ignore_index=True, kind="stable")
    fits = [str(name) for name in rows["fit"].unique()]
    budgets = list(rows.groupby(["resource", "budget"], sort=True))
    across = min(2, len(budgets))
    down = -(-len(budgets) // across)
    several = len(fits) > 1
    drawn = figure((2.2 + 0.35 * several) * down + 0.7 + 0.2 * several, WIDTH if across > 1 else 4.2)
    panels = drawn.subplots(down, across, squeeze=False, sharex=not several)
    styles = law_styles(tables.study)
    shown, runs, banded = [], pd.DataFrame(), False
    for axes, ((resource, budget), table) in zip(panels.flat, budgets, strict=False):
        curves = table.dropna(subset=["loss"])
        banded |= _laws(axes, curves, styles, several)
        axes.set_title(_title(str(resource), float(budget), curves), pad=18 + 11 * (len(fits) - 1))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        if curves["extrapolated"].fillna(False).any():
            axes.set_facecolor(BEYOND)
            axes.grid(color="white")
        here = {"resource": resource, "budget": budget}
        shown.append(_industry(axes, tables, curves).assign(**here))
        if several:
            runs = joined([runs, _runs(axes, tables, here, curves)])
    for axes in panels.flat[len(budgets) :]:
        axes.set_axis_off()
    if several:
        for axes in panels.flat[: len(budgets)]:
            log_axis(axes, "x", "plain", most=5)
    else:
        _factors(panels, rows)
    for axes in panels.flat[len(budgets) - across : len(budgets)]:  # also above a place without a panel
        axes.tick_params(labelbottom=True)
        axes.set_xlabel("tokens per parameter" if several else "nominal factor f on tokens per parameter")
    drawn.supylabel("predicted loss (nats/token)", fontsize=FONT)
    if several or banded:
        legend_below(drawn, _handles(tables, [(name, styles[name]) for name in fits], banded, len(runs) > 0), columns=2)
    else:
        drawn.suptitle(fit_label(fits[0]), fontsize=FONT + 1)
    data = rows[[*COLUMNS, *LOSSES]].rename(columns={name: f"{name}_nats_per_token" for name in LOSSES})
    further = {"Industry models drawn": pd.concat(shown, ignore_index=True), "Runs drawn": runs}
    return Drawing(drawn, data, {title: table for title, table in further.items() if len(table)})


def _laws(axes: Axes, curves: pd.DataFrame, styles: Mapping[str, Style], several: bool) -> bool:
    """Each law's curve with its band, its optimum marked and told above the panel; whether there are bands."""
    x, banded = "tokens_per_param" if several else "factor", False
    for i, (name, curve) in enumerate(curves.groupby("fit", sort=False)):
        style, best = styles[str(name)], curve.loc[curve["loss"].idxmin()]
        banded |= _band(axes, curve, best, style, x)
        axes.plot(curve[x], curve["loss"], color=style.color, linewidth=1.6)
        axes.plot(best[x], best["loss"], marker=style.marker if several else "o", color=style.color, markersize=4.5)
        place, color = 1.03 + 0.1 * (curves["fit"].nunique() - 1 - i), style.color if several else "black"
        at: dict[str, Any] = {"transform": axes.transAxes, "ha": "center", "va": "bottom", "fontsize": FONT}
        axes.text(0.5, place, _optimum(best), color=color, **at)
    return banded


def _title(resource: str, budget: float, curves: pd.DataFrame) -> str:
    amount = f"{scientific(budget)} FLOPs" if resource == "flops" else f"{human(budget)} GPU-hours"
    return f"{amount}{', extrapolated' if curves['extrapolated'].fillna(False).any() else ''}"


def _handles(tables: Tables, fits: list[tuple[str, Style]], banded: bool, runs: bool) -> list[Artist]:
    several = len(fits) > 1
    handles: list[Artist] = [
        Line2D([], [], color=style.color, marker=style.marker if several else "", label=fit_label(name))
        for name, style in fits
    ]
    if banded:
        label = f"{100 * tables.study.bootstrap.level:g} % interval of the increase over the optimum"
        color = GREY if several else fits[0][1].color
        handles.append(Patch(color=color, alpha=ALPHA, linewidth=0, label=label))
    if runs:
        handles.append(Line2D([], [], label="a run that has spent the budget", **RUN))
    return handles


def _runs(axes: Axes, tables: Tables, here: dict[str, Any], curves: pd.DataFrame) -> pd.DataFrame:
    """The runs that the laws were fitted to, where they have spent the budget and their losses are in the panel; what was drawn."""
    low, high = axes.get_ylim()
    selections = dict.fromkeys(tables.study.fits[str(name)].selection for name in curves["fit"])
    found = [Curves.of(tables.rows(name), here["resource"]).at(here["budget"]) for name in selections]
    runs = joined(found)
    if runs.empty:
        return runs
    runs = runs[runs["loss"].between(low, high)].drop_duplicates(["run", "tokens"])
    runs = runs.assign(tokens_per_param=runs["tokens"] / runs["params"], **here)
    axes.plot(runs["tokens_per_param"], runs["loss"], **RUN)
    axes.set_ylim(low, high)
    return runs.rename(columns={"loss": "loss_nats_per_token"})


def joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Those tables that are not empty, below one another."""
    known = [table for table in tables if len(table)]
    return pd.concat(known, ignore_index=True) if known else pd.DataFrame()


def _band(axes: Axes, curve: pd.DataFrame, best: pd.Series, style: Style, x: str) -> bool:
    """The interval of the increase, on top of the optimum's loss; whether there is one."""
    known = curve.dropna(subset=["loss_increase_low", "loss_increase_high"])
    low, high = (best["loss"] + known[f"loss_increase_{end}"] for end in ("low", "high"))
    axes.fill_between(known[x], low, high, color=style.color, alpha=ALPHA, linewidth=0)
    return len(known) > 0


def _optimum(best: pd.Series) -> str:
    text = f"{_digits(best['tokens_per_param'])} tokens per parameter, loss {best['loss']:.3f}"
    return text if pd.isna(best["loss_low"]) else f"{text} ({best['loss_low']:.2f}–{best['loss_high']:.2f})"


def _industry(axes: Axes, tables: Tables, curve: pd.DataFrame) -> pd.DataFrame:
    """Losses of industry models near the panel's as lines with names; gives what was drawn."""
    columns = ["name", "loss_nats_per_token"]
    industry = tables.others.get("industry")
    if industry is None:
        return pd.DataFrame(columns=columns)
    low, high = curve["loss"].min() - NEAR, curve["loss"].max() + NEAR
    models = industry[~industry["name"].isin(NOT_SHOWN)]
    models = models[models["loss"].between(low, high)].sort_values("loss")
    for loss in models["loss"]:
        axes.axhline(loss, color=GREY, linewidth=0.7, linestyle=(0, (3, 2)))
    _names(axes, models)
    return models.rename(columns={"loss": "loss_nats_per_token"})[columns]


def _names(axes: Axes, models: pd.DataFrame) -> None:
    """Names at the right edge, those of close losses apart from one another."""
    if models.empty:
        return
    low, high = axes.get_ylim()
    wanted = (models["loss"].to_numpy(float) - low) / (high - low)
    for name, start, place in zip(models["name"], wanted, spread(wanted, 0.088), strict=True):
        axes.plot([1, 1.03], [start, place], transform=axes.transAxes, color=GREY, linewidth=0.6, clip_on=False)
        axes.text(1.04, place, str(name).removesuffix("-hf"), transform=axes.transAxes, fontsize=FONT, va="center")
    axes.set_ylim(low, high)


def _factors(panels: np.ndarray, rows: pd.DataFrame) -> None:
    """Powers of two on the x axes, every second one labelled."""
    low, high = np.log2([rows["factor"].min(), rows["factor"].max()])
    powers = range(int(np.ceil(low - 1e-9)), int(np.floor(high + 1e-9)) + 1)
    labels = [f"{2**power}×" if power >= 0 else f"1/{2**-power}×" for power in powers]
    for axes in panels.flat:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(FixedLocator([2.0**power for power in powers]))
        axes.xaxis.set_major_formatter(FixedFormatter([label if i % 2 == 0 else "" for i, label in enumerate(labels)]))
        axes.xaxis.set_minor_locator(NullLocator())


def _digits(value: float) -> str:
    """Three digits, whole numbers above a hundred."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
