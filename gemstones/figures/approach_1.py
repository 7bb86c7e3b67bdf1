"""Approach 1: the frontier of the losses and the lines through its points (paper, Figures 4, 9, 10 and 11)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gemstones.errors import UserError
from gemstones.figures.axes import legend_right, log_axis, loss_axis
from gemstones.figures.inputs import Tables
from gemstones.figures.output import Drawing
from gemstones.figures.published import chinchilla_params
from gemstones.figures.style import (
    GREY,
    REFERENCE,
    UNSTYLED,
    WIDTH,
    Style,
    figure,
    fit_label,
    model_styles,
    shape_names,
)
from gemstones.laws.hull import HullFit

RESOURCES = {"flops": "training FLOPs", "gpu_hours": "GPU-hours"}
SYMBOLS = {"flops": "C", "gpu_hours": "H"}
QUANTITIES = {
    "params": ("optimal parameters", "N^*"),
    "tokens": ("optimal tokens", "T^*"),
    "tokens_per_param": ("tokens per parameter", "T^*/N^*"),
}
COUNTS = {"params_no_embeddings": "\n(no embeddings)", "params_no_input_embedding": "\n(no input embedding)"}


def draw_approach_1(tables: Tables) -> Drawing:
    """A column of panels per fit (a square of them for one fit): losses and frontier, then what the frontier prescribes."""
    fits = hull_fits(tables)
    styles = model_styles(tables)
    drawn, panels = _panels(len(fits))
    parts, on_frontier = [], set()
    for (name, law), axes in zip(fits.items(), panels, strict=True):
        rows = frontier_rows(tables, name, law)
        hull = rows[rows["on_hull"]]
        parts.append(rows.assign(fit=name))
        on_frontier |= set(hull["shape"].dropna())
        axes[0].set_title(fit_label(name))
        _losses(axes[0], rows, law, styles)
        for panel, quantity in zip(axes[1:], QUANTITIES, strict=True):
            _line(panel, hull, law, quantity, styles)
        for place, panel in enumerate(axes):
            log_axis(panel, "x", *(("power", 5) if law.resource == "flops" else ("count", 4)))
            if len(fits) == 1 or place == len(axes) - 1:
                panel.set_xlabel(RESOURCES[law.resource])
            else:
                panel.tick_params(labelbottom=False)
    for row in zip(*panels, strict=True):
        _share_y(list(row))
    _label(panels, {law.param_count for law in fits.values()})
    drawn.align_ylabels()
    models = [Line2D([], [], label=name, **styles[name].points()) for name in reversed(styles) if name in on_frontier]
    legend_right(drawn, [("lines", _handles(fits)), ("on the frontier", models)])
    columns = ["fit", "run", "step", "flops", "gpu_hours", "params", "tokens", "tokens_per_param", "loss", "on_hull"]
    data = pd.concat(parts, ignore_index=True)[columns].rename(columns={"loss": "loss_nats_per_token"})
    return Drawing(drawn, data, {"Lines: log y = slope · log resource + intercept": lines_table(fits)})


def hull_fits(tables: Tables) -> dict[str, HullFit]:
    """The figure's Approach 1 fits; UserError where it has others or none."""
    wrong = [name for name, law in tables.laws.items() if not isinstance(law, HullFit)]
    if wrong or not tables.laws:
        raise UserError(
            f"figure of kind '{tables.figure.kind}': needs Approach 1 fits, has {', '.join(wrong) or 'none'}"
        )
    return {name: law for name, law in tables.laws.items() if isinstance(law, HullFit)}


def frontier_rows(tables: Tables, name: str, law: HullFit) -> pd.DataFrame:
    """Rows of the fit's selection, by run and resource, with `shape`, `tokens_per_param` and `on_hull`.

    `params` is the fit's own count.
    """
    rows = tables.rows(tables.study.fits[name].selection)
    corners = {(point.resource, point.loss) for point in law.hull}
    at = zip(rows[law.resource].astype(float), rows["loss"].astype(float), strict=True)
    rows = rows.assign(
        on_hull=[point in corners for point in at], shape=shape_names(rows), params=rows[law.param_count].astype(float)
    )
    rows["tokens_per_param"] = rows["tokens"] / rows["params"]
    return rows.sort_values(["params", "run", law.resource], ignore_index=True)


