"""Losses of the same checkpoints on several held-out sets, and how they compare with the main one's."""

from __future__ import annotations

import numpy as np
import pandas as pd

from gemstones.errors import UserError
from gemstones.figures.axes import legend_right, log_axis, loss_axis, model_handles
from gemstones.figures.inputs import Tables
from gemstones.figures.output import Drawing
from gemstones.figures.style import aspect_handles, figure, model_styles, shape_names
from gemstones.losses.columns import KEY

TITLES = {"dolma": "Dolma", "fineweb": "FineWeb", "fineweb_edu": "FineWeb-Edu", "dclm": "DCLM"}
CHECKPOINT = [name for name in KEY if name != "validation_set"]
SHAPE = ["shape", "params", "tokens", "flops"]


def draw_validation_sets(tables: Tables) -> Drawing:
    """Above: loss against FLOPs, a panel a set; below: how far each set's loss is above the main set's, at every checkpoint."""
    data = on_all_sets(tables)
    main, *others = data["validation_set"].unique()
    styles = model_styles(tables)
    drawn = figure(4.8)
    n = len(others)
    grid = drawn.add_gridspec(2, n * (n + 1))
    above = None
    for i, name in enumerate([main, *others]):
        axes = above = drawn.add_subplot(grid[0, i * n : (i + 1) * n], sharex=above, sharey=above)
        for shape, run in data[data["validation_set"] == name].groupby("shape", sort=False):
            axes.plot(run["flops"], run["loss_nats_per_token"], **styles[str(shape)].line(linewidth=1))
        axes.set(title=TITLES.get(name, name), xlabel="training FLOPs")
        axes.tick_params(labelleft=i == 0)
        if i == 0:
            loss_axis(axes)
    log_axis(drawn.axes[0], "x", "power", most=3)
    below = None
    for i, name in enumerate(others):
        axes = below = drawn.add_subplot(grid[1, i * (n + 1) : (i + 1) * (n + 1)], sharex=below, sharey=below)
        for shape, run in data[data["validation_set"] == name].groupby("shape", sort=False):
            points = styles[str(shape)].points(markersize=2.5, markeredgewidth=0)
            axes.plot(run["loss_on_main_set"], run["above_main_set_percent"], **points)
        axes.set(title=TITLES.get(name, name), xlabel=f"loss on {TITLES.get(main, main)} (nats/token)")
        axes.tick_params(labelleft=i == 0)
        if i == 0:
            axes.set_ylabel(f"loss above that on {TITLES.get(main, main)} (%)")
            axes.invert_xaxis()
    shapes = list(data["shape"].unique())
    models = model_handles(styles, shapes)
    for handle in models:
        handle.set_marker(styles[str(handle.get_label())].marker)
    legend_right(drawn, [("width×depth", models), ("aspect ratio", aspect_handles(tables))])
    above_main = data[data["validation_set"] != main].groupby("validation_set", sort=False)["above_main_set_percent"]
    summary = above_main.agg(["count", "mean", "std", "min", "max"]).add_suffix("_percent").reset_index()
    return Drawing(
        drawn, data, {"Losses above the main set's": summary.rename(columns={"count_percent": "checkpoints"})}
    )


def on_all_sets(tables: Tables) -> pd.DataFrame:
    """Main runs at the steps at which they were evaluated on further sets; the main set's rows first.

    Returns
    -------
    DataFrame with validation_set, run, step, shape, params, tokens, flops, loss_nats_per_token, loss_on_main_set, and
    above_main_set_percent, 100 (loss / loss on the main set − 1).
    """
    main_rows = tables.phase("main")
    main = main_rows["validation_set"].iloc[0]
    rows = tables.losses[(tables.losses["phase"] == "main") & (tables.losses["validation_set"] != main)]
    if rows.empty:
        raise UserError(f"figure of kind '{tables.figure.kind}': the losses table has no set but '{main}'")
    on_main = main_rows.set_index(CHECKPOINT)["loss"].rename("loss_on_main_set")
    rows = pd.concat([main_rows.merge(rows[CHECKPOINT].drop_duplicates()), rows], ignore_index=True)
    rows = rows.join(on_main, on=CHECKPOINT).dropna(subset="loss_on_main_set").assign(shape=shape_names)
    above = 100 * np.expm1(np.log(rows["loss"]) - np.log(rows["loss_on_main_set"]))
    rows = rows.assign(above_main_set_percent=above, other=rows["validation_set"] != main)
    rows = rows.sort_values(["other", "validation_set", "params", "run", "step"], ignore_index=True)
    kept = ["validation_set", "run", "step", *SHAPE, "loss", "loss_on_main_set", "above_main_set_percent"]
    return rows[kept].rename(columns={"loss": "loss_nats_per_token"})
