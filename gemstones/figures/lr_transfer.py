"""Whether one constant sets the learning rate of all shapes: loss against lr, and against lr_base (paper, Figure 3)."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from gemstones.errors import UserError
from gemstones.figures.axes import legend_below, log_axis, loss_axis
from gemstones.figures.inputs import Tables
from gemstones.figures.output import Drawing
from gemstones.figures.style import GREY, figure, model_styles
from gemstones.suite.recipe import peak_lr
from gemstones.suite.runs import lr_transfer_runs

PANELS = {"lr": "peak learning rate lr", "lr_base": "lr_base = lr · width · √depth"}
TOP = 0.97  # height, as a share of the axes, of the marks of runs that diverged


def draw_lr_transfer(tables: Tables) -> Drawing:
    """Loss at the end of every run, one line per shape; a tick at the foot is the best rate by a parabola."""
    trains = tables.study.runs and tables.study.runs.lr_transfer
    rates = final_losses(tables) if trains else preflight_losses(tables)
    best = best_rates(rates)
    styles = model_styles(tables)
    drawn = figure(3.6)
    panels = drawn.subplots(1, 2, sharey=True)
    for axes, (column, label) in zip(panels, PANELS.items(), strict=True):
        for shape, runs in rates.groupby("shape", sort=False):
            style, kept = styles[str(shape)], runs[~runs["diverged"]]
            axes.plot(kept[column], kept["loss"], marker=style.marker, **style.line())
            lost = runs.loc[runs["diverged"], column]
            inside = axes.get_xaxis_transform()
            axes.plot(lost, [TOP] * len(lost), transform=inside, **style.points(markerfacecolor="none"))
            at = best.loc[best["shape"] == shape, f"best_{column}"].dropna()
            axes.vlines(at, 0, 0.08, transform=inside, color=style.color, linewidth=1.3)
        axes.set_xlabel(label)
        log_axis(axes, "x", "power" if column == "lr" else "plain", most=5)
    loss_axis(panels[0], f"{'validation' if trains else 'training'} loss (nats/token)")
    panels[0].margins(y=0.15)
    shapes = [
        Line2D([], [], label=str(shape), marker=styles[str(shape)].marker, **styles[str(shape)].line())
        for shape in rates["shape"].unique()
    ]
    marks = [
        Line2D(
            [],
            [],
            color=GREY,
            marker="|",
            markersize=8,
            markeredgewidth=1.3,
            linestyle="none",
            label="best rate (parabola)",
        ),
        Line2D([], [], color=GREY, marker="o", markerfacecolor="none", linestyle="none", label="diverged"),
    ]
    legend_below(drawn, [*shapes, *marks], columns=min(6, len(shapes) + len(marks)))
    losses = {"loss": "loss_nats_per_token"}
    return Drawing(drawn, rates.rename(columns=losses), {"Best rates": best.rename(columns=losses)})


def final_losses(tables: Tables) -> pd.DataFrame:
    """One row per planned run, by width·√depth and rate, with `loss` at its last `step` and whether it has `diverged`.

    It has if it was stopped before its end, where `loss` is missing, or ends above the loss of guessing among all
    tokens alike.
    """
    planned, found = lr_transfer_runs(tables.study), tables.phase("lr_transfer")
    if found.duplicated(["run", "step"]).any():
        raise UserError("figure of kind 'lr_transfer': its selection has several validation sets; name one there")
    losses = found.set_index(["run", "step"])["loss"]
    scales = [1 / peak_lr(run.shape, tables.study.recipe, 1.0) for run in planned]  # width·√depth
    rows = [
        (run.shape, scale, run.name, run.lr, float(f"{run.lr * scale:.9g}"), run.steps,
         float(losses.get((run.name, run.steps), math.nan)))
        for run, scale in zip(planned, scales, strict=True)
    ]  # fmt: skip
    return _rates(
        tables, pd.DataFrame(rows, columns=["shape", "width_sqrt_depth", "run", "lr", "lr_base", "step", "loss"])
    )


def preflight_losses(tables: Tables) -> pd.DataFrame:
    """The same of the authors' runs before the suite, of which no step is known; they were not patched."""
    runs = tables.needed("preflight")
    scale = runs["width"] * np.sqrt(runs["depth"])
    rates = runs.assign(width_sqrt_depth=scale, lr_base=runs["lr"] * scale)
    return _rates(tables, rates[["shape", "width_sqrt_depth", "lr", "lr_base", "loss"]])


def _rates(tables: Tables, rates: pd.DataFrame) -> pd.DataFrame:
    guessing = math.log(tables.study.suite.vocabulary_size)
    rates = rates.assign(diverged=~(rates["loss"] <= guessing))
    return rates.sort_values(["width_sqrt_depth", "shape", "lr"], ignore_index=True)


def best_rates(rates: pd.DataFrame) -> pd.DataFrame:
    """Each shape's rate of least loss: `best_lr` and `best_lr_base`, with that `loss`, of a parabola in log rate.

    Through the lowest point and its neighbours; missing where the lowest is the first or last of those that did not diverge.
    """
    rows = []
    for shape, runs in rates[~rates["diverged"]].groupby("shape", sort=False):
        log_lr, loss = np.log(runs["lr"].to_numpy(float)), runs["loss"].to_numpy(float)
        lowest, scale = int(loss.argmin()), float(runs["width_sqrt_depth"].iloc[0])
        lr = value = math.nan
        if 0 < lowest < len(loss) - 1:
            near = slice(lowest - 1, lowest + 2)
            curve = np.polynomial.Polynomial.fit(log_lr[near], loss[near], 2)
            at = float(curve.deriv().roots()[0])
            lr, value = math.exp(at), float(curve(at))
        rows.append((shape, scale, lr, lr * scale, value))
    return pd.DataFrame(rows, columns=["shape", "width_sqrt_depth", "best_lr", "best_lr_base", "loss"])
