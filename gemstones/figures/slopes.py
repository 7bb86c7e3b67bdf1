"""Slopes of the optimal parameters and irreducible losses of all fits, with intervals and as published."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from gemstones.figures.axes import legend_below, scientific
from gemstones.figures.inputs import Tables
from gemstones.figures.output import Drawing
from gemstones.figures.published import KAPLAN_EXPONENT
from gemstones.figures.style import HULL, MARKERS, PALETTE, REFERENCE, RING, SPARE, figure
from gemstones.laws.power_law import CHINCHILLA

PANELS = {"slope": "slope a of N* ∝ Cᵃ", "irreducible_loss": "irreducible loss E (nats/token)"}
COUNTS = {
    "params": "",
    "params_no_input_embedding": ", no input emb.",
    "params_no_embeddings": ", no emb.",
}


def draw_slopes(tables: Tables) -> Drawing:
    """Two panels of dots with intervals, a line a selection, under the form of the law; fits that differ in delta share a line."""
    data = places(tables)
    deltas = sorted(data["huber_delta"].dropna().unique()) or [None]
    looks: dict[Any, dict[str, Any]] = {
        delta: {"color": color, "marker": marker}
        for delta, color, marker in zip(deltas, (PALETTE[0], *PALETTE[SPARE:]), MARKERS, strict=False)
    }
    hull: dict[str, Any] = {"color": PALETTE[HULL], "marker": "D"}
    height = data["place"].max()
    drawn = figure(0.168 * height + 1.4)
    panels = drawn.subplots(1, 2, sharey=True)
    for axes, (column, label) in zip(panels, PANELS.items(), strict=True):
        for row in data[data[column].notna()].to_dict("records"):
            look = hull if row["approach"] == 1 else looks[row["huber_delta"]]
            y = row["place"] + _shift(row, deltas)
            axes.plot([row[f"{column}_low"], row[f"{column}_high"]], [y, y], color=look["color"], linewidth=1)
            axes.plot(row[column], y, markersize=3, markeredgewidth=0, linestyle="none", **look)
            axes.plot(row[f"{column}_published"], y, **RING)
        axes.set_xlabel(label)
        axes.tick_params(axis="y", length=0)
        _within(axes, data, column)
    panels[0].axvline(CHINCHILLA.allocation().a, **REFERENCE["Chinchilla"], zorder=0)
    panels[0].axvline(KAPLAN_EXPONENT, **REFERENCE["Kaplan"], zorder=0)
    heads = data.drop_duplicates("form")
    labels = [*((row.place, row.selection) for row in data.drop_duplicates("place").itertuples())]
    labels += [(row.place - 1, row.form) for row in heads.itertuples()]
    labels.sort()
    panels[0].set_yticks(
        [place for place, _ in labels], [str(text).replace("_", " ").replace("120b", "120B") for _, text in labels]
    )
    panels[0].set_ylim(height + 0.7, -0.7)
    for text in panels[0].get_yticklabels():
        if text.get_text() in set(heads["form"]):
            text.set_fontweight("bold")
    names = [("Approach 1", hull)] * bool((data["approach"] == 1).any())
    names += [(f"Approach 3, δ = {scientific(delta)}", look) for delta, look in looks.items() if delta is not None]
    handles = [Line2D([], [], label=label, linewidth=1, markersize=3.5, **look) for label, look in names]
    if data[[f"{column}_published" for column in PANELS]].notna().any(axis=None):
        handles.append(Line2D([], [], label="as published", **RING))
    handles += [Line2D([], [], label=name, **look) for name, look in REFERENCE.items()]
    legend_below(drawn, handles, 3)
    return Drawing(drawn, data.drop(columns="place"))


def places(tables: Tables) -> pd.DataFrame:
    """Rows of the table of slopes that are drawn (the figure's fits, or all), with `form` and `place` from the top."""
    data = tables.needed("slopes")
    if tables.figure.fits:
        data = data[data["fit"].isin(tables.figure.fits)]
    data = data.assign(form=[_form(row) for row in data.to_dict("records")])
    place, found = 0, {}
    for form, rows in data.groupby("form", sort=False):
        place += 1  # the heading
        for selection in rows["selection"].drop_duplicates():
            found[form, selection] = place
            place += 1
    keys = zip(data["form"], data["selection"], strict=True)
    return data.assign(place=[found[key] for key in keys]).sort_values(["place", "huber_delta"], ignore_index=True)


def _shift(row: dict[str, Any], deltas: list[Any]) -> float:
    """Fits of several deltas lie about their line."""
    if row["approach"] == 1 or len(deltas) < 2:
        return 0.0
    return 0.44 * (deltas.index(row["huber_delta"]) / (len(deltas) - 1) - 0.5)


def _form(row: dict[str, Any]) -> str:
    if row["approach"] == 1:
        resource = {"flops": "FLOPs", "gpu_hours": "GPU-hours"}[row["resource"]]
        return f"A1 by {resource}{COUNTS[row['param_count']]}"
    return f"A3: {row['covariates']}{COUNTS[row['param_count']]}"


def _within(axes: Axes, data: pd.DataFrame, column: str) -> None:
    """The range of the values decides, and that of intervals as far as it is not much more."""
    values = data[column].dropna()
    if values.empty:
        return
    spread = max(values.max() - values.min(), 0.2)
    low = max(data[f"{column}_low"].min(), values.min() - spread)
    high = min(data[f"{column}_high"].max(), values.max() + spread)
    low, high = (min(low, values.min()) - 0.05 * spread, max(high, values.max()) + 0.05 * spread)
    axes.set_xlim(low, high)
