"""Approach 3: what the fitted laws prescribe for a budget (paper, Figures 5, 12 to 19 and 21)."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from gemstones.errors import UserError
from gemstones.figures.axes import Form, beyond_data, beyond_handles, legend_below, log_axis
from gemstones.figures.inputs import Tables
from gemstones.figures.output import Drawing
from gemstones.figures.published import REFERENCES, Floats, published_params, with_budgets
from gemstones.figures.style import GREY, REFERENCE, UNSTYLED, WIDTH, Style, figure, fit_label, law_styles
from gemstones.laws.hull import HullFit
from gemstones.study import Study

PANELS: dict[str, tuple[str, Form]] = {
    "aspect_ratio": ("width / depth", "plain"),
    "width": ("width", "count"),
    "depth": ("depth (layers)", "plain"),
    "tokens_per_param": ("tokens per parameter", "plain"),
    "params": ("parameters", "count"),
    "tokens": ("training tokens", "count"),
}
SMALL = ("aspect_ratio", "tokens_per_param")
BUDGETS = {"flops": "training FLOPs", "gpu_hours": "GPU-hours"}
# Of the tables of prescriptions; of laws of params and tokens, which know no shapes, the closed form alone is drawn.
VARIANTS = ("relaxed", "feasible", "reference")
# Inches of a legend's usual character, and of a handle with its gaps.
CHARACTER, HANDLE = 0.057, 0.55
BAND: dict[str, Any] = {"alpha": 0.15, "linewidth": 0, "zorder": 1}
EDGE: dict[str, Any] = {"linewidth": 0.8, "linestyle": (0, (1, 1)), "zorder": 1}
PUBLISHED: dict[str, Any] = {"linestyle": (0, (1, 1.5)), "linewidth": 1.1}
INDUSTRY: dict[str, Any] = {"color": GREY, "marker": "x", "markersize": 3.5, "linestyle": "none", "alpha": 0.8}
BUCKETS: dict[str, Any] = {
    "color": GREY, "marker": "o", "markersize": 4, "linestyle": "none", "markerfacecolor": "none", "markeredgewidth": 0.8,
}  # fmt: skip


def draw_approach_3(tables: Tables) -> Drawing:
    """Panels against the budget: relaxed optima as lines, feasible ones as points, Approach 1, published lines and models."""
    resource = tables.figure.resource
    series = prescribed(tables)
    styles = law_styles(tables.study)
    ours = series[series["name"].isin(tables.figure.fits)]
    alone = len(_with_shapes(tables)) == 1
    chosen = {name: form for name, form in PANELS.items() if tables.figure.panels == "full" or name in SMALL}
    chosen = {name: form for name, form in chosen.items() if ours[name].notna().any()}
    rows = -(-len(chosen) // 3)
    ends = tables.data_ends(resource)
    handles = [*_handles(tables.study, series, styles), *beyond_handles(ends)]
    columns = _columns(handles)
    drawn = figure(1.95 * rows + (0.75 if len(chosen) < 3 else 0) + 0.17 * -(-len(handles) // columns) + 0.35)
    grid = drawn.subplots(rows, min(3, len(chosen)), sharex=True, squeeze=False)
    for axes, (column, (label, form)) in zip(grid.flat, chosen.items(), strict=False):
        for (kind, name), part in series.groupby(["series", "name"], sort=False):
            known = part[part[column].notna()]
            if len(known):
                axes.plot(known[resource], known[column], **_look(str(kind), styles.get(str(name))))
            if kind == "relaxed" and part[f"{column}_low"].notna().any():
                _band(axes, part[resource], part[f"{column}_low"], part[f"{column}_high"], styles[str(name)], alone)
        _limits(axes, pd.concat([ours[column], series.loc[series["series"] == "industry", column]]))
        axes.set_xlim(ours[resource].min(), ours[resource].max())
        log_axis(axes, "x", "power", most=5)
        log_axis(axes, "y", form, most=6)
        beyond_data(axes, ends)
        axes.set_ylabel(label)
    for axes in grid.flat[len(chosen) :]:
        axes.remove()
    for axes in grid[-1]:
        axes.set_xlabel(BUDGETS[resource] + _nodes(tables))
    drawn.align_ylabels()
    legend_below(drawn, handles, columns)
    return Drawing(drawn, series)


def prescribed(tables: Tables) -> pd.DataFrame:
    """Everything drawn, one row per series, name and budget: `series` is a variant, closed_form, published, approach_1, a reference or industry.

    Raises
    ------
    UserError
        If no fit of the figure prescribes anything for such budgets, or one of them does not.
    """
    resource = tables.figure.resource
    found = {name: _of_prescriptions(tables, name) for name in _with_shapes(tables)}
    lines = [name for name in tables.laws if name not in found]
    low, high = tables.study.prescriptions.flops_range
    budgets = np.geomspace(low, high, tables.study.prescriptions.budgets)
    if resource == "gpu_hours":
        if not found:
            raise UserError("figure of kind 'approach_3': for GPU-hours it needs a fit among prescriptions.fits")
        budgets = np.unique(np.concatenate([table[resource].to_numpy(float) for table in found.values()]))
    parts = [*found.values(), *_published(tables, lines, budgets), *(_line(tables, name, budgets) for name in lines)]
    if not parts:
        raise UserError("figure of kind 'approach_3': none of its fits says what is optimal for a budget")
    if resource == "flops":
        for name, optimum in REFERENCES.items():
            params = optimum(budgets)
            parts.append(_row(name, name, resource, budgets, params, budgets / (6 * params)))
        industry = tables.others.get("industry")
        if industry is not None:
            models = with_budgets(industry)
            models = models[models["flops"].between(low, high)]
            ratios = {
                "tokens_per_param": models["tokens"] / models["params"],
                "aspect_ratio": models["width"] / models["depth"],
            }
            parts.append(models.assign(series="industry", **ratios))
    columns = ["series", "name", resource, *PANELS, *(f"{panel}_{end}" for panel in PANELS for end in ("low", "high"))]
    parts = [part.reindex(columns=columns).astype(dict.fromkeys(columns[2:], float)) for part in parts]
    return pd.concat(parts, ignore_index=True)


def _with_shapes(tables: Tables) -> list[str]:
    """Fits whose prescriptions have shapes: those with tables, unless their law knows parameters and tokens only."""
    blind = {name for name, fit in tables.study.fits.items() if fit.approach == 3 and fit.closed_form}
    return [name for name in tables.prescriptions if name not in blind]


def _of_prescriptions(tables: Tables, name: str) -> pd.DataFrame:
    """Variants of one fit; feasible shapes and the authors' buckets only of a single fit, since they would hide each other."""
    table = tables.prescriptions[name]
    table = table[table["resource"] == tables.figure.resource]
    variants = VARIANTS if len(_with_shapes(tables)) == 1 else VARIANTS[:1]
    table = table[table["variant"].isin(variants)]
    # In the order of drawing: the line lies over the points.
    order = table["variant"].map(list(reversed(VARIANTS)).index)
    table = table.assign(series=table["variant"], name=name, **{tables.figure.resource: table["budget"]})
    return table.iloc[np.argsort(order.to_numpy(), kind="stable")]


