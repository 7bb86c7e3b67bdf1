"""Approach 1: the frontier of the losses and the lines through its points (paper, Figures 4, 9, 10 and 11)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from gemstones.figures.axes import SUPERSCRIPT, legend_right, log_axis, loss_axis
from gemstones.figures.hulls import FRONTIER, frontier_rows, hull_fits, plot_frontier, plot_runs, resource_axis
from gemstones.figures.inputs import Tables
from gemstones.figures.output import Drawing
from gemstones.figures.published import REFERENCES
from gemstones.figures.style import (
    HULL,
    PALETTE,
    REFERENCE,
    UNSTYLED,
    WIDTH,
    Style,
    aspect_handles,
    figure,
    fit_label,
    model_styles,
)
from gemstones.laws.hull import HullFit, Line, line_through
from gemstones.laws.uncertainty import Uncertainty, interval_name

Floats = NDArray[np.float64]

SYMBOLS = {"flops": "C", "gpu_hours": "H"}
QUANTITIES = {
    "params": ("optimal parameters", "N*"),
    "tokens": ("optimal tokens", "T*"),
    "tokens_per_param": ("tokens per parameter", "T*/N*"),
}
SMALL = ("tokens_per_param",)  # the quantities of `panels: small`
COUNTS = {"params_no_embeddings": "\n(no embeddings)", "params_no_input_embedding": "\n(no input embedding)"}
LINE, BINS = PALETTE[HULL], PALETTE[0]
BIN_POINTS: dict[str, Any] = {"color": BINS, "marker": ".", "linestyle": "none", "markersize": 1.6, "alpha": 0.45}
BIN_LINE: dict[str, Any] = {"color": BINS, "linestyle": (0, (6, 2)), "linewidth": 1.3}
DATA = [
    "fit",
    "run",
    "step",
    "flops",
    "gpu_hours",
    "params",
    "tokens",
    "tokens_per_param",
    "loss",
    "on_hull",
    "best_of_bin",
]


def draw_approach_1(tables: Tables) -> Drawing:
    """A column of panels per fit: losses and frontier, then what the frontier prescribes."""
    fits = hull_fits(tables)
    styles = model_styles(tables)
    quantities = SMALL if tables.figure.panels == "small" else tuple(QUANTITIES)
    drawn, panels = _panels(len(fits), len(quantities))
    parts, lines, on_frontier = [], [], set()
    for (name, law), axes in zip(fits.items(), panels, strict=True):
        rows = frontier_rows(tables, name, law)
        bins = bin_lines(rows, law) if tables.figure.binning else {}
        table = lines_table(tables, name, law, bins, int(rows["best_of_bin"].sum()))
        parts.append(rows.assign(fit=name))
        lines.append(table)
        on_frontier |= set(rows.loc[rows["on_hull"], "shape"].dropna())
        axes[0].set_title(fit_label(name), fontweight="bold")
        plot_runs(axes[0], rows, law, {shape: style.line(alpha=0.6) for shape, style in styles.items()})
        plot_frontier(axes[0], law)
        _points(axes[0], rows, law, "loss", styles, bool(bins))
        for panel, quantity in zip(axes[1:], quantities, strict=True):
            _points(panel, rows, law, quantity, styles, bool(bins))
            _lines(panel, tables, name, law, quantity, bins.get(quantity))
            _title(panel, table[table["quantity"] == quantity], law)
            if law.resource == "flops":
                _reference("Chinchilla", panel, law, quantity)
        for panel in axes:
            resource_axis(panel, law)
            panel.label_outer(remove_inner_ticks=False)
    for row in zip(*panels, strict=True):
        _share_y(list(row))
    _label(panels, quantities, {law.param_count for law in fits.values()})
    for law, axes in zip(fits.values(), panels, strict=True):
        # After the limits are set, which Kaplan's line may leave.
        for panel, quantity in zip(axes[1:], quantities if law.resource == "flops" else (), strict=False):
            _reference("Kaplan", panel, law, quantity)
    drawn.align_ylabels()
    models = [Line2D([], [], label=name, **styles[name].points()) for name in reversed(styles) if name in on_frontier]
    runs = [Line2D([], [], label="frontier", **FRONTIER), *aspect_handles(tables)]
    legend_right(drawn, [("losses", runs), ("on the frontier", models), ("lines", _handles(tables, fits, lines))])
    data = pd.concat(parts, ignore_index=True)[DATA].rename(columns={"loss": "loss_nats_per_token"})
    return Drawing(
        drawn, data, {"Lines: log y = slope · log resource + intercept": pd.concat(lines, ignore_index=True)}
    )


def bin_lines(rows: pd.DataFrame, law: HullFit) -> dict[str, Line]:
    """Lines through the best row of each bin, by quantity."""
    kept = rows[rows["best_of_bin"]]
    resource = kept[law.resource].to_numpy(float)
    return {quantity: line_through(resource, kept[quantity].to_numpy(float)) for quantity in QUANTITIES}


def lines_table(tables: Tables, name: str, law: HullFit, bins: dict[str, Line], kept: int) -> pd.DataFrame:
    """One row per method and quantity: the line's slope, with its interval, its intercept and the number of points."""
    uncertainty = _uncertainty(tables, name, law)
    rows = []
    for quantity, line in law.lines.items():
        low, high = (
            uncertainty.interval(uncertainty.resamples[f"slope_{quantity}"]) if uncertainty else (np.nan, np.nan)
        )
        rows.append(("frontier", quantity, line.slope, float(low), float(high), line.intercept, law.hull_size))
    for quantity, line in bins.items():
        rows.append(("bins", quantity, line.slope, np.nan, np.nan, line.intercept, kept))
    columns = ["method", "quantity", "slope", "slope_low", "slope_high", "intercept", "points"]
    same = {"fit": name, "selection": law.selection, "resource": law.resource, "param_count": law.param_count}
    return pd.DataFrame(rows, columns=columns).assign(**same)[[*same, *columns]]


