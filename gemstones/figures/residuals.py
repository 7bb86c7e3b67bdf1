"""What laws miss: residuals against parameters, tokens and aspect ratio, every model in its colour."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from gemstones.errors import UserError
from gemstones.figures.axes import legend_right, log_axis, model_handles
from gemstones.figures.inputs import Tables
from gemstones.figures.output import Drawing
from gemstones.figures.style import UNSTYLED, aspect_handles, figure, fit_label, model_styles, shape_names
from gemstones.laws.fit import HuberFit

ROW = ["suite", "run", "step", "validation_set"]
AGAINST = {"params": "parameters", "tokens": "training tokens", "aspect_ratio": "width / depth"}
FLAG: dict[str, Any] = {
    "linestyle": "none",
    "marker": "o",
    "markersize": 8,
    "markeredgewidth": 0.8,
    "markerfacecolor": "none",
    "color": "black",
}


def draw_residuals(tables: Tables) -> Drawing:
    """A row of panels per fit: log observed − log predicted loss in percent; rings are rows that are flagged as spikes.

    Against tokens every row is drawn; against what a run does not change, the median of its rows and their range.
    """
    laws = {name: law for name, law in tables.laws.items() if isinstance(law, HuberFit)}
    if not laws:
        raise UserError("figure of kind 'residuals': it draws Approach 3 fits, and none was given")
    data = pd.concat([residuals(tables, name, law) for name, law in laws.items()], ignore_index=True)
    against = {x: label for x, label in AGAINST.items() if data[x].notna().any()}
    styles = model_styles(tables)
    drawn = figure(max(4.2, 2.3 * len(laws)))
    panels = drawn.subplots(len(laws), len(against), sharex="col", sharey=True, squeeze=False)
    for row, (fit, rows) in zip(panels, data.groupby("fit", sort=False), strict=True):
        for axes, x in zip(row, against, strict=True):
            for (shape, name), run in rows.groupby(["shape", "run"], sort=False, dropna=False):
                style = styles.get(str(shape), UNSTYLED)
                if x == "tokens" and len(run) > 1 and pd.notna(name):
                    axes.plot(run[x], run["residual_percent"], **style.line(linewidth=0.8))
                elif x != "tokens" and pd.notna(name):
                    axes.vlines(
                        run[x].iloc[:1], *run["residual_percent"].agg(["min", "max"]), color=style.color, linewidth=0.8
                    )
                    median = run["residual_percent"].median()
                    axes.plot(run[x].iloc[:1], [median], **style.points(markersize=4.5, markeredgewidth=0))
                else:
                    axes.plot(run[x], run["residual_percent"], **style.points(markersize=2.5, markeredgewidth=0))
            if x == "tokens":
                flagged = rows[rows["flagged"]]
                axes.plot(flagged[x], flagged["residual_percent"], **FLAG)
            axes.axhline(0, color="black", linewidth=0.8)
            axes.tick_params(labelleft=axes is row[0])
        row[0].set_title(fit_label(str(fit)), loc="left")
    for axes, (x, label) in zip(panels[-1], against.items(), strict=True):
        axes.set_xlabel(label)
        if x == "aspect_ratio":
            log_axis(axes, "x", "plain", most=5)
        else:
            log_axis(axes, "x", most=4)
    drawn.supylabel("log loss, observed − predicted (%)", fontsize="medium")
    groups = [("width×depth", model_handles(styles, list(data["shape"].dropna().unique()), markers=True))]
    groups.append(("along training", aspect_handles(tables)))
    if data["flagged"].any():
        groups.append(("flagged", [Line2D([], [], label="spike", **FLAG)]))
    legend_right(drawn, groups)
    by_model = data.groupby(["fit", "shape"], sort=False)["residual_percent"].agg(["mean", "min", "max"]).reset_index()
    renamed = by_model.rename(columns={key: f"{key}_residual_percent" for key in ("mean", "min", "max")})
    return Drawing(drawn, data, {"Residuals by model": renamed})


def residuals(tables: Tables, name: str, law: HuberFit) -> pd.DataFrame:
    """Rows of a fit's selection by parameters, with `residual_percent` and whether they are `flagged` as spikes."""
    rows = tables.rows(tables.study.fits[name].selection)
    residual = 100 * (np.log(rows["loss"].to_numpy(float)) - np.log(law.predict(rows)))
    spikes = set()
    anomalies = tables.others.get("anomalies")
    if anomalies is not None:
        found = anomalies[anomalies["kind"] == "spike"]
        spikes = set(found[ROW].itertuples(index=False, name=None))
    table = pd.DataFrame(
        {
            "fit": name,
            "run": rows["run"],
            "shape": shape_names(rows),
            "step": rows["step"],
            "params": rows["params"],
            "tokens": rows["tokens"],
            "aspect_ratio": rows["width"].astype(float) / rows["depth"].astype(float),
            "loss_nats_per_token": rows["loss"],
            "residual_percent": residual,
            "flagged": [row in spikes for row in rows[ROW].itertuples(index=False, name=None)],
        }
    )
    return table.sort_values(["params", "shape", "run", "tokens"], ignore_index=True)
