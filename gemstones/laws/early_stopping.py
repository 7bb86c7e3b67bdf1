"""How far above the minimum the published fits stop, by the number of starts (paper, Figure 20).

The authors fit a law by SciPy's L-BFGS-B with default tolerances and numerical gradients from every point of a grid, and keep
the lowest successful end. Here the same is done from a seeded sample of their grid, and beside it the fit of this package
from as many starts as asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize as scipy_minimize
from scipy.special import huber

from gemstones.laws.fit import law_at, problem_of
from gemstones.laws.minimize import minimize
from gemstones.laws.objective import Problem
from gemstones.laws.power_law import PowerLaw
from gemstones.laws.rows import read_rows
from gemstones.laws.starts import screened_starts

Array = NDArray[np.float64]

# Grid of starts of the Gemstones authors (depth_width.py), which is that of Hoffmann et al. (2022), D.2.
EXPONENTS, LOG_COEFFICIENTS, LOG_E = np.linspace(0, 2, 5), np.linspace(0, 25, 6), np.linspace(-1, 1, 5)
# SciPy's step of numerical gradients for L-BFGS-B.
STEP = 1e-8
COVARIATES = ("params", "tokens")
OUR_STARTS = (1, 2, 4, 8)
# The middle 90 % of what n starts may find.
TAIL = 0.05
COLUMNS = (
    "selection", "huber_delta", "optimizer", "starts", "objective_median", "objective_low", "objective_high", "slope_median",
    "slope_low", "slope_high", "ends_at_minimum", "sampled", "grid", "objective_minimum", "slope_minimum",
)  # fmt: skip
# Of sums of probabilities.
ROUNDING = 1e-12
# An end this close to the minimum, relatively, has reached it.
AT_MINIMUM = 1e-6


def grid_starts(k: int, count: int, seed: int = 0) -> tuple[Array, int]:
    """A random sample of the grid's starts, and the grid's size; all of the grid if it has no more.

    Returns
    -------
    (count, 2k+1) alpha_1 … alpha_k, log A_1 … log A_k, log E
    """
    axes = [EXPONENTS] * k + [LOG_COEFFICIENTS] * k + [LOG_E]
    shape = tuple(map(len, axes))
    size = math.prod(shape)
    chosen = np.random.default_rng(seed).choice(size, min(count, size), replace=False)
    return np.stack([axis[i] for axis, i in zip(axes, np.unravel_index(chosen, shape), strict=True)], 1), size


def reference_objective(theta: Array, log_x: Array, log_loss: Array, delta: float) -> Array:
    """Plain sum of Huber losses of log residuals of laws theta (…, 2k+1), for log_x (n, k) and log_loss (n,).

    The logsumexp is numpy's logaddexp, several times faster than SciPy's on so few terms.
    """
    k = log_x.shape[1]
    log_predicted = theta[..., 2 * k, None]
    for j in range(k):
        term = theta[..., k + j, None] - theta[..., j, None] * log_x[:, j]
        log_predicted = np.logaddexp(log_predicted, term)
    return np.asarray(huber(delta, log_loss - log_predicted).sum(-1))


def with_numerical_gradient(log_x: Array, log_loss: Array, delta: float) -> Callable[[Array], tuple[float, Array]]:
    """The objective with SciPy's own forward differences, all of them evaluated at once."""

    def function(theta: Array) -> tuple[float, Array]:
        moved = theta + STEP * np.eye(len(theta))
        values = reference_objective(np.vstack([theta, moved]), log_x, log_loss, delta)
        return float(values[0]), (values[1:] - values[0]) / np.diagonal(moved - theta)

    return function


