"""Accuracy on benchmarks against training FLOPs, a panel a task."""

from __future__ import annotations

from typing import Any

import pandas as pd

from gemstones.figures.axes import log_axis
from gemstones.figures.inputs import Tables
from gemstones.figures.output import Drawing
from gemstones.figures.panels import CHANCE, draw_key, label_bottom, task_panels
from gemstones.figures.style import GREY, model_styles, shape_names
from gemstones.losses.benchmarks import error_of_mean

MEAN = "mean of all tasks"
ERROR: dict[str, Any] = {"color": GREY, "capsize": 2, "linewidth": 1.5}
SMOOTH = 5  # checkpoints, since from one to the next an accuracy changes by chance
RUN = ["suite", "run", "step"]


def draw_benchmarks(tables: Tables) -> Drawing:
    """One line per run, a running mean, on the faint line of its checkpoints, or a mark where it has one checkpoint; the grey bar is a standard error up and down, the dotted line what guessing gives."""
    data = accuracies(tables.needed("benchmarks"))
    styles = model_styles(tables)
    tasks = sorted(set(data["task"]), key=lambda task: (task == MEAN, task))
    marks = not data.duplicated(["suite", "run", "task"]).any()
    drawn, panels, key = task_panels(tasks)
    for axes, task in zip(panels, tasks, strict=True):
        rows = data[data["task"] == task]
        for (shape, *_), run in rows.groupby(["shape", "suite", "run"], sort=False):
            style = styles[str(shape)]
            if marks:
                axes.plot(run["flops"], run["accuracy_percent"], **style.points(markersize=4))
                continue
            axes.plot(run["flops"], run["accuracy_percent"], color=style.color, linewidth=0.5, alpha=0.2)
            axes.plot(run["flops"], run["running_mean_percent"], **style.line(linewidth=1))
        chance, error = rows["random_chance_percent"].iloc[0], rows["standard_error_percent"].mean()
        low, high = rows["accuracy_percent"].min(), rows["accuracy_percent"].max()
        if pd.notna(chance):
            axes.axhline(chance, **CHANCE)
            low = min(low, chance)
        if pd.notna(error):
            axes.errorbar(rows["flops"].min(), high - error, error, **ERROR)
        if not marks:
            axes.set_ylim(low - 0.06 * (high - low), None)
    for axes in panels:
        log_axis(axes, "x", "power", most=3)
    label_bottom(panels, "training FLOPs")
    drawn.supylabel("accuracy (%)", fontsize="medium")
    draw_key(key, {name: style for name, style in styles.items() if name in set(data["shape"])}, markers=marks)
    key.errorbar(1.25, 4, 0.45, **ERROR)
    key.text(3.2, 4, "± a standard error", va="center")
    key.plot([0, 2.5], [2.8, 2.8], **CHANCE)
    key.text(3.2, 2.8, "guessing", va="center")
    return Drawing(drawn, data)


def accuracies(benchmarks: pd.DataFrame) -> pd.DataFrame:
    """One row per run, step and task, by parameters, with `shape`, and the mean of several tasks for one more; all in percent, and `running_mean_percent`."""
    rows = benchmarks.dropna(subset=["flops", "width", "depth"])
    rows = rows.assign(shape=shape_names(rows))
    kept = [*RUN, "shape", "params", "flops"]
    shares = ["accuracy", "standard_error", "random_chance"]
    if rows["task"].nunique() > 1:
        mean = rows.groupby(kept, as_index=False).agg(
            accuracy=("accuracy", "mean"),
            standard_error=("standard_error", error_of_mean),
            random_chance=("random_chance", lambda chances: chances.mean(skipna=False)),
        )
        rows = pd.concat([rows, mean.assign(task=MEAN)], ignore_index=True)
    everything = rows[[*kept, "task", *shares]].copy()
    everything[shares] *= 100
    everything = everything.rename(columns={name: f"{name}_percent" for name in shares})
    everything = everything.sort_values(["task", "params", "run", "step"], ignore_index=True)
    by_run = everything.groupby(["task", "suite", "run"], sort=False)["accuracy_percent"]
    return everything.assign(running_mean_percent=by_run.transform(_running_mean))


def _running_mean(values: pd.Series) -> pd.Series:
    """Of as many values before as after each, so that a steep curve's ends stay where they are."""
    means = [values.rolling(window, center=True).mean() for window in range(SMOOTH, 0, -2)]
    return pd.concat(means, axis=1).bfill(axis=1).iloc[:, 0]
