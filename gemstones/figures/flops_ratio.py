"""FLOPs per token over 6N by width and depth: how far the usual estimate is off (paper, Figure 24)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.lines import Line2D
from matplotlib.path import Path
from numpy.typing import NDArray

from gemstones.errors import UserError
from gemstones.figures.axes import legend_below
from gemstones.figures.inputs import Tables
from gemstones.figures.output import Drawing
from gemstones.figures.plane import finish, name_points, params_by_width
from gemstones.figures.style import FONT, figure
from gemstones.suite import counting
from gemstones.suite.shapes import architecture

Floats = NDArray[np.float64]

LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0)
NEAR = 0.07  # of the axes' side
COLORS = "RdBu_r"  # diverging: blue below 1, red above
POINT: dict[str, Any] = {
    "marker": "o", "linestyle": "none", "markersize": 7, "markeredgecolor": "black", "markeredgewidth": 0.6, "zorder": 3,
}  # fmt: skip


def draw_flops_ratio(tables: Tables) -> Drawing:
    """Trained models with their ratio, on contours of the same formula."""
    shapes = tables.shapes[tables.shapes["selected"]]
    if shapes.empty:
        raise UserError(
            "figure of kind 'flops_ratio': no shape is trained; name some under suite.shapes or suite.pinned"
        )
    columns = ["shape", "width", "depth", "params", "flops_per_token"]
    shapes = shapes[columns].assign(flops_ratio=shapes["flops_per_token"] / (6 * shapes["params"]))
    shapes = shapes.sort_values(["params", "shape"], ignore_index=True)
    far = float(np.exp(np.abs(np.log(shapes["flops_ratio"])).max())) * 1.02
    norm = LogNorm(1 / far, far)
    drawn = figure(4.8)
    axes = drawn.subplots()
    colors = mpl.colormaps[COLORS](norm(shapes["flops_ratio"].to_numpy(float)))
    for shape, color in zip(shapes.itertuples(), colors, strict=True):
        axes.plot(shape.width, shape.depth, color=color, **POINT)
    finish(axes, tables, targets=False)
    limits = axes.get_xlim(), axes.get_ylim()
    arch = architecture(tables.study.suite)
    width, depth = np.meshgrid(np.geomspace(*limits[0], 120), np.geomspace(*limits[1], 120))
    base, per_layer = params_by_width(width, arch)
    flops = counting.flops_per_token(width, depth, arch)  # type: ignore[arg-type]  # elementwise
    ratio = flops / (6 * (base + depth * per_layer))
    lines = axes.contour(
        width, depth, ratio, levels=LEVELS, colors="#9A9A9A", linewidths=[1.6 if level == 1 else 0.7 for level in LEVELS],
        zorder=1,
    )  # fmt: skip
    handles = [
        Line2D([], [], label="equal ratio (1: as 6N)", color="#9A9A9A", linewidth=0.9),
        *(
            Line2D([], [], label=label, color=mpl.colormaps[COLORS](place), **POINT)
            for label, place in (("below 6N", 0.15), ("above 6N", 0.85))
        ),
    ]
    legend_below(drawn, handles, columns=3)
    points = shapes[["width", "depth"]].to_numpy(float)
    name_points(
        drawn, axes, [(shape.width, shape.depth, f"{shape.flops_ratio:.3f}") for shape in shapes.itertuples()], points
    )
    at = free_places(axes, lines.get_paths(), points)
    axes.clabel(lines, fmt="{:g}".format, fontsize=FONT, colors="#6E6E6E", manual=at)
    return Drawing(drawn, shapes)


def free_places(axes: Axes, paths: Sequence[Path], points: Floats) -> list[tuple[float, float]]:
    """For each path the place inside the axes that is farthest from the points and their names, unless all are near."""
    to_axes = axes.transScale + axes.transLimits
    taken = to_axes.transform(points)
    taken = np.concatenate([taken, taken + np.array([0.06, 0]), taken - np.array([0.06, 0])])
    found = []
    for path in paths:
        places = to_axes.transform(np.asarray(path.vertices, dtype=float).reshape(-1, 2))
        places = places[((places > 0.06) & (places < 0.94)).all(axis=1)]
        distances = np.linalg.norm(places[:, None] - taken[None], axis=-1).min(axis=1)
        if (distances > NEAR).any():
            place = places[distances.argmax()]
            taken = np.concatenate([taken, [place]])
            found.append(tuple(to_axes.inverted().transform(place)))
    return found
