"""What another learning rate does to the loss: the ablation's runs against the main runs at the same steps."""

from __future__ import annotations

import pandas as pd
from matplotlib.lines import Line2D

from gemstones.errors import UserError
from gemstones.figures.axes import legend_right, log_axis, loss_axis, model_handles
from gemstones.figures.inputs import Tables
from gemstones.figures.output import Drawing
from gemstones.figures.style import GREY, LINES, figure, model_styles, shape_names

KEY = ["width", "depth", "step"]


def draw_lr_ablation(tables: Tables) -> Drawing:
    """Losses of both at the steps that both have, and their difference (below 0: the ablation is better)."""
    pairs = paired(tables)
    styles = model_styles(tables)
    drawn = figure(4.2)
    left, right = drawn.subplots(1, 2)
    for shape, run in pairs.groupby("shape", sort=False):
        style = styles[str(shape)]
        left.plot(run["tokens"], run["loss_main"], color=style.color, linestyle="-", linewidth=1)
        left.plot(run["tokens"], run["loss_lr_ablation"], color=style.color, linestyle=LINES[2], linewidth=1)
        right.plot(run["tokens"], run["difference"], **style.line(linewidth=1))
    right.axhline(0, color="black", linewidth=0.8)
    for axes in (left, right):
        axes.set_xlabel("training tokens")
        log_axis(axes, "x", most=5)
    loss_axis(left)
    right.set_ylabel("loss of ablation − main (nats/token)")
    phases = [
        Line2D([], [], color=GREY, linestyle="-", label="main"),
        Line2D([], [], color=GREY, linestyle=LINES[2], label=_ablation(pairs["lr_ratio"])),
    ]
    legend_right(drawn, [("left: run", phases), ("width×depth", model_handles(styles, list(pairs["shape"].unique())))])
    columns = {name: f"{name}_nats_per_token" for name in ("loss_main", "loss_lr_ablation", "difference")}
    return Drawing(drawn, pairs.rename(columns=columns))


def paired(tables: Tables) -> pd.DataFrame:
    """One row per shape and step with both losses; UserError where no step is shared."""
    main, ablation = tables.phase("main"), tables.phase("lr_ablation")
    pairs = main.merge(
        ablation[[*KEY, "lr", "loss", "validation_set"]], on=[*KEY, "validation_set"], suffixes=("", "_2")
    )
    if pairs.empty:
        raise UserError("figure of kind 'lr_ablation': the ablation and the main runs share no shape and step")
    pairs = pairs.assign(
        shape=shape_names(pairs),
        lr_ratio=pairs["lr_2"] / pairs["lr"],
        loss_main=pairs["loss"],
        loss_lr_ablation=pairs["loss_2"],
        difference=pairs["loss_2"] - pairs["loss"],
    ).sort_values(["params", "shape", "step"], ignore_index=True)
    wanted = ["shape", "params", "step", "tokens", "flops", "lr_ratio", "loss_main", "loss_lr_ablation", "difference"]
    return pairs[wanted]


def _ablation(ratio: pd.Series) -> str:
    values = ratio.dropna().round(3).unique()
    return f"lr × {values[0]:g}" if len(values) == 1 else "lr ablation"