def _panels(fits: int, quantities: int) -> tuple[Figure, list[list[Axes]]]:
    """Columns of axes, one per fit: losses, then the quantities."""
    drawn = figure(2.9 + 1.6 * quantities, max(WIDTH, 2.4 * fits + 1.6))
    grid = drawn.subplots(1 + quantities, fits, height_ratios=[1.7, *[1] * quantities], squeeze=False)
    return drawn, [list(column) for column in grid.T]


def _uncertainty(tables: Tables, name: str, law: HullFit) -> Uncertainty | None:
    """None where the fit has no resamples."""
    resamples = tables.resamples.get(name)
    if resamples is None or resamples.empty:
        return None
    return Uncertainty(law, resamples, tables.study.bootstrap.level)


def _span(law: HullFit) -> Floats:
    return np.geomspace(law.hull[0].resource, law.hull[-1].resource, 50)


def _lines(axes: Axes, tables: Tables, name: str, law: HullFit, quantity: str, bins: Line | None) -> None:
    """The line through the frontier's points with its band, and that of the bins."""
    resource = _span(law)
    uncertainty = _uncertainty(tables, name, law)
    if uncertainty:
        slopes, intercepts = (
            uncertainty.resamples[f"{part}_{quantity}"].to_numpy(float)[:, None] for part in ("slope", "intercept")
        )
        low, high = uncertainty.interval(np.exp(slopes * np.log(resource) + intercepts))
        axes.fill_between(resource, low, high, color=LINE, alpha=0.2, linewidth=0, zorder=1.5)
    if bins:
        axes.plot(resource, bins.predict(resource), **BIN_LINE)
    axes.plot(resource, law.lines[quantity].predict(resource), color=LINE, linewidth=1.5)


def _title(axes: Axes, lines: pd.DataFrame, law: HullFit) -> None:
    """The exponent with its interval, and that of the bins."""
    symbol, resource = QUANTITIES[lines["quantity"].iloc[0]][1], SYMBOLS[law.resource]
    for line in lines.itertuples():
        if line.method == "bins":
            axes.set_title(
                f"bins {line.slope:.2f}".replace("-", "−"), loc="right", color=BINS, fontsize="medium", pad=3
            )
        else:
            # Plain characters, since mathematical text takes much longer to draw.
            power = f"{symbol} ∝ {resource}" + f"{line.slope:.3f}".translate(SUPERSCRIPT)
            interval = f" ({line.slope_low:.2f}, {line.slope_high:.2f})"
            text = (power if np.isnan(line.slope_low) else power + interval).replace("-", "−")
            axes.set_title(text, loc="left", color="#A04000", fontsize="medium", pad=3)


def _points(axes: Axes, rows: pd.DataFrame, law: HullFit, column: str, styles: dict[str, Style], bins: bool) -> None:
    """Of the frontier, and of the bins where these are shown."""
    if bins:
        kept = rows[rows["best_of_bin"]]
        axes.plot(kept[law.resource], kept[column], **BIN_POINTS, zorder=1.2)
    for shape, points in rows[rows["on_hull"]].groupby("shape", sort=False, dropna=False):
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


def _label(panels: list[list[Axes]], quantities: Iterable[str], param_counts: set[str]) -> None:
    """Scales and labels of the y axes; only the first fit's panels are labelled."""
    for place, axes in enumerate(panels):
        loss_axis(axes[0], "validation loss\n(nats/token)" if place == 0 else "")
        for panel, quantity in zip(axes[1:], quantities, strict=True):
            log_axis(panel, "y", most=5)
            count = COUNTS.get(min(param_counts), "") if quantity == "params" and len(param_counts) == 1 else ""
            panel.set_ylabel(QUANTITIES[quantity][0] + count if place == 0 else "")
        if place:
            for panel in axes:
                panel.tick_params(labelleft=False)


def _reference(name: str, axes: Axes, law: HullFit, quantity: str) -> None:
    """A published law, which is about FLOPs."""
    flops = _span(law)
    params = REFERENCES[name](flops)
    tokens = flops / (6 * params)
    values = {"params": params, "tokens": tokens, "tokens_per_param": tokens / params}
    axes.plot(flops, values[quantity], **REFERENCE[name])


def _handles(tables: Tables, fits: dict[str, HullFit], lines: list[pd.DataFrame]) -> list[Artist]:
    handles: list[Artist] = [Line2D([], [], color=LINE, linewidth=1.5, label="frontier's line")]
    if any(table["slope_low"].notna().any() for table in lines):
        label = interval_name(next(iter(tables.laws.values())), tables.study.bootstrap.level)
        handles.append(Patch(color=LINE, alpha=0.2, linewidth=0, label=label))
    if tables.figure.binning:
        handles.append(Line2D([], [], label="best of a bin", **{**BIN_POINTS, "markersize": 5}))
        handles.append(Line2D([], [], label="bins' line", **BIN_LINE))
    if any(law.resource == "flops" for law in fits.values()):
        handles += [Line2D([], [], label=name, **REFERENCE[name]) for name in REFERENCES]
    return handles
