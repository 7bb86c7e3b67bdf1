"""Approach 3: what the fitted laws prescribe for a FLOP budget (paper, Figures 5 and 12 to 16)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from gemstones.errors import UserError
from gemstones.figures.axes import Form, beyond_data, beyond_handle, legend_below, log_axis
from gemstones.figures.inputs import Tables
from gemstones.figures.output import Drawing
from gemstones.figures.published import REFERENCES, with_budgets
from gemstones.figures.style import GREY, LINES, REFERENCE, UNSTYLED, Style, figure, fit_label, law_styles

PANELS: dict[str, tuple[str, Form]] = {
    "params": ("parameters", "count"),
    "tokens": ("training tokens", "count"),
    "tokens_per_param": ("tokens per parameter", "plain"),
    "aspect_ratio": ("width / depth", "plain"),
    "width": ("width", "plain"),
    "depth": ("depth (layers)", "plain"),
}
VARIANTS = {
    "relaxed": "relaxed: any width and depth",
    "feasible": "feasible: even heads, whole layers",
    "closed_form": "closed form, C = 6NT",
}
BAND: dict[str, Any] = {"alpha": 0.13, "linewidth": 0, "zorder": 1}
INDUSTRY: dict[str, Any] = {"color": GREY, "marker": "x", "markersize": 3.5, "linestyle": "none", "alpha": 0.8}


def draw_approach_3(tables: Tables) -> Drawing:
    """Six panels against FLOPs: relaxed optima as lines, feasible ones as points, published lines and models beside."""
    series = prescribed(tables)
    styles = law_styles(tables.study)
    drawn = figure(4.9)
    grid = drawn.subplots(2, 3, sharex=True)
    fits = list(tables.prescriptions)
    ours = series[series["name"].isin(fits)]
    for axes, (column, (label, form)) in zip(grid.flat, PANELS.items(), strict=True):
        for (variant, name), rows in series.groupby(["series", "name"], sort=False):
            if rows[column].notna().any():
                axes.plot(rows["flops"], rows[column], **_look(str(variant), styles.get(str(name))))
            if variant == "relaxed" and rows[f"{column}_low"].notna().any():
                ends = (rows[f"{column}_low"], rows[f"{column}_high"])
                axes.fill_between(rows["flops"], *ends, color=styles[str(name)].color, **BAND)
        industry = series[series["series"] == "industry"]
        _limits(axes, pd.concat([ours[column], industry[column]]))
        axes.set_xlim(ours["flops"].min(), ours["flops"].max())
        log_axis(axes, "x", "power", most=5)
        log_axis(axes, "y", form, most=6)
        beyond_data(axes, tables.data_end())
        axes.set_ylabel(label)
    for axes in grid[-1]:
        axes.set_xlabel("training FLOPs")
    drawn.align_ylabels()
    legend_below(drawn, _handles(tables, series), columns=3 if len(fits) > 3 else 2)
    return Drawing(drawn, series)


def prescribed(tables: Tables) -> pd.DataFrame:
    """Everything drawn, one row per series, name and budget: `series` is a variant, reference or industry.

    Raises
    ------
    UserError
        If no fit of the figure has prescriptions.
    """
    if not tables.prescriptions:
        raise UserError(
            "figure of kind 'approach_3': none of its fits has prescriptions; list them under prescriptions.fits"
        )
    parts = [
        table[table["resource"] == "flops"].assign(series=table["variant"], name=name)
        for name, table in tables.prescriptions.items()
    ]
    flops = np.sort(np.unique(np.concatenate([table["flops"].to_numpy(float) for table in parts])))
    for name, optimum in REFERENCES.items():
        params = optimum(flops)
        tokens = flops / (6 * params)
        parts.append(
            pd.DataFrame(
                {"series": "published", "name": name, "flops": flops, "params": params, "tokens": tokens,
                 "tokens_per_param": tokens / params}
            )
        )  # fmt: skip
    industry = tables.others.get("industry")
    if industry is not None:
        models = with_budgets(industry)
        models = models[models["flops"].between(flops[0], flops[-1])]
        parts.append(
            models.assign(
                series="industry",
                tokens_per_param=models["tokens"] / models["params"],
                aspect_ratio=models["width"] / models["depth"],
            )
        )
    columns = ["series", "name", "flops", *PANELS, *(f"{panel}_{end}" for panel in PANELS for end in ("low", "high"))]
    parts = [part.reindex(columns=columns) for part in parts]
    series = pd.concat([part.astype(dict.fromkeys(columns[2:], float)) for part in parts], ignore_index=True)
    return series.assign(series=series["series"].where(series["series"] != "published", series["name"]))


def _look(series: str, style: Style | None) -> dict[str, Any]:
    if series == "industry":
        return dict(INDUSTRY)
    if series in REFERENCE:
        return REFERENCE[series]
    color, linestyle, marker = style or UNSTYLED
    if series == "relaxed":
        return {"color": color, "linestyle": linestyle, "linewidth": 1.4}
    if series == "feasible":
        return {
            "color": color,
            "marker": marker,
            "markersize": 2.6,
            "linestyle": "none",
            "alpha": 0.8,
            "markeredgewidth": 0,
        }
    return {"color": color, "linestyle": LINES[2], "linewidth": 1}


def _limits(axes: Axes, values: pd.Series) -> None:
    """The fits and the models decide the range: published lines may leave it."""
    values = values[values > 0].dropna()
    if len(values):
        axes.set_yscale("log")
        axes.set_ylim(values.min() / 1.6, values.max() * 1.6)


def _handles(tables: Tables, series: pd.DataFrame) -> list[Artist]:
    styles = law_styles(tables.study)
    handles: list[Artist] = [
        Line2D([], [], label=fit_label(name), **_look("relaxed", styles[name])) for name in tables.prescriptions
    ]
    present = set(series["series"])
    handles += [
        Line2D([], [], label=label, **_look(name, UNSTYLED)) for name, label in VARIANTS.items() if name in present
    ]
    if series["params_low"].notna().any():
        level = f"{tables.study.bootstrap.level:.0%} interval of the relaxed optimum"
        handles.append(Patch(label=level, color=GREY, **BAND | {"alpha": 0.3}))
    handles += [Line2D([], [], label=name, **REFERENCE[name]) for name in REFERENCES]
    if "industry" in present:
        handles.append(Line2D([], [], label="industry model", **INDUSTRY))
    return [*handles, beyond_handle()]
