"""Validation loss of every run against tokens and against FLOPs (paper, Figure 23)."""

from __future__ import annotations

from gemstones.figures.axes import Form, legend_right, log_axis, loss_axis, model_handles
from gemstones.figures.inputs import Tables
from gemstones.figures.output import Drawing
from gemstones.figures.style import aspect_handles, figure, model_styles, shape_names

PANELS: dict[str, tuple[str, Form]] = {"tokens": ("training tokens", "count"), "flops": ("training FLOPs", "power")}
DRAWN = ["run", "phase", "width", "depth", "params", "step", "tokens", "flops", "loss"]


def draw_loss_curves(tables: Tables) -> Drawing:
    """One line per run of the selection, by default the main runs; the same losses in both panels."""
    rows = tables.rows() if tables.figure.selection else tables.phase("main")
    rows = rows[rows["run"].notna()].sort_values(["params", "run", "tokens"], ignore_index=True)
    rows = rows.assign(shape=shape_names(rows))
    styles = model_styles(tables)
    drawn = figure(4.2)
    panels = drawn.subplots(1, 2, sharey=True)
    for axes, (column, (label, form)) in zip(panels, PANELS.items(), strict=True):
        for _, run in rows.groupby("run", sort=False):
            style = styles[run["shape"].iloc[0]]
            marker = style.marker if len(run) == 1 else None
            axes.plot(run[column], run["loss"], marker=marker, **style.line(linewidth=1))
        axes.set_xlabel(label)
        log_axis(axes, "x", form, most=5)
    loss_axis(panels[0])
    names = list(rows["shape"].unique())
    legend_right(drawn, [("width×depth", model_handles(styles, names)), ("aspect ratio", aspect_handles(tables))])
    return Drawing(drawn, rows[DRAWN].rename(columns={"loss": "loss_nats_per_token"}))
