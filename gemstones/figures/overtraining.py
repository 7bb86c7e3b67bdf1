"""What it costs to train longer and smaller, or shorter and larger, than the optimum (paper, Figure 8)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

from gemstones.figures.axes import human, legend_below, scientific, spread
from gemstones.figures.inputs import Tables
from gemstones.figures.output import Drawing
from gemstones.figures.style import BEYOND, FONT, GREY, WIDTH, Style, figure, fit_label, law_styles

# A model's loss is drawn where it is this near a panel's losses, in nats (the authors' choice).
NEAR = 0.01
ALPHA = 0.2
# Left out by the authors: its loss stands out from its family's.
NOT_SHOWN = ("Llama-3.1-70B",)
COLUMNS = ["fit", "resource", "budget", "flops", "gpu_hours", "factor", "tokens", "width", "depth", "params",
           "tokens_per_param", "extrapolated"]  # fmt: skip
LOSSES = [f"{name}{end}" for name in ("loss", "loss_increase") for end in ("", "_low", "_high")]


def draw_overtraining(tables: Tables) -> Drawing:
    """A panel per budget; budgets beyond the fitted data have a shaded background. Bands are of the increase over the optimum."""
    rows = tables.needed("overtraining").sort_values(["resource", "budget", "factor"], ignore_index=True)
    budgets = list(rows.groupby(["resource", "budget"], sort=True))
    across = min(2, len(budgets))
    down = -(-len(budgets) // across)
    drawn = figure(2.2 * down + 0.7, WIDTH if across > 1 else 4.2)
    panels = drawn.subplots(down, across, squeeze=False, sharex=True)
    style = law_styles(tables.study)[str(rows["fit"].iloc[0])]
    shown, banded = [], False
    for axes, ((resource, budget), table) in zip(panels.flat, budgets, strict=False):
        curve = table.dropna(subset=["loss"])
        beyond = bool(curve["extrapolated"].fillna(False).any())
        best = curve.loc[curve["loss"].idxmin()]
        banded |= _band(axes, curve, best, style)
        axes.plot(curve["factor"], curve["loss"], color=style.color, linewidth=1.6)
        axes.plot(best["factor"], best["loss"], marker="o", color=style.color, markersize=4.5)
        amount = f"{scientific(budget)} FLOPs" if resource == "flops" else f"{human(budget)} GPU-hours"
        axes.set_title(f"{amount}{', extrapolated' if beyond else ''}", pad=18)
        axes.text(0.5, 1.03, _optimum(best), transform=axes.transAxes, ha="center", va="bottom", fontsize=FONT)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        if beyond:
            axes.set_facecolor(BEYOND)
            axes.grid(color="white")
        shown.append(_industry(axes, tables, curve).assign(resource=resource, budget=budget))
    for axes in panels.flat[len(budgets) :]:
        axes.set_axis_off()
    _factors(panels, rows)
    for axes in panels.flat[len(budgets) - across : len(budgets)]:  # also above a place without a panel
        axes.tick_params(labelbottom=True)
        axes.set_xlabel("nominal factor f on tokens per parameter")
    drawn.supylabel("predicted loss (nats/token)", fontsize=FONT)
    if banded:
        label = f"{100 * tables.study.bootstrap.level:g} % interval of the increase over the optimum"
        band = Patch(color=style.color, alpha=ALPHA, linewidth=0, label=label)
        legend_below(
            drawn, [Line2D([], [], color=style.color, label=fit_label(str(rows["fit"].iloc[0]))), band], columns=2
        )
    else:
        drawn.suptitle(fit_label(str(rows["fit"].iloc[0])), fontsize=FONT + 1)
    data = rows[[*COLUMNS, *LOSSES]].rename(columns={name: f"{name}_nats_per_token" for name in LOSSES})
    models = pd.concat(shown, ignore_index=True)
    return Drawing(drawn, data, {"Industry models drawn": models} if len(models) else {})


def _band(axes: Axes, curve: pd.DataFrame, best: pd.Series, style: Style) -> bool:
    """The interval of the increase, on top of the optimum's loss; whether there is one."""
    known = curve.dropna(subset=["loss_increase_low", "loss_increase_high"])
    low, high = (best["loss"] + known[f"loss_increase_{end}"] for end in ("low", "high"))
    axes.fill_between(known["factor"], low, high, color=style.color, alpha=ALPHA, linewidth=0)
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
