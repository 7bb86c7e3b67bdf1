"""How well the rows determine a law: what each parameter may be while the objective stays within 1 % of its minimum."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gemstones.laws.fit import HuberFit, columns_of, phi_of, problem_of
from gemstones.laws.minimize import minimize
from gemstones.laws.objective import exponent_bounds, exponents
from gemstones.laws.power_law import exponent_names, term_numbers
from gemstones.laws.rows import read_rows

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

# Relative excess of the objective at the ends of a range.
EXCESS = 0.01
# A range's end is known to this share of its distance from the optimum; it is sought in so many steps at most.
PRECISION, MOST_STEPS = 0.05, 40
# First step from the optimum: in exponents, and as a share of the lowest loss in E.
FIRST_STEP = 0.02
# Delta, relative to the fit's, at which each step starts, and where it stops: the objective is wanted to far less than 1 %.
FIRST_DELTA, PROFILE_TOLERANCE = 10.0, 1e-5


def ranges(fit: HuberFit, table: pd.DataFrame) -> dict[str, list[float]]:
    """Profile of each parameter: the interval within which the objective, minimised over all others, exceeds its minimum by 1 %.

    Parameters
    ----------
    fit : the law fitted to the rows of `table`.

    Returns
    -------
    [low, high] by parameter: the exponents (:func:`~gemstones.laws.power_law.exponent_names`) and irreducible_loss. Where even a
    bound (of an exponent, E of 0 or of the lowest loss) is within 1 %, the range ends there.
    """
    rows = read_rows(table, columns_of(fit.law.covariates, fit.law.param_count), "ranges", fit.weights)
    problem, centre = problem_of(rows, fit.law.covariates, fit.overestimate_penalty)
    phi = phi_of(fit.law, centre)
    m = len(centre)
    optimum = np.r_[exponents(phi, problem.of_term)[0], phi[0, -1]]
    lowest_loss = float(rows.values[:, -1].min())
    bounds = [*zip(*exponent_bounds(problem.of_term), strict=True), (0.0, lowest_loss)]
    # Two problems a parameter: its lower and its upper end.
    parameter, side = np.repeat(np.arange(m + 1), 2), np.tile([0, 1], m + 1)
    bound = np.array([bounds[j][i] for j, i in zip(parameter, side, strict=True)])
    center = optimum[parameter]
    step = np.where(parameter < m, FIRST_STEP, FIRST_STEP * lowest_loss) * np.where(side, 1, -1)
    at = np.repeat(phi, len(parameter), 0)
    inside, outside, excess = center.copy(), np.full(len(center), np.nan), np.zeros(len(center))
    target = fit.objective * (1 + EXCESS)
    going = np.flatnonzero(center != bound)
    for _ in range(MOST_STEPS):
        if not len(going):
            break
        trial = np.where(np.isnan(outside), inside + step, _between(inside, outside, excess))[going]
        trial = np.where(side[going] == 1, np.minimum(trial, bound[going]), np.maximum(trial, bound[going]))
        fixed = np.full((len(going), m + 1), np.nan)
        fixed[np.arange(len(going)), parameter[going]] = trial
        found = minimize(at[going], problem, fit.huber_delta, FIRST_DELTA * fit.huber_delta, PROFILE_TOLERANCE, fixed)
        within = found.objective <= target
        hit = going[within]
        inside[hit], at[hit], step[hit] = trial[within], found.phi[within], 2 * step[hit]
        excess[hit] = found.objective[within] / fit.objective - 1
        outside[going[~within]] = trial[~within]
        close = np.abs(outside - inside) <= PRECISION * np.abs(outside - center)
        going = going[~(close[going] | (inside[going] == bound[going]))]
    names = [*exponent_names(fit.law.covariates), "irreducible_loss"]
    return {name: inside[parameter == j].tolist() for j, name in enumerate(names)}


def open_ends(fit: HuberFit, found: dict[str, list[float]]) -> list[str]:
    """What :func:`ranges` leaves open, one sentence each, where the optimum itself is inside its bounds."""
    sentences = []
    lowest, highest = exponent_bounds(term_numbers(fit.law.covariates))
    bounds = [*zip(lowest.tolist(), highest.tolist(), strict=True), (0.0, np.inf)]
    values = (*fit.law.flat_exponents, fit.law.irreducible_loss)
    for name, value, bounded in zip(found, values, bounds, strict=True):
        for end, bound in zip(found[name], bounded, strict=True):
            if end == bound != value:
                what = name.replace("_", " ", 1)
                sentences.append(f"{what} is hardly identified: {bound:g} raises the objective by less than 1 %")
    return sentences


def _between(inside: Array, outside: Array, excess: Array) -> Array:
    """Where the objective should cross its limit, were it quadratic, but well within the two ends."""
    share = np.clip(1 - np.sqrt(np.maximum(excess, 0) / EXCESS), 0.1, 0.5)
    return np.asarray(inside + share * (outside - inside))
