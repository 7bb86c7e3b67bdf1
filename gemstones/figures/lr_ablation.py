"""What another learning rate does to the loss: the ablation's runs against the main runs at the same steps."""

from __future__ import annotations

import pandas as pd
from matplotlib.ticker import MaxNLocator

from gemstones.errors import UserError
from gemstones.figures.axes import legend_below, log_axis
from gemstones.figures.inputs import Tables
from gemstones.figures.output import Drawing
from gemstones.figures.style import GREY, aspect_handles, figure, model_styles, shape_names

KEY = ["width", "depth", "step"]


def draw_lr_ablation(tables: Tables) -> Drawing:
    """Difference of the losses (below 0: the ablation is better) along training, and at its end by model."""
    pairs = paired(tables)
    styles = model_styles(tables)
    drawn = figure(4.2)
    left, right = drawn.subplots(1, 2, width_ratios=[1.3, 1])
    ends = final_differences(pairs)
    for shape, run in pairs.groupby("shape", sort=False):
        left.plot(run["tokens"], run["difference"], **styles[str(shape)].line(linewidth=1))
    for place, end in enumerate(ends.itertuples()):
        right.plot([end.lowest, end.highest], [place, place], color=GREY, linewidth=0.8)
        right.plot([end.mean], [place], **styles[str(end.shape)].points(markersize=5, markeredgewidth=0))
    left.axhline(0, color="black", linewidth=0.8)
    right.axvline(0, color="black", linewidth=0.8)
    left.set_xlabel("training tokens")
    log_axis(left, "x", most=5)
    left.set_ylabel(f"loss with {_ablation(pairs['lr_ratio'])} − main (nats/token)")
    right.set_yticks(range(len(ends)), list(ends["shape"]))
    right.set_xlabel("the same over the last tenth of\nthe tokens: mean and range (nats/token)")
    right.xaxis.set_major_locator(MaxNLocator(4))
    legend_below(drawn, aspect_handles(tables), columns=3)
    columns = {name: f"{name}_nats_per_token" for name in ("loss_main", "loss_lr_ablation", "difference")}
    by_model = ends.rename(
        columns={name: f"{name}_difference_nats_per_token" for name in ("mean", "lowest", "highest")}
    )
    return Drawing(drawn, pairs.rename(columns=columns), {"Differences over the last tenth of the tokens": by_model})


def final_differences(pairs: pd.DataFrame) -> pd.DataFrame:
    """By model, ordered by parameters: `mean`, `lowest` and `highest` difference over the last tenth of its tokens."""
    last = pairs[pairs["tokens"] >= 0.9 * pairs.groupby("shape")["tokens"].transform("max")]
    found = last.groupby(["shape", "params"], sort=False)["difference"].agg(["mean", "min", "max"]).reset_index()
    return found.rename(columns={"min": "lowest", "max": "highest"})


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
