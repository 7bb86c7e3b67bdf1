"""Parameters and tokens for budgets of FLOPs, out of a fit alone: no shapes, hence C = 6·N·T, or a hull's lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gemstones.errors import UserError
from gemstones.laws.hull import HullFit
from gemstones.laws.power_law import Allocation, has_closed_form

if TYPE_CHECKING:
    from gemstones.laws.fit import HuberFit
    from gemstones.laws.uncertainty import Uncertainty

QUANTITIES = ("params", "tokens")


def optima(
    fit: HuberFit | HullFit, flops: Sequence[float], uncertainty: Uncertainty | None = None
) -> list[dict[str, Any]]:
    """Compute-optimal parameters (in the fit's own count) and tokens, as plain data.

    Parameters
    ----------
    fit : a law of params and tokens, or a hull over FLOPs.
    flops : budgets.
    uncertainty : the fit's resamples, for intervals.

    Returns
    -------
    By budget: flops, params, tokens, params_interval and tokens_interval ([low, high]), and whether the budget lies beyond those
    of the rows; None where unknown, as all is where an exponent is zero.

    Raises
    ------
    UserError
        A fit of anything else, or a budget that is not positive.
    """
    check_budgets(fit.law.covariates if not isinstance(fit, HullFit) else fit.resource, flops)
    budgets = np.array(flops, dtype=float)
    if isinstance(fit, HullFit):
        found: dict[str, Any] = {name: fit.lines[name].predict(budgets) for name in QUANTITIES}
        largest: float | None = max(point.resource for point in fit.hull)
    else:
        largest = fit.max_flops
        found = {}
        if fit.law.slope is not None:
            allocation = fit.law.allocation()
            found = {"params": allocation.params(budgets), "tokens": allocation.tokens(budgets)}
    ends: dict[str, Any] = {}
    if found and uncertainty is not None and len(uncertainty.resamples):
        of_resamples = _of_resamples(uncertainty, budgets)
        ends = {name: np.stack(uncertainty.interval(of_resamples[name]), axis=-1) for name in QUANTITIES}
    return [
        {
            "flops": budget,
            **{name: float(found[name][i]) if found else None for name in QUANTITIES},
            **{f"{name}_interval": _known(ends[name][i]) if ends else None for name in QUANTITIES},
            "extrapolated": None if largest is None else budget > largest,
        }
        for i, budget in enumerate(budgets.tolist())
    ]


def check_budgets(of: Sequence[str] | str, flops: Sequence[float]) -> None:
    """Raise UserError unless a law of such covariates, or a hull over such a resource, has optima on these budgets."""
    if isinstance(of, str) and of != "flops":
        raise UserError(f"a hull over {of} says nothing on budgets of FLOPs")
    if not isinstance(of, str) and not has_closed_form(of):
        raise UserError(
            f"budgets need a law of params and tokens (or tokens*params), without shapes; this one is of {', '.join(of)}: "
            "write it with --json, and `gemstones prescribe --law FILE` answers"
        )
    for budget in flops:
        if not (budget > 0 and np.isfinite(budget)):
            raise UserError(f"a budget of {budget:g} FLOPs; wanted: a number greater than 0")


def _of_resamples(uncertainty: Uncertainty, budgets: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Params and tokens (resamples, budgets)."""
    if not isinstance(uncertainty.fit, HullFit):
        allocation = Allocation.of_laws(uncertainty.resamples, uncertainty.fit.law.covariates)
        return {"params": allocation.params(budgets), "tokens": allocation.tokens(budgets)}
    lines = {name: uncertainty.resamples[[f"slope_{name}", f"intercept_{name}"]].to_numpy() for name in QUANTITIES}
    return {name: np.exp(line[:, :1] * np.log(budgets) + line[:, 1:]) for name, line in lines.items()}


def _known(interval: NDArray[np.float64]) -> list[float] | None:
    return None if np.isnan(interval).any() else interval.tolist()
