"""Held-out errors of laws of several forms on the same rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from gemstones.figures.axes import legend_below, log_axis
from gemstones.figures.inputs import Tables
from gemstones.figures.output import Drawing
from gemstones.figures.style import GREY, MARKERS, PALETTE, UNSTYLED, Style, figure
from gemstones.laws.choice import COLUMNS

TESTS = {
    "leave_one_run_out": "each run left out",
    "small_to_large": "small → large",
    "short_to_long": "short → long",
}
FITTED = "fitted here"
ORIGINS = {FITTED: "", "Gemstones authors": " (authors)", "another suite": " (published)"}
ON_ALL_ROWS: dict[str, Any] = {"linestyle": "none", "marker": "|", "color": "black", "markersize": 7, "zorder": 3}


def draw_held_out(tables: Tables) -> Drawing:
    """A panel per test: mean absolute relative error of each law, by selection; hollow where nothing was fitted again.

    Laws that were fitted here stand in the order of their errors where runs are left out; the chosen form's name is bold.
    """
    compared = tables.needed("comparison")
    data = errors(compared)
    labels = list(dict.fromkeys(data.sort_values(["order", "place"], kind="stable")["label"]))
    selections = list(dict.fromkeys(data["selection"]))
    drawn = figure(1.3 + 0.27 * len(labels))
    panels = drawn.subplots(1, len(TESTS), sharex=True, sharey=True)
    shifts = np.linspace(-0.2, 0.2, len(selections)) if len(selections) > 1 else np.zeros(1)
    looks = [Style(color, "none", marker) for color, marker in zip(PALETTE, MARKERS, strict=False)]
    for axes, (test, title) in zip(panels, TESTS.items(), strict=True):
        for selection, shift, look in zip(selections, shifts, looks, strict=False):
            rows = data[(data["test"] == test) & (data["selection"] == selection)]
            y = np.array([labels.index(label) for label in rows["label"]]) + shift
            again = (rows["parameters_from"] == FITTED).to_numpy()
            error = rows["error_percent"].to_numpy()
            ends = error[again] + np.outer((-1, 1), rows.loc[again, "above_best_se_percent"])
            axes.hlines(y[again], np.maximum(ends[0], error[again] / 10), ends[1], color=look.color, linewidth=1)
            axes.plot(error[again], y[again], **look.points())
            axes.plot(error[~again], y[~again], **look.points(markerfacecolor="white"))
            axes.plot(rows["error_on_all_rows_percent"], y, **ON_ALL_ROWS)
        for edge in _edges(data, labels):
            axes.axhline(edge, color=GREY, linewidth=0.8)
        axes.grid(visible=False, axis="y")
        axes.set_title(title)
        axes.set_yticks(range(len(labels)), labels)
        axes.tick_params(axis="y", length=0)
    for text in panels[0].get_yticklabels():
        text.set_fontweight("bold" if text.get_text() == chosen_form(compared) else "normal")
    panels[0].set(ylim=(len(labels) - 0.5, -0.5), ylabel="law")
    log_axis(panels[0], "x", "plain", most=5)
    panels[1].set_xlabel("mean absolute error of the loss (%)")
    handles = [
        *(
            Line2D([], [], label=f"selection {name}", **look.points())
            for name, look in zip(selections, looks, strict=False)
        ),
        Line2D(
            [], [], label="fitted without the rows, ± SE", **(UNSTYLED.points() | {"linestyle": "-", "linewidth": 1})
        ),
        Line2D([], [], label="law as published", **UNSTYLED.points(markerfacecolor="white")),
        Line2D([], [], label="same law, all rows", **ON_ALL_ROWS),
    ]
    legend_below(drawn, handles, 3)
    return Drawing(drawn, data.drop(columns=["order", "place", "label"]))


def _edges(data: pd.DataFrame, labels: list[str]) -> list[float]:
    """Places between laws that were fitted here, by the authors and by others."""
    order = data.drop_duplicates("label").set_index("label").loc[labels, "order"].to_numpy()
    return [float(place) + 0.5 for place in np.flatnonzero(np.diff(order))]


def chosen_form(comparison: pd.DataFrame) -> str | None:
    """The simplest law within a standard error of the best by leaving out runs, on the first selection (:mod:`gemstones.laws.choice`)."""
    first = comparison[comparison["selection"] == comparison["selection"].iloc[0]]
    error, above, standard_error = COLUMNS
    near = first[(first["parameters_from"] == FITTED) & (first[above] <= first[standard_error].fillna(0))]
    return None if near.empty else str(near.sort_values(["parameters", error])["law"].iloc[0])


def _places(comparison: pd.DataFrame) -> dict[str, int]:
    """Laws that were fitted here from the lowest error to the highest, on the first selection that has them."""
    fitted = comparison[comparison["parameters_from"] == FITTED].drop_duplicates("law")
    return {law: place for place, law in enumerate(fitted.sort_values(COLUMNS[0], kind="stable")["law"])}


def errors(comparison: pd.DataFrame) -> pd.DataFrame:
    """One row per selection, law and test that gave an error, in percent."""
    parts = [
        comparison[["selection", "law", "parameters_from"]].assign(
            test=test,
            error_percent=100 * comparison[f"{test}_mean_absolute_error"],
            mean_error_percent=100 * comparison[f"{test}_mean_error"],
            above_best_percent=100 * comparison[f"{test}_above_best"],
            above_best_se_percent=100 * comparison[f"{test}_above_best_se"],
            error_on_all_rows_percent=100 * comparison["mean_absolute_error"],
            order=comparison["parameters_from"].map(list(ORIGINS).index),
            place=comparison["law"].map(_places(comparison)).where(comparison["parameters_from"] == FITTED, 0),
            label=comparison["law"] + comparison["parameters_from"].map(ORIGINS),
        )
        for test in TESTS
    ]
    found = pd.concat(parts, ignore_index=True)
    return found[found["error_percent"].notna()].reset_index(drop=True)
