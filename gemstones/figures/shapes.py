"""Width against depth of what can be trained, what is trained, and industry models (paper, Figures 2 and 22)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.text import Text

from gemstones.errors import UserError
from gemstones.figures.axes import human, legend_right, log_axis
from gemstones.figures.inputs import Tables
from gemstones.figures.output import Drawing
from gemstones.figures.style import FONT, GREY, PALETTE, figure
from gemstones.suite import counting
from gemstones.suite.shapes import architecture

GROUPS: dict[str, dict[str, Any]] = {
    "feasible": {"color": "#B8B8B8", "marker": "o", "markersize": 2.5, "markeredgewidth": 0},
    "selected": {
        "color": PALETTE[0],
        "marker": "o",
        "markersize": 6,
        "markeredgecolor": "white",
        "markeredgewidth": 0.6,
    },
    "pinned": {
        "color": PALETTE[1],
        "marker": "D",
        "markersize": 5.5,
        "markeredgecolor": "white",
        "markeredgewidth": 0.6,
    },
    "industry": {"color": "black", "marker": "x", "markersize": 4.5, "markeredgewidth": 1},
}
LABELS = {
    "feasible": "feasible",
    "selected": "selected",
    "pinned": "selected: pinned",
    "industry": "industry model",
}


def draw_shapes(tables: Tables) -> Drawing:
    """Feasible, selected and pinned shapes on lines of equal parameters, one line per target."""
    points = shape_points(tables)
    drawn = figure(4.6)
    axes = drawn.subplots()
    for group, style in GROUPS.items():
        members = points[points["group"] == group]
        axes.plot(members["width"], members["depth"], linestyle="none", **style)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.margins(0.06)
    axes.autoscale_view()
    axes.set_xlabel("width")
    axes.set_ylabel("depth (layers)")
    low, high = axes.get_ylim()
    axes.set_ylim(low / (high / low) ** 0.08, high)  # room for the guides' labels below the shallowest shapes
    limits = axes.get_xlim(), axes.get_ylim()
    _guides(axes, tables)
    axes.set_xlim(limits[0])
    axes.set_ylim(limits[1])
    log_axis(axes, "x", "plain", most=9)
    log_axis(axes, "y", "plain", most=9)
    handles = [
        Line2D([], [], linestyle="none", label=LABELS[group], **style)
        for group, style in GROUPS.items()
        if (points["group"] == group).any()
    ]
    handles.append(Line2D([], [], color=GREY, linewidth=0.7, label="equal parameters\n(a target of the suite)"))
    numbers = _number_industry(axes, points)
    legend_right(drawn, [("shape", handles), *([("industry model", numbers)] if numbers else [])])
    return Drawing(drawn, points)


def shape_points(tables: Tables) -> pd.DataFrame:
    """Every drawn point: `group` (feasible, selected, pinned, industry), `name`, `width`, `depth`, `params`, `target`.

    Raises
    ------
    UserError
        If the table of shapes is empty.
    """
    shapes = tables.shapes
    if shapes.empty:
        raise UserError(
            "figure of kind 'shapes': the suite has no shape; name some under suite.targets or suite.pinned"
        )
    group = np.where(shapes["pinned"], "pinned", np.where(shapes["selected"], "selected", "feasible"))
    points = shapes.rename(columns={"shape": "name"}).assign(group=group)
    parts = [points[["group", "name", "width", "depth", "params", "target"]]]
    industry = tables.others.get("industry")
    if industry is not None:
        columns = ["group", "name", "width", "depth", "params"]
        parts.append(industry.assign(group="industry")[columns])
    order = {name: place for place, name in enumerate(GROUPS)}
    return pd.concat(parts, ignore_index=True).sort_values(
        ["group", "params", "name"],
        key=lambda column: column.map(order) if column.name == "group" else column,
        ignore_index=True,
    )


def _guides(axes: Axes, tables: Tables) -> None:
    """Depth at which each width has a target's parameters, labelled near the lower end of each line."""
    arch = architecture(tables.study.suite)
    step = 2 * arch.head_size
    known = np.array([step, 2 * step, 3 * step])
    # Parameters are quadratic in the width where the heads come out even, so three widths give them for all.
    base = np.polyfit(known, [counting.params(int(width), 0, arch) for width in known], 2)
    whole = np.polyfit(known, [counting.params(int(width), 1, arch) for width in known], 2)
    widths = np.geomspace(*axes.get_xlim(), 400)
    low, high = axes.get_ylim()
    for target in tables.study.suite.targets.values():
        depths = (target - np.polyval(base, widths)) / np.polyval(whole - base, widths)
        axes.plot(widths, np.where(depths > 0, depths, np.nan), color=GREY, linewidth=0.7, alpha=0.7, zorder=1)
        inside = np.flatnonzero((depths < high) & (depths > low * 1.12) & (widths < axes.get_xlim()[1] * 0.97))
        if len(inside):
            place = inside[-1]
            axes.annotate(
                human(target), (float(widths[place]), float(depths[place])), xytext=(-3, 0), textcoords="offset points",
                color="#404040", va="center", ha="right", bbox={"color": "white", "pad": 0.5}, zorder=1.5,
            )  # fmt: skip


def _number_industry(axes: Axes, points: pd.DataFrame) -> list[Line2D]:
    """Number the industry models and give the legend's entries; models that share a shape share a number."""
    industry = points[points["group"] == "industry"]
    if industry.empty:
        return []
    from adjustText import adjust_text

    texts: list[Text] = []
    handles = []
    shapes = industry.groupby(["width", "depth"], sort=False)["name"].agg(list).reset_index()
    for number, shape in enumerate(shapes.itertuples(), start=1):
        texts.append(axes.text(shape.width, shape.depth, str(number), fontsize=FONT))
        names = [str(name).removesuffix("-hf") for name in shape.name]
        handles.append(Line2D([], [], linestyle="none", label=f"{number}  " + ",\n     ".join(names)))
    adjust_text(
        texts, x=industry["width"].to_numpy(float), y=industry["depth"].to_numpy(float), ax=axes, iter_lim=100,
        expand=(1.25, 1.45),
        arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.5},
    )  # fmt: skip
    return handles
