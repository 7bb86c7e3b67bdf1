"""Prescriptions as a page for the report: a row for each budget, with the columns that a person reads."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from gemstones.files import write_csv
from gemstones.prescriptions.search import UNITS
from gemstones.report import number, write_html_table

# Quantities of the relaxed optimum, each followed by its interval, with what they are divided by.
SHOWN = {
    "aspect_ratio": ("width/depth", 1), "params": ("1e9 parameters", 1e9), "tokens": ("1e9 tokens", 1e9),
    "tokens_per_param": ("tokens per parameter", 1), "loss": ("loss", 1), "run_loss": ("loss of a run", 1),
}  # fmt: skip
# What resamples hold less often than their level says, in simulated suites like the authors' (docs/intervals.md): no interval of that level.
LESS_OFTEN = ("width", "depth", "aspect_ratio", "loss")
# What the runs say of the relaxed optimum, of the columns that `with_verdicts` gives a table.
AGAINST = {
    "verdict": "verdict", "loss": "promised loss", "lowest_loss": "lowest loss of a run", "lowest_run": "run",
    "above_lowest": "promised above lowest, %", "deviation_low": "law off lowest and alike, % from", "deviation_high": "% to",
    "asked": "of them", "in_interval": "in its interval", "alike": "alike", "runs": "runs",
}  # fmt: skip


def write_page(
    table: pd.DataFrame,
    path: str | Path,
    csv: str | Path,
    name: str,
    level: float,
    growth: pd.DataFrame | None = None,
) -> None:
    """Write the prescriptions of one fit, a table for each resource, without columns that are empty.

    Parameters
    ----------
    table : as :func:`gemstones.prescriptions.study.prescriptions_of` gives it.
    path : of the page.
    csv : of the same rows in one table, the first column of which names that of the page.
    name : of the fit.
    level : of its intervals.
    growth : of depth with width (:func:`gemstones.prescriptions.depth_width.depth_width`).
    """
    heading = {"flops": "Budgets in FLOPs", "gpu_hours": "Budgets in GPU-hours"}
    tables = {
        heading[str(resource)]: page_table(rows, str(resource), level)
        for resource, rows in table.groupby("resource", sort=False)
    }
    tables |= _against(table)
    if growth is not None and not growth.empty:
        tables["Depth against width along the optimum"] = growth
    write_html_table(tables, path, f"Prescriptions of {name}", _note(table))
    write_csv(pd.concat(tables, names=["table"]).reset_index(level="table"), csv)


def _against(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Tables of what the runs say of the relaxed optimum, on the budgets that they have spent."""
    told = table[table["verdict"].notna()] if "verdict" in table else table.iloc[:0]
    found = {}
    for resource, rows in told.groupby("resource", sort=False):
        percents = {name: 100 * rows[name] for name in ("above_lowest", "deviation_low", "deviation_high")}
        columns = {"budget": UNITS[str(resource)], **AGAINST}
        found[f"Held against the runs, {UNITS[str(resource)]}"] = rows.assign(**percents)[[*columns]].rename(
            columns=columns
        )
    return found


def page_table(rows: pd.DataFrame, resource: str, level: float) -> pd.DataFrame:
    """One row for each budget of a resource: the feasible shape, then the relaxed optimum with its intervals, then GPU-hours."""
    relaxed, feasible = (rows[rows["variant"] == variant].reset_index(drop=True) for variant in ("relaxed", "feasible"))
    columns: dict[str, pd.Series] = {
        UNITS[resource]: relaxed["budget"],
        "extrapolated": relaxed["extrapolated"].map({True: "yes", False: ""}),
        "beyond the fitted": relaxed["beyond_fitted"],
        "feasible shape": feasible["width"].map("{:.0f}".format) + "x" + feasible["depth"].map("{:.0f}".format),
        "its loss": feasible["loss"].round(4),
        "relaxed width": relaxed["width"].round(),
        "depth": relaxed["depth"].round(1),
    }
    for quantity, (label, unit) in SHOWN.items():
        ends = zip(relaxed[f"{quantity}_low"] / unit, relaxed[f"{quantity}_high"] / unit, strict=True)
        if quantity in relaxed:
            columns[label] = relaxed[quantity] / unit
        middle = "middle " if quantity in LESS_OFTEN else ""
        columns[f"{label}, {middle}{100 * level:g} %"] = pd.Series(
            [None if pd.isna(low) else f"{_short(low)} … {_short(high)}" for low, high in ends], dtype=object
        )
    if resource == "gpu_hours":
        columns["training FLOPs"] = feasible["flops"]
    else:
        columns["GPU-hours"] = feasible["gpu_hours"]
    if feasible["gpu_hours"].notna().any():
        columns["on fewest nodes"] = feasible["gpu_hours_fewest_nodes"]
        columns["on most nodes"] = feasible["gpu_hours_most_nodes"]
    return pd.DataFrame(columns).dropna(axis="columns", how="all")


def _short(value: float) -> str:
    return number(float(f"{value:.3g}"))


def _note(table: pd.DataFrame) -> str:
    error = table["gpu_hours_error"].dropna()
    if error.empty:
        return "No GPU-hours: the speeds of too few shapes are recorded."
    nodes = table["nodes"].dropna().iloc[0]
    return (
        "Shapes with an even number of heads and whole layers; then the optimum over real widths and depths, which has the law's "
        f"intervals. GPU-hours are those of the feasible shape, estimated on {nodes} nodes and typically off by "
        f"{100 * error.iloc[0]:.1f} %; the last columns have them on the fewest and on the most nodes that were recorded."
    )
