"""What one budget buys by a law, as plain data: the optimum, the shapes beside it, and what rounding to them costs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from gemstones.errors import UserError
from gemstones.laws.fit import HuberFit
from gemstones.prescriptions.against_runs import against_runs
from gemstones.prescriptions.bands import QUANTITIES
from gemstones.prescriptions.optimum import prescribe, shapes_table
from gemstones.prescriptions.run_curves import Curves
from gemstones.prescriptions.search import Search, real_params
from gemstones.study import MOST_FLOPS

if TYPE_CHECKING:
    from gemstones.laws.uncertainty import Uncertainty
    from gemstones.prescriptions.speeds import Speeds
    from gemstones.study import Resource, Suite

# Feasible widths on either side of the relaxed optimum that are shown.
BESIDE = 3
SHAPE = [
    "width", "depth", "aspect_ratio", "params", "law_params", "tokens", "tokens_per_param", "loss", "flops", "gpu_hours",
    "gpu_hours_fewest_nodes", "gpu_hours_most_nodes",
]  # fmt: skip


def answer(
    law: HuberFit,
    suite: Suite,
    resource: Resource,
    budget: float,
    tokens_per_step: int,
    uncertainty: Uncertainty | None = None,
    speeds: Speeds | None = None,
    rows: pd.DataFrame | None = None,
) -> dict[str, Any]:
    """The optimum on one budget.

    Parameters
    ----------
    budget : in `resource`; GPU-hours need `speeds`.
    tokens_per_step : of the optimizer steps that are shown.
    uncertainty : the law's resamples, for intervals.
    rows : that the law was fitted to, to hold the answer against.

    Returns
    -------
    `budget`, `resource` and `extrapolated`; `relaxed` and `feasible`, and for some laws `closed_form`, each with the columns of
    prescriptions, `steps`, `node_hours` and `intervals` (None where there are none); `nearest`, feasible shapes beside the
    relaxed optimum with its best depth for each width, by width, each with `loss_above_relaxed` in nats and `extra_budget`, the
    share of the budget that the shape needs on top to reach the relaxed optimum's loss (None where it never does); `speed`, what
    GPU-hours rest on; `against_runs`, what the runs say of it (:meth:`AgainstRuns.to_json`), None without rows. Unknown numbers are None.
    """
    given = {"flops": [budget], "gpu_hours": []} if resource == "flops" else {"flops": [], "gpu_hours": [budget]}
    table = prescribe(
        law, given["flops"], suite, uncertainty=uncertainty, speeds=speeds, gpu_hours=given["gpu_hours"]
    ).set_index("variant")
    search = Search.of(law, suite, speeds, resource)
    found = {str(variant): _shape(row, tokens_per_step, speeds) for variant, row in table.iterrows()}
    relaxed = table.loc["relaxed"]
    return {
        "resource": resource,
        "budget": budget,
        "extrapolated": None if pd.isna(relaxed["extrapolated"]) else bool(relaxed["extrapolated"]),
        **found,
        "against_runs": None
        if rows is None
        else against_runs(law, Curves.of(rows, resource, law.law.columns), budget, relaxed, uncertainty).to_json(),
        "nearest": _nearest(search, budget, relaxed, tokens_per_step),
        "speed": speeds
        and {
            "nodes": speeds.nodes,
            "gpus_per_node": speeds.model.gpus_per_node,
            "relative_error": speeds.model.error,
            "shapes": speeds.model.shapes,
            "recorded_nodes": list(speeds.model.nodes),
        },
    }


def budget_for(search: Search, quantity: str, value: float) -> float:
    """The budget in FLOPs whose relaxed optimum has so many `tokens` or `params`, by a search that relies on their growing.

    Raises
    ------
    UserError
        If there is none.
    """

    def at(log_budget: float) -> float:
        budget = min(math.exp(log_budget), MOST_FLOPS)  # but for rounding
        width, depth = search.relaxed(budget)
        params = real_params(width, depth, search.architecture)
        return float((budget / search.cost_per_token(width, depth) if quantity == "tokens" else params)[0])

    # A hair more than a token of the smallest shape, since it is not to be lost to rounding.
    low = math.log(float(search.flops_per_token(search.width_step, search.min_depth)) * (1 + 1e-9))
    high = math.log(MOST_FLOPS)
    least, most = at(low), at(high)
    if not least <= value <= most:
        name = {"tokens": "training tokens", "params": "parameters"}[quantity]
        raise UserError(
            f"no budget has an optimum of {value:.4g} {name}: by this law it has {least:.4g} at {math.exp(low):.2g} FLOPs, "
            f"the least that trains anything, and {most:.4g} at {MOST_FLOPS:g}"
        )
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if at(middle) < value else (low, middle)
    return math.exp(high)


def _shape(row: pd.Series[Any], tokens_per_step: int, speeds: Speeds | None) -> dict[str, Any]:
    intervals = {name: [_known(row[f"{name}_{end}"]) for end in ("low", "high")] for name in [*QUANTITIES, "run_loss"]}
    hours = _known(row["gpu_hours"])
    return {
        **{name: _known(row[name]) for name in SHAPE},
        "param_count": row["param_count"],
        "node_hours": hours / speeds.model.gpus_per_node if speeds and hours else None,
        "steps": math.ceil(row["tokens"] / tokens_per_step),
        "intervals": {name: None if None in ends else ends for name, ends in intervals.items()},
    }


def _nearest(search: Search, budget: float, relaxed: pd.Series[Any], tokens_per_step: int) -> list[dict[str, Any]]:
    center = relaxed["width"] / search.width_step
    most = int(search.largest_width(budget) / search.width_step)
    around = range(math.floor(center) - BESIDE + 1, math.ceil(center) + BESIDE)
    width = search.width_step * np.array([pairs for pairs in around if 1 <= pairs <= most], dtype=float)
    depth = search.best_depth(width, budget)
    whole = np.maximum(np.stack([np.floor(depth), np.ceil(depth)]), search.min_depth)
    best = np.argmin(search.loss(width, whole, budget), axis=0)
    depth = whole[best, np.arange(len(width))]
    table = shapes_table(search, "feasible", np.full(len(width), budget), width, depth)
    needed = search.tokens_for(width, depth, float(relaxed["loss"]))
    extra = needed / table["tokens"].to_numpy() - 1
    return [
        {
            **{
                name: _known(row[name]) for name in ("width", "depth", "params", "tokens", "loss", "flops", "gpu_hours")
            },
            "steps": math.ceil(row["tokens"] / tokens_per_step),
            "loss_above_relaxed": float(row["loss"] - relaxed["loss"]),
            "extra_budget": _known(more),
        }
        for (_, row), more in zip(table.iterrows(), extra.tolist(), strict=True)
    ]


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