def early_stopping(
    rows: pd.DataFrame, selection: str, deltas: Sequence[float], starts: int, seed: int = 0
) -> pd.DataFrame:
    """What the lowest of n ends is, for the reference's optimiser and for ours, with laws of params and tokens.

    Parameters
    ----------
    rows : of the losses table, those of `selection`.
    deltas : of the Huber loss.
    starts : sampled from the reference's grid of 4,500; `seed` says which, and seeds our fits.

    Returns
    -------
    One row per delta, optimizer (`reference`, `ours`) and number of starts, with the columns `COLUMNS`. Of the reference, the
    objective and the slope a = beta/(alpha + beta) are the median and the middle 90 % over all ways to take so many of the sampled
    starts, each way keeping its lowest successful end; `ends_at_minimum` is the share of the sampled starts that reached the
    minimum.
    """
    read = read_rows(rows, (*COVARIATES, "loss"), f"selection '{selection}'")
    problem, centre = problem_of(read, COVARIATES)
    log_x, log_loss = np.log(read.values[:, :-1]), np.log(read.values[:, -1])
    sample, grid = grid_starts(len(COVARIATES), starts, seed)
    parts = []
    for delta in deltas:
        ours = [_ours(problem, centre, delta, count, seed) for count in OUR_STARTS]
        lowest, law = min(ours, key=lambda found: found[0])
        ends = reference_ends(sample, log_x, log_loss, delta)
        reached = float(np.mean(ends["objective"] <= lowest * (1 + AT_MINIMUM)))
        found = [best_of(ends, count) for count in _counts(len(sample))]
        found += [
            {"optimizer": "ours", "starts": count}
            | {f"objective_{which}": objective for which in ("median", "low", "high")}
            | {f"slope_{which}": ours_law.slope for which in ("median", "low", "high")}
            for count, (objective, ours_law) in zip(OUR_STARTS, ours, strict=True)
        ]
        part = pd.DataFrame(found).assign(
            selection=selection, huber_delta=delta, grid=grid, sampled=len(sample), ends_at_minimum=reached,
            objective_minimum=lowest, slope_minimum=law.slope,
        )  # fmt: skip
        parts.append(part)
    return pd.concat(parts, ignore_index=True)[list(COLUMNS)]


def reference_ends(starts: Array, log_x: Array, log_loss: Array, delta: float) -> pd.DataFrame:
    """Where L-BFGS-B ends from each start: `objective` (infinite where it failed) and `slope`, by the objective."""
    function = with_numerical_gradient(log_x, log_loss, delta)
    with np.errstate(all="ignore"):
        ends = [scipy_minimize(function, start, jac=True, method="L-BFGS-B") for start in starts]
    theta = np.array([end.x for end in ends])
    objective = np.array([end.fun if end.success and np.isfinite(end.fun) else np.inf for end in ends])
    with np.errstate(all="ignore"):
        slope = theta[:, 1] / (theta[:, 0] + theta[:, 1])
    table = pd.DataFrame({"objective": objective, "slope": slope})
    return table.sort_values("objective", ignore_index=True, kind="stable")


def best_of(ends: pd.DataFrame, count: int) -> dict[str, object]:
    """Median and middle 90 % of objective and slope of the lowest end of `count`, over all ways to draw them from `ends`.

    The lowest of `count` of m ends has rank r with probability C(m − 1 − r, count − 1)/C(m, count).
    """
    m = len(ends)
    rank = np.arange(m - count + 1)
    log_ways = [math.lgamma(m - r) - math.lgamma(count) - math.lgamma(m - r - count + 1) for r in rank.tolist()]
    log_all = math.lgamma(m + 1) - math.lgamma(count + 1) - math.lgamma(m - count + 1)
    chance = np.exp(np.array(log_ways) - log_all)
    found: dict[str, object] = {"optimizer": "reference", "starts": count}
    for name in ("objective", "slope"):
        values = ends[name].to_numpy(float)[: len(rank)]
        order = np.argsort(values, kind="stable")
        reached = np.cumsum(chance[order])
        for which, share in (("median", 0.5), ("low", TAIL), ("high", 1 - TAIL)):
            at = min(int(np.searchsorted(reached, share * reached[-1] * (1 - ROUNDING))), len(order) - 1)
            found[f"{name}_{which}"] = values[order[at]]
    return found


def _ours(problem: Problem, centre: Array, delta: float, count: int, seed: int) -> tuple[float, PowerLaw]:
    """Objective and law of our fit from so many starts."""
    minima = minimize(screened_starts(problem, count, np.random.default_rng(seed)), problem, delta)
    best = int(np.argmin(minima.objective))
    return float(minima.objective[best]), law_at(minima.phi[best], centre, COVARIATES, "params")


def _counts(most: int) -> list[int]:
    """Powers of two, then all."""
    return sorted({*(2**i for i in range(most.bit_length())), most})
