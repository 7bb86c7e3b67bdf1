"""Go down by SciPy's L-BFGS-B, for tables at which the Newton steps of :mod:`gemstones.laws.minimize` crawl.

On tables of few rows, of covariates with two levels or a tiny range, an exponent moves the objective by a millionth of itself between
its bounds, and its exact Hessian holds for tiny steps only. A quasi-Newton method in (alpha, log A, E) sees further there; what it
leaves of a gradient, Newton steps remove.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gemstones.laws.objective import HIGHEST_EXPONENT, NEGLIGIBLE, Problem, exponent_bounds, exponents, from_exponents

Array = NDArray[np.float64]

# Deltas passed through on the way to a smaller one; the objective is L1-like at the last.
STAGES = (3e-2, 3e-3, 1e-3, 3e-4)
OPTIONS = {"ftol": 1e-15, "gtol": 1e-11}
# Evaluations for a start and stage, and rows times evaluations: doubts are those of small tables, and large ones would take hours.
EVALUATIONS, ROW_EVALUATIONS = 9000, 7_000_000


def descend(starts: Array, problem: Problem, delta: float, staged: bool = True) -> Array:
    """Where starts (count, p) of :mod:`gemstones.laws.objective` end, within the same bounds, at all deltas above the wanted one or at it alone."""
    from scipy.optimize import minimize as scipy_minimize  # only where it is needed: it takes a while to load

    term, m = problem.of_term, len(problem.of_term)
    k = int(term[-1]) + 1
    low, high = exponent_bounds(term)
    loss = np.exp(problem.log_loss)
    least = np.log(NEGLIGIBLE * loss.min()) - HIGHEST_EXPONENT * np.abs(problem.u).max(1).sum()
    most = float(np.log(loss.max())) + 1
    bounds = [*zip(low, high, strict=True), *[(least, most)] * k, (0.0, float(loss.max()))]
    limits = np.array(bounds).T
    most_often = max(50, min(EVALUATIONS, ROW_EVALUATIONS // problem.rows))
    options = {**OPTIONS, "maxfun": most_often, "maxiter": most_often}
    found = []
    for phi in starts:
        point = np.r_[exponents(phi, term), np.log(np.maximum(phi[:k], np.exp(max(least, -650.0)))), phi[-1]]
        for stage in [*(each for each in STAGES if staged and each > delta), delta]:
            point = np.clip(point, *limits)
            point = scipy_minimize(
                _objective(problem, stage), point, jac=True, method="L-BFGS-B", bounds=bounds, options=options
            ).x
        found.append(from_exponents(point[None, :m], point[None, m : m + k], point[-1:], term)[0])
    return np.array(found)


def _objective(problem: Problem, delta: float) -> Callable[[Array], tuple[float, Array]]:
    """Mean Huber loss over rows / delta, and its gradient, in exponents, log coefficients and E."""
    term, m, u, log_loss = problem.of_term, len(problem.of_term), problem.u, problem.log_loss
    first = np.flatnonzero(np.r_[True, np.diff(term) > 0])
    unit = 1 / problem.rows / (delta if np.isfinite(delta) else 1.0)
    weights = np.full(problem.rows, unit) if problem.weights is None else unit * problem.weights

    def objective(point: Array) -> tuple[float, Array]:
        power = np.add.reduceat(point[:m, None] * u, first, axis=0)
        terms = np.exp(point[m:-1, None] - power)
        loss = terms.sum(0) + point[-1]
        residual = log_loss - np.log(loss)
        slope = np.clip(residual, -delta, delta)
        own = np.where(residual < 0, problem.overestimate_penalty, 1.0) * weights
        pull = own * slope / loss
        gradient = np.r_[(terms[term] * u) @ pull, -(terms @ pull), -pull.sum()]
        return float((own * slope * (residual - 0.5 * slope)).sum()), gradient

    return objective
