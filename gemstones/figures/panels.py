"""A panel a task, with a key in the corner that they leave free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gemstones.figures.style import Style, figure

COLUMNS = 4
CHANCE: dict[str, Any] = {"color": "black", "linestyle": (0, (1, 1.5)), "linewidth": 1.2}
KEY_PLACES = 16  # a key of fewer models is no wider than one of so many, and stands at the left
KEY_HEIGHT = 5.0  # of the key's y axis: models' marks reach from 0 to 1, and others have lines of text above


def task_panels(tasks: Sequence[str]) -> tuple[Figure, list[Axes], Axes]:
    """A figure with a titled panel for each task, all of one x axis, and axes for the key, at least two panels wide."""
    rows = -(-(len(tasks) + 2) // COLUMNS)
    drawn = figure(0.4 + 1.75 * rows)
    grid = drawn.add_gridspec(rows, COLUMNS)
    panels: list[Axes] = []
    for i, task in enumerate(tasks):
        axes = drawn.add_subplot(grid[divmod(i, COLUMNS)], sharex=panels[0] if panels else None)
        axes.set_title(task)
        panels.append(axes)
    return drawn, panels, drawn.add_subplot(grid[rows - 1, len(tasks) % COLUMNS :])


def label_bottom(panels: Sequence[Axes], label: str) -> None:
    """Name the x axis of the lowest panel of each column, and hide the others' numbers."""
    for i, axes in enumerate(panels):
        lowest = i + COLUMNS >= len(panels)
        axes.tick_params(labelbottom=lowest)
        axes.set_xlabel(label if lowest else "")


def draw_key(axes: Axes, styles: Mapping[str, Style], *, markers: bool = False) -> None:
    """Every model's line, or marker, above its name, from small to large: a legend of many models in little room."""
    for i, style in enumerate(styles.values()):
        if markers:
            axes.plot(i, 0.5, **style.points(markersize=5))
        else:
            axes.plot([i, i], [0, 1], **style.line(linewidth=1.5))
    axes.set_xticks(range(len(styles)), list(styles), rotation=90)
    axes.set(yticks=[], ylim=(0, KEY_HEIGHT), xlim=(-0.7, max(len(styles), KEY_PLACES) - 0.3))
    axes.set_xlabel("model, width×depth", loc="left" if len(styles) < KEY_PLACES else "center")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
