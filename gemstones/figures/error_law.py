"""Mean error on benchmarks against the validation loss, and the law of Gadre et al. through it."""

from __future__ import annotations

import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from gemstones.figures.accuracy_law import BAND, CURVE, curve_of, drawn_data, of_law, table_of
from gemstones.figures.axes import legend_below
from gemstones.figures.inputs import Tables
from gemstones.figures.output import Drawing
from gemstones.figures.style import figure, model_styles, shape_names
from gemstones.laws.curves import ERROR


def draw_error_law(tables: Tables) -> Drawing:
    """Left: checkpoints and the law; right: how far each model lies from the law of all others, on average and at most."""
    (row,) = of_law(tables, "downstream", ERROR).to_dict("records")
    points = of_law(tables, "downstream_points", ERROR)
    points = points.assign(shape=shape_names(points)).sort_values(["params", "run", "step"], kind="stable")
    styles = model_styles(tables)
    drawn = figure(4.2)
    left, right = drawn.subplots(1, 2, width_ratios=[1.5, 1])
    for shape, run in points.groupby("shape", sort=False):
        left.plot(run["loss"], 100 * run["value"], **styles[str(shape)].points(markersize=3, markeredgewidth=0))
    curve = curve_of(tables, ERROR, row)
    left.plot(curve["loss_nats_per_token"], 100 * curve["value"], **CURVE)
    left.fill_between(curve["loss_nats_per_token"], 100 * curve["low"], 100 * curve["high"], **BAND)
    left.invert_xaxis()
    left.set(xlabel="validation loss (nats/token)", ylabel="mean error of all tasks (%)")
    left.set_title(f"error = {row['epsilon']:.3f} − {row['k']:.1f} exp(−{row['gamma']:.3f} L)")
    errors = held_out_errors(points)
    for i, model in enumerate(errors.to_dict("records")):
        style = styles[model["shape"]]
        right.plot([model["least_points"], model["greatest_points"]], [i, i], color=style.color, linewidth=1)
        right.plot(model["mean_points"], i, **style.points(markersize=5))
    right.axvline(0, color="black", linewidth=0.8)
    right.set_yticks(range(len(errors)), errors["shape"])
    right.set(ylim=(-0.7, len(errors) - 0.3), xlabel="observed − held-out law (points)")
    right.tick_params(axis="y", length=0)
    right.set_title(f"held out: mean error {100 * row['leave_one_run_out_mean_absolute_error']:.2f} points")
    handles = [
        Line2D([], [], label="law", **CURVE),
        Patch(label=f"{100 * tables.study.bootstrap.level:g} % interval", **BAND),
        Line2D([], [], label="right: mean and range of a model's checkpoints", linewidth=1, color="black", marker="o"),
    ]
    legend_below(drawn, handles, 3)
    return Drawing(
        drawn, drawn_data(points, [curve]), {"Law": table_of(pd.DataFrame([row])), "Held-out errors by model": errors}
    )


def held_out_errors(points: pd.DataFrame) -> pd.DataFrame:
    """Observed error − that by the law of all other models, in percentage points, by model in the table's order."""
    error = 100 * (points["value"] - points["held_out"])
    models = error.groupby([points["shape"], points["params"]], sort=False).agg(["mean", "min", "max"]).reset_index()
    return models.rename(columns={"mean": "mean_points", "min": "least_points", "max": "greatest_points"})
