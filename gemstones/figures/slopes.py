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
from gemstones.figures.style import HULL, MARKERS, PALETTE, PLAIN, REFERENCE, RING, SPARE, figure, interacts
from gemstones.laws.power_law import CHINCHILLA

PANELS = {"slope": "slope a of N* ∝ Cᵃ", "irreducible_loss": "irreducible loss E (nats/token)"}
COUNTS = {
    "params": "",
    "params_no_input_embedding": ", no input emb.",
    "params_no_embeddings": ", no emb.",
}
APPROACH_1, INTERACTION = "Approach 1", ", interaction"


def draw_slopes(tables: Tables) -> Drawing:
    """Two panels of dots with intervals, a line a selection, under the form of the law.

    Fits that differ in delta, or in whether the covariates interact, share a line.
    """
    data = places(tables)
    looks = _looks(data)
    height = data["place"].max()
    drawn = figure((0.168 if len(looks) < 4 else 0.195) * height + 1.4)
    panels = drawn.subplots(1, 2, sharey=True)
    for axes, (column, label) in zip(panels, PANELS.items(), strict=True):
        for row in data[data[column].notna()].to_dict("records"):
            look = looks[row["look"]]
            y = row["place"] + _shift(row, list(looks))
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
    handles = [Line2D([], [], label=label, linewidth=1, markersize=3.5, **look) for label, look in looks.items()]
    if data[[f"{column}_published" for column in PANELS]].notna().any(axis=None):
        handles.append(Line2D([], [], label="as published", **RING))
    handles += [Line2D([], [], label=name, **look) for name, look in REFERENCE.items()]
    legend_below(drawn, handles, 3)
    beside = side_by_side(data)
    further = {"Additive laws, and the same with an interaction": beside} if len(beside) else {}
    return Drawing(drawn, data.drop(columns=["place", "look"]), further)


def side_by_side(data: pd.DataFrame) -> pd.DataFrame:
    """A row for each additive law that was fitted with an interaction, too, alike in all else: what is drawn of both."""
    alike = ["form", "selection", "huber_delta"]
    wanted = [f"{column}{end}" for column in PANELS for end in ("", "_low", "_high")]
    interacting = data["covariates"].str.split(", ").map(interacts)
    both = [data.loc[where, [*alike, "covariates", *wanted]] for where in (~interacting, interacting)]
    return both[0].merge(both[1], on=alike, suffixes=("", "_interaction")).drop(columns="form")


def _looks(data: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Of Approach 1, of Approach 3 by delta and, with an interaction, in colours of their own."""
    names = data["look"].drop_duplicates().sort_values(key=lambda name: name.map(len), kind="stable")
    colors = iter((PALETTE[0], *PALETTE[SPARE:]))
    interacting = iter(PALETTE[PLAIN:SPARE])
    markers = iter(MARKERS)
    looks: dict[str, dict[str, Any]] = {}
    for name in names:
        if name == APPROACH_1:
            looks[name] = {"color": PALETTE[HULL], "marker": "D"}
        elif name.endswith(INTERACTION):
            looks[name] = {"color": next(interacting), "marker": "v"}
        else:
            looks[name] = {"color": next(colors), "marker": next(markers)}
    return looks


def places(tables: Tables) -> pd.DataFrame:
    """Rows of the table of slopes that are drawn (the figure's fits, or all), with `form` and `place` from the top."""
    data = tables.needed("slopes")
    if tables.figure.fits:
        data = data[data["fit"].isin(tables.figure.fits)]
    rows = data.to_dict("records")
    data = data.assign(form=[_form(row) for row in rows], look=[_look(row) for row in rows])
    place, found = 0, {}
    for form, rows in data.groupby("form", sort=False):
        place += 1  # the heading
        for selection in rows["selection"].drop_duplicates():
            found[form, selection] = place
            place += 1
    keys = zip(data["form"], data["selection"], strict=True)
    return data.assign(place=[found[key] for key in keys]).sort_values(["place", "huber_delta"], ignore_index=True)


def _shift(row: dict[str, Any], looks: list[str]) -> float:
    """Fits of one selection lie about their line."""
    of_laws = [name for name in looks if name != APPROACH_1]
    if row["approach"] == 1 or len(of_laws) < 2:
        return 0.0
    return (0.44 if len(of_laws) == 2 else 0.6) * (of_laws.index(row["look"]) / (len(of_laws) - 1) - 0.5)


def _look(row: dict[str, Any]) -> str:
    """What the legend says of a fit."""
    if row["approach"] == 1:
        return APPROACH_1
    ending = INTERACTION if interacts(row["covariates"].split(", ")) else ""
    return f"Approach 3, δ = {scientific(row['huber_delta'])}{ending}"


def _form(row: dict[str, Any]) -> str:
    """What the figure groups by: of a product, as of `tokens*params`, its first factor stands for it."""
    if row["approach"] == 1:
        resource = {"flops": "FLOPs", "gpu_hours": "GPU-hours"}[row["resource"]]
        return f"A1 by {resource}{COUNTS[row['param_count']]}"
    additive = ", ".join(term.split("*")[0] for term in row["covariates"].split(", "))
    return f"A3: {additive}{COUNTS[row['param_count']]}"


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