def _line(tables: Tables, name: str, budgets: Floats) -> pd.DataFrame:
    """Approach 1, or Hoffmann's closed form of a law of params and tokens."""
    law, resource = tables.laws[name], tables.figure.resource
    if isinstance(law, HullFit):
        if law.resource != resource or law.param_count != "params":
            raise UserError(
                f"figure of kind 'approach_3': {name} gives {law.param_count} by {law.resource}; wanted: params by {resource}"
            )
        found = law.predict(budgets)
        row = _row("approach_1", name, resource, budgets, found["params"], found["tokens"])
        return row.assign(tokens_per_param=found["tokens_per_param"])
    if law.law.param_count != "params" or resource != "flops":
        raise UserError(
            f"figure of kind 'approach_3': {name} has no closed form for all parameters by {resource}; wanted: a law of width and "
            "depth among prescriptions.fits"
        )
    if law.law.slope is None:
        logging.warning("approach_3: %s has an exponent at 0, so no closed form", name)
        return _row("closed_form", name, resource, budgets[:0], budgets[:0], budgets[:0])
    optimum = law.law.allocation()
    return _row("closed_form", name, resource, budgets, optimum.params(budgets), optimum.tokens(budgets))


def _published(tables: Tables, names: list[str], budgets: Floats) -> list[pd.DataFrame]:
    """The closed forms of the authors' own fits; their lines of Approach 1 are the same as ours."""
    table = tables.others.get("published")
    if table is None or tables.figure.resource != "flops":
        return []
    optima = {
        name: published_params(table.set_index("fit"), name, budgets)
        for name in names
        if not isinstance(tables.laws[name], HullFit)
    }
    return [
        _row("published", name, "flops", budgets, params, budgets / (6 * params))
        for name, params in optima.items()
        if np.isfinite(params).all()
    ]


