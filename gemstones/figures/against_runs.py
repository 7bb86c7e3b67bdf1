"""What laws prescribe, held against the runs that have spent the budget: size, tokens per parameter, and the law's deviations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from gemstones.errors import UserError
from gemstones.figures.axes import Form, legend_below, log_axis
from gemstones.figures.inputs import Tables
from gemstones.figures.output import Drawing
from gemstones.figures.style import GREY, PALETTE, figure
from gemstones.laws.fit import HuberFit
from gemstones.prescriptions.against_runs import LOWEST, ROUGH, USABLE, against_runs
from gemstones.prescriptions.run_curves import Curves, checkpoints_of

PANELS: dict[str, tuple[str, Form]] = {
    "params": ("parameters", "count"),
    "tokens_per_param": ("tokens per parameter", "plain"),
}
BUDGETS = 31
# Budgets that fewer runs have spent are left out: the lowest of two is no frontier.
FEWEST = 3
LAW, RUNS = PALETTE[0], PALETTE[1]
LINE: dict[str, Any] = {"color": LAW, "linewidth": 1.6}
BAND: dict[str, Any] = {"color": LAW, "alpha": 0.18, "linewidth": 0}
BEST: dict[str, Any] = {"color": RUNS, "marker": "o", "markersize": 4, "linestyle": "none"}
OTHERS: dict[str, Any] = {"color": GREY, "marker": "o", "markersize": 2, "linestyle": "none"}
PROMISED: dict[str, Any] = {"color": "black", "linewidth": 1.2, "linestyle": (0, (4, 2))}
GOOD = "#DDEBDD"


def draw_against_runs(tables: Tables) -> Drawing:
    """A column for each fit: its optimum with the band of its prescriptions among the lowest runs at each budget, and how far it is off."""
    laws = {name: law for name, law in tables.laws.items() if isinstance(law, HuberFit)}
    data = pd.concat([held(tables, name, law) for name, law in laws.items()], ignore_index=True)
    drawn = figure(7.0, 4.2 if len(laws) == 1 else 7.0)
    grid = drawn.subplots(len(PANELS) + 1, len(laws), sharex=True, sharey="row", squeeze=False)
    low, high = data["flops"].min() / 1.1, data["flops"].max() * 1.1
    for column, (name, law) in zip(grid.T, laws.items(), strict=True):
        column[0].set_title(", ".join(law.law.covariates), fontsize="medium")
        rows = data[data["fit"] == name]
        for axes, quantity in zip(column, PANELS, strict=False):
            _optimum(axes, tables.prescriptions[name], quantity)
            for lowest, look in ((False, OTHERS), (True, BEST)):
                runs = rows[(rows["rank"] == 1) == lowest]
                axes.plot(runs["flops"], runs[quantity], **look)
        _deviations(column[-1], rows)
        column[-1].set_xlabel("training FLOPs")
    for row, (label, _) in zip(grid, PANELS.values(), strict=False):
        row[0].set_ylabel(label)
    for row, (quantity, (_, form)) in zip(grid, PANELS.items(), strict=False):
        row[0].set_ylim(data[quantity].min() / 1.5, data[quantity].max() * 2)
        for axes in row:
            axes.set_xlim(low, high)
            log_axis(axes, "y", form, most=6)
    for axes in grid[-1]:
        log_axis(axes, "x", "power", most=4)
    grid[-1, 0].set_ylabel("loss, law − run (%)")
    drawn.align_ylabels()
    handles = [
        Line2D([], [], label="prescribed", **LINE),
        Patch(label=f"its {100 * tables.study.bootstrap.level:g} % interval", **BAND),
        Line2D([], [], label="run of the lowest loss", **BEST),
        Line2D([], [], label=f"others of the {LOWEST} lowest", **OTHERS),
        Line2D([], [], label="promised − lowest", **PROMISED),
        Patch(facecolor=GOOD, label=f"within {100 * USABLE:g} %"),
    ]
    legend_below(drawn, handles, 2 if len(laws) == 1 else 3)
    return Drawing(drawn, data, {"Largest deviations": _worst(data)})


def held(tables: Tables, name: str, law: HuberFit) -> pd.DataFrame:
    """The lowest runs at each budget within the data, by one fit.

    Returns
    -------
    A row a budget and run: fit, flops, rank (1 for the lowest loss), run, params, tokens_per_param, loss, `deviation_percent` of the
    law's prediction from it, and `promised_above_lowest_percent` and `verdict` of the budget.

    Raises
    ------
    UserError
        If the fit is not among prescriptions.fits, or no budget has `FEWEST` runs.
    """
    if name not in tables.prescriptions:
        raise UserError(f"figure of kind 'against_runs': {name} is not among prescriptions.fits")
    rows = checkpoints_of(tables.rows(tables.study.fits[name].selection), tables.losses)
    table = tables.prescriptions[name].query("resource == 'flops' and variant == 'relaxed'").sort_values("budget")
    log_budgets = np.log(table["budget"].to_numpy(float))
    spent = rows["flops"].dropna().to_numpy(float)
    parts, runs = [], Curves.of(rows, "flops", law.law.columns)
    for flops in np.geomspace(
        max(spent.min(), table["budget"].min()), min(spent.max(), table["budget"].max()), BUDGETS
    ):
        optimum = {
            quantity: np.exp(np.interp(np.log(flops), log_budgets, np.log(table[quantity].to_numpy(float))))
            for quantity in ("loss", "width", "depth", "params")
        }
        found = against_runs(law, runs, float(flops), optimum)
        if len(found.runs) < FEWEST:
            continue
        lowest = found.lowest
        parts.append(
            pd.DataFrame(
                {
                    "fit": name,
                    "flops": flops,
                    "rank": range(1, len(lowest) + 1),
                    "run": lowest["run"],
                    "params": lowest["params"],
                    "tokens_per_param": lowest["tokens"] / lowest["params"],
                    "loss_nats_per_token": lowest["loss"],
                    "deviation_percent": 100 * lowest["deviation"],
                    "promised_above_lowest_percent": 100 * found.above_lowest,
                    "verdict": found.verdict,
                }
            )
        )
    if not parts:
        raise UserError(f"figure of kind 'against_runs': no budget has {FEWEST} runs of {name}")
    return pd.concat(parts, ignore_index=True)


def _optimum(axes: Axes, table: pd.DataFrame, quantity: str) -> None:
    relaxed = table.query("resource == 'flops' and variant == 'relaxed'").sort_values("budget")
    axes.plot(relaxed["budget"], relaxed[quantity], **LINE)
    if relaxed[f"{quantity}_low"].notna().any():
        axes.fill_between(relaxed["budget"], relaxed[f"{quantity}_low"], relaxed[f"{quantity}_high"], **BAND)


def _deviations(axes: Axes, rows: pd.DataFrame) -> None:
    axes.axhspan(-100 * USABLE, 100 * USABLE, color=GOOD, zorder=0, linewidth=0)
    axes.axhline(0, color="black", linewidth=0.8)
    for lowest, look in ((False, OTHERS), (True, BEST)):
        runs = rows[(rows["rank"] == 1) == lowest]
        axes.plot(runs["flops"], runs["deviation_percent"], **look)
    budgets = rows.drop_duplicates("flops")
    axes.plot(budgets["flops"], budgets["promised_above_lowest_percent"], **PROMISED)
    for level in (-100 * ROUGH, 100 * ROUGH):
        axes.axhline(level, color=GREY, linewidth=0.6)


def _worst(data: pd.DataFrame) -> pd.DataFrame:
    """A row for each fit: its lowest and highest deviation, and at how many budgets each verdict stands."""
    rows = []
    for fit, part in data.groupby("fit", sort=False):
        budgets = part.drop_duplicates("flops")
        deviation = part["deviation_percent"]
        row = {"fit": fit, "lowest, %": deviation.min(), "highest, %": deviation.max(), "budgets": len(budgets)}
        rows.append(row | budgets["verdict"].value_counts().to_dict())
    return pd.DataFrame(rows)
