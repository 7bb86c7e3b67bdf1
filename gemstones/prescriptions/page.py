"""Prescriptions as a page for the report: a row for each budget, with the columns that a person reads."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from gemstones.prescriptions.search import UNITS
from gemstones.report import number, write_html_table

# Quantities of the relaxed optimum, each followed by its interval.
SHOWN = {
    "aspect_ratio": "width/depth", "params": "parameters", "tokens": "tokens", "tokens_per_param": "tokens per parameter",
    "loss": "loss",
}  # fmt: skip


def write_page(table: pd.DataFrame, path: str | Path, name: str, level: float) -> None:
    """Write the prescriptions of one fit, a table for each resource, without columns that are empty.

    Parameters
    ----------
    table : as :func:`gemstones.prescriptions.optimum.prescribe` gives it.
    name : of the fit.
    level : of its intervals.
    """
    heading = {"flops": "Budgets in FLOPs", "gpu_hours": "Budgets in GPU-hours"}
    tables = {
        heading[str(resource)]: page_table(rows, str(resource), level)
        for resource, rows in table.groupby("resource", sort=False)
    }
    write_html_table(tables, path, f"Prescriptions of {name}", _note(table))


def page_table(rows: pd.DataFrame, resource: str, level: float) -> pd.DataFrame:
    """One row for each budget of a resource: the feasible shape, then the relaxed optimum with its intervals, then GPU-hours."""
    relaxed, feasible = (rows[rows["variant"] == variant].reset_index(drop=True) for variant in ("relaxed", "feasible"))
    columns: dict[str, pd.Series] = {
        UNITS[resource]: relaxed["budget"],
        "extrapolated": relaxed["extrapolated"].map({True: "yes", False: ""}),
        "feasible shape": feasible["width"].map("{:.0f}".format) + "x" + feasible["depth"].map("{:.0f}".format),
        "its parameters": feasible["params"],
        "its tokens": feasible["tokens"],
        "its loss": feasible["loss"],
        "relaxed width": relaxed["width"].round(1),
        "relaxed depth": relaxed["depth"].round(1),
    }
    for quantity, label in SHOWN.items():
        ends = zip(relaxed[f"{quantity}_low"], relaxed[f"{quantity}_high"], strict=True)
        columns |= {label: relaxed[quantity]}
        columns[f"{label}, {100 * level:g} % interval"] = pd.Series(
            [None if pd.isna(low) else f"{number(low)} … {number(high)}" for low, high in ends], dtype=object
        )
    if resource == "gpu_hours":
        columns["training FLOPs"] = feasible["flops"]
    else:
        columns["GPU-hours of the feasible shape"] = feasible["gpu_hours"]
    if feasible["gpu_hours"].notna().any():
        columns["on the fewest nodes"] = feasible["gpu_hours_fewest_nodes"]
        columns["on the most nodes"] = feasible["gpu_hours_most_nodes"]
    return pd.DataFrame(columns).dropna(axis="columns", how="all")


def _note(table: pd.DataFrame) -> str:
    error = table["gpu_hours_error"].dropna()
    if error.empty:
        return "No GPU-hours: the speeds of too few shapes are recorded."
    nodes = table["nodes"].dropna().iloc[0]
    return (
        f"GPU-hours are estimates on {nodes} nodes, typically off by {100 * error.iloc[0]:.1f} %; on the fewest and the most nodes "
        "that were recorded, the feasible shape takes as many as the last columns say."
    )