def lines_table(fits: dict[str, HullFit]) -> pd.DataFrame:
    """One row per fit and quantity, with the line's slope and intercept and the number of hull points."""
    rows = [
        (name, law.selection, law.resource, law.param_count, quantity, line.slope, line.intercept, law.hull_size)
        for name, law in fits.items()
        for quantity, line in law.lines.items()
    ]
    columns = ["fit", "selection", "resource", "param_count", "quantity", "slope", "intercept", "hull_points"]
    return pd.DataFrame(rows, columns=columns)


def _panels(fits: int) -> tuple[Figure, list[list[Axes]]]:
    """Four axes per fit, in the order losses, params, tokens, tokens per parameter."""
    if fits == 1:
        drawn = figure(4.8)
        return drawn, [list(drawn.subplots(2, 2).flat)]
    drawn = figure(7.0, max(WIDTH, 2.4 * fits + 1.2))
    grid = drawn.subplots(4, fits, height_ratios=[1.7, 1, 1, 1])
    return drawn, [list(column) for column in grid.T]


def _losses(axes: Axes, rows: pd.DataFrame, law: HullFit, styles: dict[str, Style]) -> None:
    for _, run in rows.groupby("run", sort=False, dropna=False):
        style = styles.get(str(run["shape"].iloc[0]), UNSTYLED)
        if len(run) > 1 and pd.notna(run["run"].iloc[0]):
            axes.plot(run[law.resource], run["loss"], color=style.color, linewidth=0.6, alpha=0.6)
        else:
            axes.plot(
                run[law.resource],
                run["loss"],
                linestyle="none",
                marker=".",
                markersize=2.5,
                color=style.color,
                alpha=0.6,
            )
    frontier = [(point.resource, point.loss) for point in law.hull]
    axes.plot(*zip(*frontier, strict=True), color="black", linewidth=1)
    _hull_points(axes, rows[rows["on_hull"]], law, "loss", styles)


def _line(axes: Axes, hull: pd.DataFrame, law: HullFit, quantity: str, styles: dict[str, Style]) -> None:
    """Hull points of one quantity, the line through them, and Chinchilla's where the resource is FLOPs."""
    line, (_, symbol) = law.lines[quantity], QUANTITIES[quantity]
    resource = np.geomspace(hull[law.resource].min(), hull[law.resource].max(), 50)
    if law.resource == "flops":
        params = chinchilla_params(resource)
        tokens = resource / (6 * params)
        axes.plot(
            resource,
            {"params": params, "tokens": tokens, "tokens_per_param": tokens / params}[quantity],
            **REFERENCE["Chinchilla"],
        )
    axes.plot(resource, line.predict(resource), color="#D55E00", linewidth=1.4)
    _hull_points(axes, hull, law, quantity, styles)
    power = f"${symbol} \\propto {SYMBOLS[law.resource]}^{{{line.slope:.3f}}}$"
    axes.set_title(power, loc="right", fontsize=8, pad=3)


def _hull_points(axes: Axes, hull: pd.DataFrame, law: HullFit, column: str, styles: dict[str, Style]) -> None:
    for shape, points in hull.groupby("shape", sort=False, dropna=False):
        style = styles.get(str(shape), UNSTYLED)
        axes.plot(
            points[law.resource], points[column], **style.points(markeredgecolor="black", markeredgewidth=0.5), zorder=3
        )


def _share_y(panels: list[Axes]) -> None:
    """Equal limits in a row of panels."""
    for panel in panels:
        panel.set_yscale("log")
    limits = [panel.get_ylim() for panel in panels]
    for panel in panels:
        panel.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))


def _label(panels: list[list[Axes]], param_counts: set[str]) -> None:
    """Scales and labels of the y axes; only the first fit's panels are labelled."""
    for place, axes in enumerate(panels):
        loss_axis(axes[0], "validation loss\n(nats/token)" if place == 0 else "")
        for panel, (quantity, (label, _)) in zip(axes[1:], QUANTITIES.items(), strict=True):
            log_axis(panel, "y", most=5)
            count = COUNTS.get(min(param_counts), "") if quantity == "params" and len(param_counts) == 1 else ""
            panel.set_ylabel(label + count if place == 0 else "")


def _handles(fits: dict[str, HullFit]) -> list[Line2D]:
    handles = [
        Line2D([], [], color=GREY, linewidth=0.6, label="run"),
        Line2D([], [], color="black", linewidth=1, label="frontier"),
        Line2D([], [], color="#D55E00", linewidth=1.4, label="fitted line"),
    ]
    if any(law.resource == "flops" for law in fits.values()):
        handles.append(Line2D([], [], label="Chinchilla", **REFERENCE["Chinchilla"]))
    return handles
