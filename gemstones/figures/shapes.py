"""Width against depth of what is trained and of industry models (paper, Figure 2)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from gemstones.errors import UserError
from gemstones.figures.axes import legend_right
from gemstones.figures.inputs import Tables
from gemstones.figures.output import Drawing
from gemstones.figures.plane import finish, name_points
from gemstones.figures.style import GREY, figure, model_styles

INDUSTRY: dict[str, Any] = {
    "color": "black",
    "marker": "x",
    "markersize": 4.5,
    "markeredgewidth": 1,
    "linestyle": "none",
}


def draw_shapes(tables: Tables) -> Drawing:
    """Trained shapes in the marks that they have in every figure, named, and industry models, numbered."""
    points = shape_points(tables)
    styles = model_styles(tables)
    drawn = figure(4.6)
    axes = drawn.subplots()
    industry, trained = points[points["group"] == "industry"], points[points["group"] != "industry"]
    axes.plot(industry["width"], industry["depth"], **INDUSTRY)
    for shape in trained.itertuples():
        look = styles[str(shape.name)].points(markersize=6, markeredgecolor="white", markeredgewidth=0.5)
        axes.plot(shape.width, shape.depth, **look, zorder=2.5)
    finish(axes, tables)
    numbers = _numbers(industry)
    handles = [
        Line2D([], [], color=GREY, marker="o", linestyle="none", markersize=6, label="trained"),
        Line2D([], [], color=GREY, linewidth=0.7, label="equal parameters\n(a target of the suite)"),
    ]
    groups = [("shape", handles)]
    if numbers:
        handles.insert(1, Line2D([], [], label="industry model", **INDUSTRY))
        entries = [Line2D([], [], linestyle="none", label=f"{number}  {names}") for *_, number, names in numbers]
        groups.append(("industry model", entries))
    legend_right(drawn, groups)
    names = [(float(shape.width), float(shape.depth), str(shape.name)) for shape in trained.itertuples()]
    marks = points[["width", "depth"]].to_numpy(float)
    name_points(drawn, axes, [*((width, depth, number) for width, depth, number, _ in numbers), *names], marks)
    return Drawing(drawn, points)


def shape_points(tables: Tables) -> pd.DataFrame:
    """Every drawn point: `group` (selected, pinned, industry), `name`, `width`, `depth`, `params`, `target`.

    Raises
    ------
    UserError
        If no shape is trained.
    """
    shapes = tables.shapes[tables.shapes["selected"]]
    if shapes.empty:
        raise UserError(
            "figure of kind 'shapes': the suite has no shape; name some under suite.shapes, aspect_ratios or pinned"
        )
    points = shapes.rename(columns={"shape": "name"}).assign(group=np.where(shapes["pinned"], "pinned", "selected"))
    columns = ["group", "name", "width", "depth", "params"]
    parts = [points[[*columns, "target"]].sort_values(["params", "name"])]
    industry = tables.others.get("industry")
    if industry is not None:
        parts.append(industry.assign(group="industry")[columns].sort_values(["params", "name"]))
    return pd.concat(parts, ignore_index=True)


def _numbers(industry: pd.DataFrame) -> list[tuple[float, float, str, str]]:
    """Width, depth, number and names of industry models; those that share a shape share a number."""
    if industry.empty:
        return []
    shapes = industry.groupby(["width", "depth"], sort=False)["name"].agg(list).reset_index()
    return [
        (shape.width, shape.depth, str(number), ",\n     ".join(str(name).removesuffix("-hf") for name in shape.name))
        for number, shape in enumerate(shapes.itertuples(), start=1)
    ]
