"""What a cooldown gains: loss before and after it, and the gain over the main run at the same tokens."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from gemstones.errors import UserError
from gemstones.figures.axes import label_ends, legend_below, log_axis, loss_axis
from gemstones.figures.inputs import Tables
from gemstones.figures.output import Drawing
from gemstones.figures.style import GREY, aspect_handles, figure, model_styles, shape_names


def draw_cooldown(tables: Tables) -> Drawing:
    """Main curves as thin lines with every cooldown branching off, and end of cooldown minus main run."""
    main, gains = tables.phase("main"), cooldown_gains(tables)
    main = main.assign(shape=shape_names(main))
    main = main[main["shape"].isin(gains["shape"]) & (main["tokens"] <= gains["tokens_end"].max())]
    styles = model_styles(tables)
    drawn = figure(4.4)
    left, right = drawn.subplots(1, 2)
    for shape, run in main.sort_values(["params", "shape", "tokens"]).groupby("shape", sort=False):
        left.plot(run["tokens"], run["loss"], **styles[str(shape)].line(linewidth=0.7, alpha=0.7))
    for shape, ends in gains.groupby("shape", sort=False):
        style = styles[str(shape)]
        for end in ends.itertuples():
            left.plot(
                [end.tokens_start, end.tokens_end], [end.loss_start, end.loss_end], color=style.color, linewidth=1.4
            )
        right.plot(
            ends["tokens_end"], ends["gain"], marker=style.marker, markersize=3.5, markeredgewidth=0,
            **style.line(linewidth=0.9),
        )  # fmt: skip
    right.axhline(0, color="black", linewidth=0.8)
    right.set_ylabel("end of cooldown − main run (nats/token)")
    for axes in (left, right):
        axes.set_xlabel("training tokens")
        log_axis(axes, "x", most=5)
    loss_axis(left)
    right.set_xlim(right=gains["tokens_end"].max() * 1.04)
    last = gains[gains["gain"].notna()].groupby("shape")["gain"].last()
    label_ends(right, {str(shape): float(gain) for shape, gain in last.items()}, styles, markers=True)
    cooldown = Line2D([], [], color=GREY, linewidth=1.4, label="cooldown (thick)")
    legend_below(drawn, [cooldown, *aspect_handles(tables)], columns=4)
    losses = {name: f"{name}_nats_per_token" for name in ("loss_start", "loss_end", "loss_main", "gain")}
    return Drawing(drawn, gains.rename(columns=losses))


def cooldown_gains(tables: Tables) -> pd.DataFrame:
    """One row per cooldown: where it starts and ends, and the main run's loss at the end's tokens, interpolated in log.

    Columns `run`, `shape`, `params`, `anchor`, `tokens_start`, `loss_start`, `tokens_end`, `flops_end`, `loss_end`,
    `loss_main` and `gain` = `loss_end` − `loss_main`; the last two are missing where the main run ended earlier.
    """
    main, cooldown = tables.phase("main"), tables.phase("cooldown").sort_values(["run", "step"])
    ends = cooldown.groupby("run", as_index=False).last()
    starts = cooldown[cooldown["step"] == cooldown["anchor"]].groupby("run", as_index=False).first()
    gains = ends.merge(starts[["run", "tokens", "loss"]], on="run", how="left", suffixes=("_end", "_start"))
    gains = gains[gains["step"] > gains["anchor"]].assign(shape=shape_names(gains))
    if gains.empty:
        raise UserError("figure of kind 'cooldown': no cooldown has a loss after its anchor")
    curves = {str(run): curve.sort_values("tokens") for run, curve in main.groupby("run")}
    at_end = [_interpolated(curves.get(str(row.parent)), float(str(row.tokens_end))) for row in gains.itertuples()]
    gains = gains.assign(loss_main=at_end, gain=gains["loss_end"] - np.array(at_end)).rename(
        columns={"flops": "flops_end"}
    )
    wanted = ["run", "shape", "params", "anchor", "tokens_start", "loss_start", "tokens_end", "flops_end", "loss_end",
              "loss_main", "gain"]  # fmt: skip
    return gains.sort_values(["params", "shape", "anchor"], ignore_index=True)[wanted]


def _interpolated(curve: pd.DataFrame | None, tokens: float) -> float:
    """Loss of a curve at some tokens, linear between its points in log tokens and log loss; NaN outside of it."""
    if curve is None or not curve["tokens"].min() <= tokens <= curve["tokens"].max():
        return float("nan")
    log_loss = np.interp(np.log(tokens), np.log(curve["tokens"].to_numpy(float)), np.log(curve["loss"].to_numpy(float)))
    return float(np.exp(log_loss))