def _row(series: str, name: str, resource: str, budgets: Floats, params: Floats, tokens: Floats) -> pd.DataFrame:
    columns = {resource: budgets, "params": params, "tokens": tokens, "tokens_per_param": tokens / params}
    return pd.DataFrame({"series": series, "name": name, **columns})


def _nodes(tables: Tables) -> str:
    """The nodes that GPU-hours are for."""
    if tables.figure.resource == "flops":
        return ""
    nodes = {int(n) for table in tables.prescriptions.values() for n in table["nodes"].dropna().unique()}
    return f" (on {' or '.join(map(str, sorted(nodes)))} nodes)" if nodes else ""


def _look(series: str, style: Style | None) -> dict[str, Any]:
    if series in ("industry", "reference"):
        return dict(INDUSTRY if series == "industry" else BUCKETS)
    if series in REFERENCE:
        return REFERENCE[series]
    color, linestyle, marker = style or UNSTYLED
    if series == "feasible":
        return {
            "color": color, "marker": marker, "markersize": 3.2, "linestyle": "none", "alpha": 0.75, "markeredgewidth": 0,
        }  # fmt: skip
    if series == "published":
        return {"color": color, **PUBLISHED}
    return {"color": color, "linestyle": linestyle, "linewidth": 1.5 if series == "relaxed" else 1.2}


def _band(axes: Axes, budgets: pd.Series, low: pd.Series, high: pd.Series, style: Style, alone: bool) -> None:
    """An interval; several have edges, since they hide each other."""
    axes.fill_between(budgets, low, high, color=style.color, **BAND if alone else BAND | {"alpha": 0.07})
    for end in () if alone else (low, high):
        axes.plot(budgets, end, color=style.color, **EDGE)


def _limits(axes: Axes, values: pd.Series) -> None:
    """The fits and the models decide the range: published lines and bands may leave it."""
    values = values[values > 0].dropna()
    if len(values):
        axes.set_yscale("log")
        axes.set_ylim(values.min() / 1.6, values.max() * 1.6)


def _columns(handles: list[Artist]) -> int:
    """Three columns of the legend where a page is wide enough for them."""
    long = [len(str(handle.get_label())) for handle in handles]
    rows = -(-len(handles) // 3)
    longest = [max(long[i : i + rows]) for i in range(0, len(long), rows)]
    return 3 if sum(longest) * CHARACTER + len(longest) * HANDLE <= WIDTH else 2


def _handles(study: Study, series: pd.DataFrame, styles: dict[str, Style]) -> list[Artist]:
    """The relaxed optimum with all that is its own, then the lines that it is compared with."""
    named = series[["series", "name"]].drop_duplicates()
    labels = {
        "relaxed": "{}, relaxed optimum",
        "feasible": "its feasible shapes",
        "reference": "its best of a bucket (authors' search)",
        "closed_form": "{}, C = 6NT",
        "published": "{}, as published",
        "approach_1": "{}",
    }
    handles: list[Artist] = []
    for kind, label in labels.items():
        for name in named.loc[named["series"] == kind, "name"]:
            handles.append(Line2D([], [], label=label.format(fit_label(name)), **_look(kind, styles[name])))
        if kind == "relaxed" and series["params_low"].notna().any():
            alone = len(handles) == 1
            # Of width/depth, these hold less often than their level says (docs/intervals.md).
            label = f"middle {100 * study.bootstrap.level:g} % of {'its' if alone else 'their'} resamples"
            band: dict[str, Any] = {"facecolor": styles[named["name"].iloc[0]].color if alone else GREY, "alpha": 0.3}
            edge: dict[str, Any] = {"linewidth": 0} if alone else {"edgecolor": "black", **EDGE}
            handles.append(Patch(label=label, **band, **edge))
    handles += [Line2D([], [], label=name, **REFERENCE[name]) for name in REFERENCES if name in set(named["series"])]
    if (named["series"] == "industry").any():
        handles.append(Line2D([], [], label="industry model", **INDUSTRY))
    return handles
