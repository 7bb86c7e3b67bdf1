"""The plane of width and depth, which figures of shapes share: its axes, and lines of equal parameters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Affine2D
from numpy.typing import NDArray

from gemstones.figures.axes import human, log_axis
from gemstones.figures.inputs import Tables
from gemstones.figures.style import FONT, GREY
from gemstones.suite import counting
from gemstones.suite.counting import Architecture
from gemstones.suite.shapes import architecture

Floats = NDArray[np.float64]

# Where a name may stand: offset in points, and the lower left corner relative to it in sizes of the name. Those that are far from
# their point have a line to it.
HALO = [withStroke(linewidth=2, foreground="white")]  # where a name lies on a line
RIGHT, LEFT, MIDDLE = (0, -0.5), (-1, -0.5), (-0.5, -0.5)
PLACES = np.array(
    [(6, 0, *RIGHT), (-6, 0, *LEFT)]
    + [(10, dy, *RIGHT) for dy in (4, -4, 8, -8)]
    + [(-10, dy, *LEFT) for dy in (4, -4, 8, -8)]
    + [(0, dy, *MIDDLE) for dy in (10, -10)]
    + [(dx, dy, *side) for dy in (12, -12, 16, -16, 20, -20) for dx, side in ((10, RIGHT), (-10, LEFT))]
)


def finish(axes: Axes, tables: Tables, *, targets: bool = True) -> None:
    """Logarithmic axes with room around what is drawn and, behind it, a line for each target; call it after drawing."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.margins(0.06)
    axes.autoscale_view()
    axes.set_xlabel("width")
    axes.set_ylabel("depth (layers)")
    low, high = axes.get_ylim()
    axes.set_ylim(low / (high / low) ** 0.08, high)  # room for the names of the targets
    limits = axes.get_xlim(), axes.get_ylim()
    if targets:
        _targets(axes, tables)
    axes.set_xlim(limits[0])
    axes.set_ylim(limits[1])
    log_axis(axes, "x", "plain", most=9)
    log_axis(axes, "y", "plain", most=9)


def params_by_width(widths: Floats, arch: Architecture) -> tuple[Floats, Floats]:
    """Parameters without layers and those of one layer, for real widths."""
    step = 2 * arch.head_size
    known = np.array([step, 2 * step, 3 * step])
    # Parameters are quadratic in the width where the heads come out even, so three widths give them for all.
    none, one = ([counting.params(int(width), depth, arch) for width in known] for depth in (0, 1))
    base, whole = (np.polyval(np.polyfit(known, counts, 2), widths) for counts in (none, one))
    return np.asarray(base), np.asarray(whole - base)


def _targets(axes: Axes, tables: Tables) -> None:
    """Depth at which each width has a target's parameters, named near the lower end of each line."""
    widths = np.geomspace(*axes.get_xlim(), 400)
    base, per_layer = params_by_width(widths, architecture(tables.study.suite))
    low, high = axes.get_ylim()
    for target in tables.study.suite.targets.values():
        depths = (target - base) / per_layer
        axes.plot(widths, np.where(depths > 0, depths, np.nan), color=GREY, linewidth=0.7, alpha=0.7, zorder=1)
        inside = np.flatnonzero((depths < high) & (depths > low * 1.12) & (widths < axes.get_xlim()[1] * 0.97))
        if len(inside):
            place = inside[-1]
            axes.annotate(
                human(target), (float(widths[place]), float(depths[place])), xytext=(-3, 0), textcoords="offset points",
                color="#404040", va="center", ha="right", bbox={"color": "white", "pad": 0.5}, zorder=1.5, fontsize=FONT,
            )  # fmt: skip


def name_points(figure: Figure, axes: Axes, names: Sequence[tuple[float, float, str]], marks: Floats) -> None:
    """Names beside their points: of several places around a point, the one that least covers marks and earlier names.

    Call it last, since it lays the figure out.

    Parameters
    ----------
    names : width, depth, text.
    marks : (n, 2) widths and depths that no name should cover.
    """
    figure.draw_without_rendering()
    to_points = axes.transData + Affine2D().scale(72 / figure.dpi)
    inside = axes.bbox.transformed(Affine2D().scale(72 / figure.dpi))
    centres = to_points.transform(marks)
    taken = np.concatenate([centres - 4, centres + 4], axis=1)  # as x0, y0, x1, y1 in points
    for width, depth, text in sorted(names, key=lambda name: (-name[1], name[0])):
        at = to_points.transform((width, depth))
        size = np.array([0.66 * FONT * len(text), 1.15 * FONT])
        corners = np.array([at + PLACES[:, :2] + PLACES[:, 2:] * size, at + PLACES[:, :2] + (PLACES[:, 2:] + 1) * size])
        boxes = np.concatenate([*corners], axis=1)
        sides = np.minimum(boxes[:, None, 2:], taken[None, :, 2:]) - np.maximum(boxes[:, None, :2], taken[None, :, :2])
        covered = np.clip(sides, 0, None).prod(axis=-1).sum(axis=1)
        outside = (boxes[:, :2] < np.asarray(inside.min)).any(axis=1) | (
            boxes[:, 2:] > np.asarray(inside.max) + 20
        ).any(axis=1)
        best = int((covered + 1e6 * outside).argmin())
        taken = np.concatenate([taken, boxes[best : best + 1]])
        offset = boxes[best].reshape(2, 2).mean(axis=0) - at
        far = abs(PLACES[best, 1]) >= 4 and PLACES[best, 2] != MIDDLE[0]
        axes.annotate(
            text, (width, depth), tuple(offset), textcoords="offset points", ha="center", va="center", fontsize=FONT, zorder=4, path_effects=HALO,
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.5, "shrinkA": 1, "shrinkB": 3} if far else None,
        )  # fmt: skip
