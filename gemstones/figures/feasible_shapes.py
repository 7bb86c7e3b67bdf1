"""Every shape that the suite's rules allow, and which of them are trained (paper, Figure 22)."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.lines import Line2D

from gemstones.errors import UserError
from gemstones.figures.axes import human, legend_right
from gemstones.figures.inputs import Tables
from gemstones.figures.output import Drawing
from gemstones.figures.plane import finish
from gemstones.figures.style import GREY, PALETTE, figure

FEASIBLE: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 4, "markeredgewidth": 0}
RING: dict[str, Any] = {
    "color": "black",
    "linestyle": "none",
    "marker": "o",
    "markersize": 7,
    "markerfacecolor": "none",
}
PINNED: dict[str, Any] = {
    "color": PALETTE[1],
    "linestyle": "none",
    "marker": "D",
    "markersize": 5,
    "markeredgewidth": 0,
}


def draw_feasible_shapes(tables: Tables) -> Drawing:
    """Feasible shapes in their target's colour; rings round trained ones, and diamonds for those pinned off the targets."""
    shapes = tables.shapes
    if shapes.empty:
        raise UserError(
            "figure of kind 'feasible_shapes': the suite has no shape; name some under suite.targets or suite.pinned"
        )
    drawn = figure(4.8)
    axes = drawn.subplots()
    feasible = shapes[shapes["feasible"]]
    groups = list(feasible.groupby("target_params"))
    bands: list[Artist] = []
    for color, (target, members) in zip(_colors(len(groups)), groups, strict=True):
        axes.plot(members["width"], members["depth"], color=color, **FEASIBLE)
        label = f"{human(float(str(target)))}: {len(members)}"
        bands.append(Line2D([], [], color=color, label=label, **FEASIBLE))
    trained, pinned = shapes[shapes["selected"] & shapes["feasible"]], shapes[shapes["pinned"]]
    marks: list[Artist] = []
    for members, look, label in ((trained, RING, "feasible"), (pinned, PINNED, "pinned")):
        axes.plot(members["width"], members["depth"], **look)
        if len(members):
            marks.append(Line2D([], [], label=f"{label}: {len(members)}", **look))
    finish(axes, tables)
    line = Line2D([], [], color=GREY, linewidth=0.7, label="exactly there")
    legend_right(drawn, [("feasible shapes near", [*bands[::-1], line]), ("trained", marks)])
    columns = [
        "shape",
        "width",
        "depth",
        "params",
        "target",
        "target_params",
        "relative_error",
        "feasible",
        "selected",
        "pinned",
    ]
    counts = pd.DataFrame(
        [(target, len(members), int(members["selected"].sum())) for target, members in groups],
        columns=["target_params", "feasible_shapes", "selected"],
    )
    return Drawing(drawn, shapes[columns], {"Shapes by target": counts})


def _colors(count: int) -> list[tuple[float, float, float, float]]:
    """As models, from few parameters (dark) to many."""
    return [mpl.colormaps["viridis"](float(place)) for place in np.linspace(0, 0.92, count)]
