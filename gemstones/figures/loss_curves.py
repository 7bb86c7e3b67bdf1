"""Validation loss of every run against FLOPs and against tokens (paper, Figure 23)."""

from __future__ import annotations

from gemstones.figures.axes import Form, label_ends, legend_below, log_axis, loss_axis
from gemstones.figures.inputs import Tables
from gemstones.figures.output import Drawing
from gemstones.figures.style import aspect_handles, figure, model_styles, shape_names

PANELS: dict[str, tuple[str, Form]] = {"flops": ("training FLOPs", "power"), "tokens": ("training tokens", "count")}
DRAWN = ["run", "phase", "width", "depth", "params", "step", "tokens", "flops", "loss"]


def draw_loss_curves(tables: Tables) -> Drawing:
    """One line per run of the selection, by default the main runs; the same losses in both panels."""
    rows = tables.rows() if tables.figure.selection else tables.phase("main")
    rows = rows[rows["run"].notna()].sort_values(["params", "run", "tokens"], ignore_index=True)
    rows = rows.assign(shape=shape_names(rows))
    styles = model_styles(tables)
    drawn = figure(4.4)
    panels = drawn.subplots(1, 2, sharey=True)
    for axes, (column, (label, form)) in zip(panels, PANELS.items(), strict=True):
        for _, run in rows.groupby("run", sort=False):
            style = styles[run["shape"].iloc[0]]
            marker = style.marker if len(run) == 1 else None
            axes.plot(run[column], run["loss"], marker=marker, **style.line(linewidth=1))
        axes.set_xlabel(label)
        log_axis(axes, "x", form, most=5)
    loss_axis(panels[0])
    panels[1].set_xlim(right=rows["tokens"].max())
    last = rows.sort_values("tokens").groupby("shape")["loss"].last()
    label_ends(panels[1], {str(shape): float(loss) for shape, loss in last.items()}, styles)
    legend_below(drawn, aspect_handles(tables), columns=3)
    return Drawing(drawn, rows[DRAWN].rename(columns={"loss": "loss_nats_per_token"}))
