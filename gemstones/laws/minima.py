"""The lowest minimum that can be found of a fit's objective: starts, what is tried where they leave a doubt, and where they all ended."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gemstones.laws.descent import descend
from gemstones.laws.minimize import STAGE_STEPS, STAGE_TOLERANCE, Minima, levenberg, minimize, polish
from gemstones.laws.objective import Problem
from gemstones.laws.starts import dropped_terms, screened_starts, wide_starts

# Screened starts, and wide ones. Where a share of less than ENOUGH ends at the minimum, as many go down by SciPy.
STARTS, WIDE, ENOUGH = 8, 4, 0.6
# A minimum of a smaller scaled curvature lies in a valley along which an exponent may go far without a step that is worth it.
FLAT = 1e-8
# In a valley of a smaller scaled curvature than this, so many values of E are tried.
VALLEY, CONSTANTS = 1e-6, 8
# SciPy is asked so many times at most; terms that vanished are tried again so many times at most.
DESCENTS, REVIVALS = 3, 5
MINIMA = ("phi", "objective", "gradient", "lowest_curvature")
# Two starts ended at the same minimum if their objectives differ by less, relatively.
SAME_MINIMUM = 1e-9
# What ends are polished to.
POLISHED_GRADIENT = 1e-9
# Residuals this small, in log loss, are called perfect.
PERFECT = 1e-8
# Gradient norm / (n · delta) below which the fit has converged; 1 would be every row pulling one way.
CONVERGED_GRADIENT = 1e-6


def lowest_minima(problem: Problem, huber_delta: float, seed: int = 0) -> Minima:
    """Where all starts of a fit ended: screened and wide ones and, where these leave a doubt, others by SciPy.

    Ends at which a term has vanished are tried again with it, and the lowest ends are polished until their gradient is negligible.
    """
    generator = np.random.default_rng(seed)
    starts = np.concatenate([screened_starts(problem, STARTS, generator), wide_starts(problem, WIDE, generator)])
    minima = _revived(minimize(starts, problem, huber_delta), problem, huber_delta)
    minima = _polished(along_constant(minima, problem, huber_delta), problem, huber_delta)
    for tried in range(DESCENTS):
        best = int(np.argmin(minima.objective))
        converged = _at_rest(minima, best, problem, huber_delta)
        agreed = np.mean(at_minimum(minima, best, problem.rows)) >= ENOUGH and minima.lowest_curvature[best] >= FLAT
        if converged and (agreed or tried):
            break
        more = np.concatenate([wide_starts(problem, STARTS, generator), screened_starts(problem, WIDE, generator)])
        ends = np.r_[
            descend(minima.phi[[best]], problem, huber_delta, staged=False), descend(more, problem, huber_delta)
        ]
        minima = _revived(_joined(minima, levenberg(ends, problem, huber_delta)), problem, huber_delta)
        minima = _polished(minima, problem, huber_delta)
    return minima


def _at_rest(minima: Minima, end: int, problem: Problem, huber_delta: float) -> bool:
    """Whether the gradient at an end is negligible."""
    pull = pull_of(minima.objective[end], problem, huber_delta)
    return bool(np.linalg.norm(minima.gradient[end]) <= CONVERGED_GRADIENT * problem.rows * pull)


def pull_of(objective: float, problem: Problem, huber_delta: float) -> float:
    """How hard a row pulls at most, or where delta is beyond the residuals, on average."""
    return min(huber_delta, max(math.sqrt(2 * float(objective) / problem.rows), PERFECT))


def _polished(minima: Minima, problem: Problem, huber_delta: float) -> Minima:
    """The same, the lowest end gone on from until its gradient is negligible."""
    best = int(np.argmin(minima.objective))
    enough = POLISHED_GRADIENT * problem.rows * pull_of(minima.objective[best], problem, huber_delta)
    polished = polish(Minima(*(getattr(minima, name)[[best]] for name in MINIMA)), problem, huber_delta, enough)
    for name in MINIMA:
        getattr(minima, name)[best] = getattr(polished, name)[0]
    return minima


def _revived(minima: Minima, problem: Problem, huber_delta: float) -> Minima:
    """The same with the ends of what :func:`dropped_terms` finds at the lowest of them in the place of these, as often as that helps."""
    for _ in range(REVIVALS):
        best = int(np.argmin(minima.objective))
        starts = dropped_terms(minima.phi[best], problem, huber_delta)
        if not len(starts):
            break
        lowest = minima.objective[best]
        minima = _replaced(minima, minimize(starts, problem, huber_delta, huber_delta), problem)
        if not minima.objective[best] < lowest:
            break
    return minima


def along_constant(minima: Minima, problem: Problem, huber_delta: float) -> Minima:
    """The same, the lowest ends taken on along a valley to other values of E, where one is lower: minima of nearly one objective lie there."""
    best = int(np.argmin(minima.objective))
    if not minima.lowest_curvature[best] < VALLEY:
        return minima
    term = problem.of_term
    k, values = int(term[-1]) + 1, np.linspace(0, math.exp(problem.log_loss.min()), CONSTANTS + 1)[:-1]
    starts, fixed = np.tile(minima.phi[best], (CONSTANTS, 1)), np.full((CONSTANTS, len(term) + 1), np.nan)
    # What E loses, the terms gain, each by its share.
    starts[:, :-1] *= 1 + ((starts[:, -1] - values) / starts[:, :k].sum(1))[:, None]
    starts[:, -1] = fixed[:, -1] = values
    held = levenberg(starts, problem, huber_delta, STAGE_TOLERANCE, STAGE_STEPS, fixed)
    return _replaced(minima, levenberg(held.phi, problem, huber_delta), problem)


def _replaced(minima: Minima, found: Minima, problem: Problem) -> Minima:
    """The same, the lowest ends taken on to what was found from one of them, where that is lower."""
    best, lowest = int(np.argmin(minima.objective)), int(np.argmin(found.objective))
    if found.objective[lowest] < minima.objective[best] * (1 - SAME_MINIMUM):
        same = at_minimum(minima, best, problem.rows)
        for name in MINIMA:
            getattr(minima, name)[same] = getattr(found, name)[lowest]
    return minima


def _joined(one: Minima, other: Minima) -> Minima:
    return Minima(*(np.concatenate([getattr(one, name), getattr(other, name)]) for name in MINIMA))


def at_minimum(minima: Minima, best: int, n: int) -> NDArray[np.bool_]:
    # Objectives of perfect data are rounding errors, hence the absolute term.
    highest = minima.objective[best] * (1 + SAME_MINIMUM) + n * np.finfo(float).eps ** 2
    return np.asarray(minima.objective <= highest)
