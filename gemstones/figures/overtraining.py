"""What it costs to train longer and smaller, or shorter and larger, than the optimum (paper, Figure 8)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from gemstones.figures.axes import scientific, spread
from gemstones.figures.inputs import Tables
from gemstones.figures.output import Drawing
from gemstones.figures.style import BEYOND, FONT, GREY, WIDTH, figure, fit_label, law_styles

# A model's loss is drawn where it is this near a panel's losses, in nats (the authors' choice).
NEAR = 0.01
# Left out by the authors: its loss stands out from its family's.
NOT_SHOWN = ("Llama-3.1-70B",)
COLUMNS = ["fit", "flops", "factor", "tokens", "width", "depth", "params", "tokens_per_param", "loss", "loss_increase",
           "extrapolated"]  # fmt: skip


def draw_overtraining(tables: Tables) -> Drawing:
    """A panel per budget; budgets beyond the fitted data have a shaded background."""
    rows = tables.needed("overtraining").sort_values(["flops", "factor"], ignore_index=True)
    budgets = list(dict.fromkeys(rows["flops"]))
    across = 2 if len(budgets) == 4 else min(3, len(budgets))
    down = -(-len(budgets) // across)
    drawn = figure(2.2 * down + 0.4, WIDTH if across > 1 else 4.2)
    panels = drawn.subplots(down, across, squeeze=False, sharex=True)
    style = law_styles(tables.study)[str(rows["fit"].iloc[0])]
    shown = []
    for axes, flops in zip(panels.flat, budgets, strict=False):
        curve = rows[rows["flops"] == flops].dropna(subset=["loss"])
        beyond = bool(curve["extrapolated"].fillna(False).any())
        axes.plot(curve["factor"], curve["loss"], color=style.color, linewidth=1.6)
        best = curve.loc[curve["loss"].idxmin()]
        axes.plot(best["factor"], best["loss"], marker="o", color=style.color, markersize=4.5)
        axes.set_title(f"{scientific(flops)} FLOPs" + (", extrapolated" if beyond else ""))
        if beyond:
            axes.set_facecolor(BEYOND)
            axes.grid(color="white")
        shown.append(_industry(axes, tables, curve).assign(flops=flops))
        _note(axes, best)
    for axes in panels.flat[len(budgets) :]:
        axes.set_axis_off()
    _factors(panels, rows)
    drawn.supxlabel("tokens per parameter, relative to the optimum", fontsize=FONT)
    drawn.supylabel("predicted loss (nats/token)", fontsize=FONT)
    drawn.suptitle(fit_label(str(rows["fit"].iloc[0])), fontsize=FONT + 1)
    data = rows[COLUMNS].rename(
        columns={"loss": "loss_nats_per_token", "loss_increase": "loss_increase_nats_per_token"}
    )
    models = pd.concat(shown, ignore_index=True)
    return Drawing(drawn, data, {"Industry models drawn": models} if len(models) else {})


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


def _note(axes: Axes, best: pd.Series) -> None:
    text = f"optimum: {_digits(best['tokens_per_param'])}\ntokens per parameter"
    box = {"facecolor": axes.get_facecolor(), "edgecolor": "none", "pad": 1}
    axes.text(0.5, 0.93, text, transform=axes.transAxes, ha="center", va="top", fontsize=FONT, bbox=box)


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
