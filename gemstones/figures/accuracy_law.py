"""Accuracy on benchmarks against the validation loss, and the logistic law through it, a panel a task."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gemstones.errors import UserError
from gemstones.figures.inputs import Tables
from gemstones.figures.output import Drawing
from gemstones.figures.panels import CHANCE, draw_key, label_bottom, task_panels
from gemstones.figures.style import GREY, model_styles, shape_names
from gemstones.laws.curves import ACCURACY, Law
from gemstones.laws.downstream import MEAN, band

CURVE: dict[str, Any] = {"color": "black", "linewidth": 1.3}
BAND: dict[str, Any] = {"color": GREY, "alpha": 0.35, "linewidth": 0}


def draw_accuracy_law(tables: Tables) -> Drawing:
    """Points are checkpoints in their model's colour; the curve has a band, and ± says how far held-out runs are off."""
    laws = of_law(tables, "downstream", ACCURACY)
    points = of_law(tables, "downstream_points", ACCURACY)
    points = points.assign(shape=shape_names(points))
    styles = model_styles(tables)
    drawn, panels, key = task_panels([f"{MEAN} of all tasks" if task == MEAN else task for task in laws["task"]])
    parts = []
    for axes, row in zip(panels, laws.to_dict("records"), strict=True):
        rows = points[points["task"] == row["task"]]
        for shape, run in rows.groupby("shape", sort=False):
            axes.plot(run["loss"], 100 * run["value"], **styles[str(shape)].points(markersize=1.8, markeredgewidth=0))
        curve = curve_of(tables, ACCURACY, row)
        axes.plot(curve["loss_nats_per_token"], 100 * curve["value"], **CURVE)
        axes.fill_between(curve["loss_nats_per_token"], 100 * curve["low"], 100 * curve["high"], **BAND)
        axes.axhline(100 * row["random_chance"], **CHANCE)
        error = f"±{100 * row['leave_one_run_out_mean_absolute_error']:.1f}"
        axes.text(0.04, 0.95, error, transform=axes.transAxes, va="top")
        parts.append(curve)
    panels[0].invert_xaxis()
    label_bottom(panels, "loss (nats/token)")
    drawn.supylabel("accuracy (%)", fontsize="medium")
    draw_key(key, {name: style for name, style in styles.items() if name in set(points["shape"])}, markers=True)
    key.plot([0, 2.5], [4.3, 4.3], **CURVE)
    key.fill_between([0, 2.5], 4.1, 4.5, **BAND)
    key.text(3.2, 4.3, "law with its interval", va="center")
    key.plot([0, 2.5], [3.3, 3.3], **CHANCE)
    key.text(3.2, 3.3, "guessing", va="center")
    key.text(0, 2.3, "±: mean error of held-out runs (points)", va="center")
    return Drawing(drawn, drawn_data(points, parts), {"Laws": table_of(laws)})


def of_law(tables: Tables, name: str, law: Law) -> pd.DataFrame:
    """Rows of one of the tables of laws from loss to benchmarks, the mean of all tasks last."""
    table = tables.needed(name)
    rows = table[table["law"] == law.name]
    if rows.empty:
        raise UserError(f"figure of kind '{tables.figure.kind}': the table '{name}' has no law of the {law.name}")
    return rows.sort_values("task", key=lambda task: task == MEAN, kind="stable", ignore_index=True)


def table_of(laws: pd.DataFrame) -> pd.DataFrame:
    """Laws without the columns that are another's."""
    return laws.drop(columns="law").dropna(axis="columns", how="all")


def curve_of(tables: Tables, law: Law, row: dict[str, Any], points: int = 80) -> pd.DataFrame:
    """A law's curve over the losses that it was fitted to: task, loss_nats_per_token, value, low, high."""
    seen, resamples = of_law(tables, "downstream_points", law), of_law(tables, "downstream_resamples", law)
    losses = seen.loc[seen["task"] == row["task"], "loss"]
    loss: NDArray[np.float64] = np.linspace(losses.min(), losses.max(), points)
    value = law.predict(loss, np.array([row[name] for name in law.parameters]))
    resamples = resamples[resamples["task"] == row["task"]]
    low, high = band(law, resamples, loss, tables.study.bootstrap.level, row["runs"])
    return pd.DataFrame({"task": row["task"], "loss_nats_per_token": loss, "value": value, "low": low, "high": high})


def drawn_data(points: pd.DataFrame, curves: list[pd.DataFrame]) -> pd.DataFrame:
    """Points and curves in one table, told apart by `part`."""
    kept = ["task", "run", "step", "loss", "value", "held_out"]
    of_points = points[kept].rename(columns={"loss": "loss_nats_per_token"}).assign(part="checkpoint")
    return pd.concat([of_points, *(curve.assign(part="law") for curve in curves)], ignore_index=True)
