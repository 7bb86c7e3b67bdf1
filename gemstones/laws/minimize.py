"""Minimise the Huber objective of a power law from many starts, or on many resamples, at once: local minima.

The objective is tiny (1e-5 … 1e-3) and its Hessian jumps where a residual crosses delta, so quasi-Newton methods with
default tolerances stop early. Levenberg steps on the exact Hessian, with delta lowered in stages, do not. Parameters are those of
:mod:`gemstones.laws.objective`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gemstones.laws.objective import (
    HIGHEST_EXPONENT,
    Problem,
    evaluate,
    exponent_bounds,
    exponents,
    predict,
)

Array = NDArray[np.float64]

# An exponent is at a bound if it is so near to it, relatively: s/A is rounded.
AT_BOUND = 1e-12
# Deltas passed through on the way to a smaller one; larger deltas see all rows, hence no distant stall.
FIRST_DELTA, DELTA_RATIO = 3e-2, 0.1
# A stage is left near its minimum only: further off, the next one crawls in steps of its smaller delta.
STAGE_TOLERANCE, STAGE_STEPS = 1e-7, 100
# An end that is not at a minimum yet is gone on from so many times, so many steps each.
POLISHES, POLISH_STEPS = 5, 1000
# What is this near to a bound (of E: as a share of the loss) is put on it first.
NEARLY = 1e-6
# Starts whose log losses all agree within this share of a stage's delta are one from there on.
SAME_START = 1e-2
# Predicted relative decrease of the objective at which a start has converged.
TOLERANCE = 1e-14
# Squared relative rounding error of a residual: below it, a decrease means nothing.
RESIDUAL_ROUNDING = 1e-31
# No step changes an A_j by more than this factor.
LARGEST_FACTOR = 5.0
# No coefficient's log is smaller: floats end.
LEAST_LOG = -650.0
# Parameters whose scaled curvature is smaller, relative to the largest, are damped as if it were not.
SMALLEST_CURVATURE = 1e-10
DAMPING_FIRST, DAMPING_FLOOR, DAMPING_CEILING = 1e-3, 1e-13, 1e10


@dataclass(frozen=True)
class Minima:
    """Where the starts ended; p = k + m + 1 parameters of k terms with m exponents.

    Attributes
    ----------
    phi : (B, p); objective : (B,).
    gradient : (B, p) with respect to (alpha, log A, E), zero for parameters held at a bound.
    lowest_curvature : (B,) smallest eigenvalue of the Hessian in phi, scaled to a unit diagonal, of the free parameters.
    """

    phi: Array
    objective: Array
    gradient: Array
    lowest_curvature: Array


def minimize(
    phi: Array,
    problem: Problem,
    delta: float,
    first_delta: float = FIRST_DELTA,
    tolerance: float = TOLERANCE,
    fixed: Array | None = None,
) -> Minima:
    """Local minima from the starts phi (B, p), with delta lowered in stages from `first_delta` to the wanted one.

    Starts that meet go on as one, since their ways from there are the same; the result lists them all. `fixed` as in
    :func:`levenberg`.
    """
    stage, way = first_delta, np.arange(len(phi))
    while stage > 1.01 * delta:
        phi = levenberg(phi, problem, stage, STAGE_TOLERANCE, STAGE_STEPS, fixed).phi
        if problem.shared and len(phi) > 1 and fixed is None:
            first, met = _met(np.log(predict(phi, problem.u, problem.of_term)), SAME_START * stage)
            phi, way = phi[first], met[way]
        stage *= DELTA_RATIO
    found = levenberg(phi, problem, delta, tolerance, fixed=fixed)
    return Minima(found.phi[way], found.objective[way], found.gradient[way], found.lowest_curvature[way])


def polish(minima: Minima, problem: Problem, delta: float, enough: float) -> Minima:
    """Go on from ends whose gradient is above `enough`, with the first damping again, until it is not or a try changes nothing."""
    for _ in range(POLISHES):
        going = np.flatnonzero(np.linalg.norm(minima.gradient, axis=1) > enough)
        if not len(going):
            break
        found = levenberg(_snapped(minima.phi[going], problem.of_term), problem.of(going), delta, 0.0, POLISH_STEPS)
        lower = found.objective <= minima.objective[going]
        gain = minima.objective[going] - found.objective
        for name in ("phi", "objective", "gradient", "lowest_curvature"):
            getattr(minima, name)[going[lower]] = getattr(found, name)[lower]
        if not (gain > TOLERANCE * found.objective).any():
            break
    return minima


def _snapped(phi: Array, term: NDArray[np.intp]) -> Array:
    """phi with E at 0, and exponents at their bounds, where they have all but reached them: steps beyond a bound are cut short there."""
    k = int(term[-1]) + 1
    alpha, level = exponents(phi, term), phi[:, :k].sum(1) + phi[:, -1]
    for bound in exponent_bounds(term):
        alpha = np.where(np.abs(alpha - bound) < NEARLY, bound, alpha)
    constant = np.where(phi[:, -1] < NEARLY * level, 0.0, phi[:, -1])
    return np.c_[phi[:, :k], alpha * phi[:, term], constant]


def _met(log_loss: Array, tolerance: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Positions of distinct predictions among (B, n), and for each of the B which of those it is."""
    first: list[int] = []
    which = np.zeros(len(log_loss), dtype=np.intp)
    for i, row in enumerate(log_loss):
        same = [j for j, other in enumerate(first) if np.abs(row - log_loss[other]).max() <= tolerance]
        which[i] = same[0] if same else len(first)
        if not same:
            first.append(i)
    return np.array(first), which


def levenberg(
    phi: Array,
    problem: Problem,
    delta: float,
    tolerance: float = TOLERANCE,
    max_steps: int = 400,
    fixed: Array | None = None,
) -> Minima:
    """Damped Newton steps within the bounds, every start at its own damping, until each predicts no further decrease.

    `fixed` (B, m+1) holds exponents, and E, where they are not to change; NaN elsewhere.
    """
    b, term = len(phi), problem.of_term
    k, m = int(term[-1]) + 1, len(term)
    fixed = np.full((b, m + 1), np.nan) if fixed is None else fixed
    every = np.arange(b)
    phi = _within_bounds(phi, fixed, term)
    value, gradient, hessian = evaluate(phi, problem, delta)
    model = _Model(phi, gradient, hessian, fixed, problem, every)
    lowest_curvature = model.lowest.copy()
    damping, active = np.full(b, DAMPING_FIRST), every
    for _ in range(max_steps):
        # An indefinite Hessian needs at least the damping that makes it positive.
        short = model.lowest + damping <= 1e-12
        damping = np.where(short, np.maximum(-1.1 * model.lowest + 1e-6, 4 * damping), damping)
        step = model.step(damping)
        trial = _within_bounds(phi[active] + step, model.tie, term, phi[active])
        trial = _above_floor(trial, problem, active)
        predicted = model.decrease(trial - phi[active])
        trial_value, trial_gradient, trial_hessian = evaluate(trial, problem, delta, active)
        decrease = value[active] - trial_value
        accepted = (decrease > 0) & (decrease > 1e-4 * predicted)
        good, poor = accepted & (decrease > 0.75 * predicted), accepted & (decrease < 0.25 * predicted)
        damping = damping * np.select([~accepted, good, poor], [5.0, 0.15, 2.0], 1.0)
        damping = np.maximum(damping, np.where(accepted, DAMPING_FLOOR, 1e-7))
        rounding = RESIDUAL_ROUNDING * problem.rows
        done = (model.decrease(step) <= tolerance * value[active] + rounding) | (damping > DAMPING_CEILING)
        at = active[accepted]
        phi[at], value[at] = trial[accepted], trial_value[accepted]
        gradient[at], hessian[at] = trial_gradient[accepted], trial_hessian[accepted]
        if done.any():
            last = active[done]
            lowest_curvature[last] = _Model(phi[last], gradient[last], hessian[last], fixed[last], problem, last).lowest
        active, damping = active[~done], damping[~done]
        if not len(active):
            break
        model = _Model(phi[active], gradient[active], hessian[active], fixed[active], problem, active)
    else:
        lowest_curvature[active] = model.lowest
    free = _Tied.at(phi, gradient, fixed, problem, every).gradient
    by_log = phi[:, :k] * free[:, :k]
    for j in range(k):
        by_log[:, j] += (phi[:, k : k + m] * free[:, k : k + m])[:, term == j].sum(1)
    by_exponent = phi[:, term] * free[:, k : k + m]
    return Minima(phi, value, np.c_[by_exponent, by_log, free[:, -1]], lowest_curvature)


def _within_bounds(phi: Array, fixed: Array, term: NDArray[np.intp], before: Array | None = None) -> Array:
    """phi with A within reach of `before`, exponents and E within their bounds or, where `fixed` (B, m+1) is not NaN, at it."""
    k, m = int(term[-1]) + 1, len(term)
    amplitude = phi[:, :k]
    if before is not None:
        amplitude = np.clip(amplitude, before[:, :k] / LARGEST_FACTOR, before[:, :k] * LARGEST_FACTOR)
    low, high = (bound * amplitude[:, term] for bound in exponent_bounds(term))
    slope = np.clip(phi[:, k : k + m], low, high)
    slope = np.where(np.isnan(fixed[:, :m]), slope, fixed[:, :m] * amplitude[:, term])
    constant = np.where(np.isnan(fixed[:, m]), np.maximum(phi[:, -1], 0), fixed[:, m])
    return np.c_[amplitude, slope, constant]


def _above_floor(phi: Array, problem: Problem, starts: NDArray[np.intp]) -> Array:
    """phi with coefficients that are told from zero, at the same exponents."""
    term = problem.of_term
    k, m = int(term[-1]) + 1, len(term)
    alpha = exponents(phi, term)
    amplitude = np.maximum(phi[:, :k], np.exp(np.maximum(problem.floor(alpha, starts), LEAST_LOG)))
    slope = np.where(amplitude[:, term] > phi[:, term], alpha * amplitude[:, term], phi[:, k : k + m])
    return np.c_[amplitude, slope, phi[:, -1]]


@dataclass(frozen=True)
class _Tied:
    """Which parameters are free at each phi, and the gradient (B, p) along them.

    Where an exponent is at a bound that the objective pushes against, or fixed, s_q follows A_j: `tie` (B, m+1) holds such
    exponents, and E where it does not move; NaN elsewhere. `held` (B, p) parameters have no step of their own.
    """

    tie: Array
    gradient: Array
    held: NDArray[np.bool_]

    @classmethod
    def at(cls, phi: Array, gradient: Array, fixed: Array, problem: Problem, starts: NDArray[np.intp]) -> _Tied:
        term = problem.of_term
        k, m = int(term[-1]) + 1, len(term)
        amplitude, slope, by_slope = phi[:, term], phi[:, k : k + m], gradient[:, k : k + m]
        low, high = exponent_bounds(term)
        near = AT_BOUND * HIGHEST_EXPONENT * amplitude
        tie = np.where((slope <= low * amplitude + near) & (by_slope > 0), low, np.nan)
        tie = np.where((slope >= high * amplitude - near) & (by_slope < 0), high, tie)
        tie = np.where(np.isnan(fixed[:, :m]), tie, fixed[:, :m])
        held = np.zeros(phi.shape, dtype=bool)
        held[:, k : k + m] = ~np.isnan(tie)
        at_zero = (phi[:, -1] <= 0) & (gradient[:, -1] > 0)
        constant = np.where(np.isnan(fixed[:, m]), np.where(at_zero, 0.0, np.nan), fixed[:, m])
        held[:, -1] = ~np.isnan(constant)
        gradient = gradient.copy()
        for q, j in enumerate(term.tolist()):
            gradient[:, j] += np.where(np.isnan(tie[:, q]), 0, tie[:, q] * by_slope[:, q])
        floor = np.exp(np.maximum(problem.floor(exponents(phi, term), starts), LEAST_LOG))
        held[:, :k] = (phi[:, :k] <= floor * (1 + 1e-9)) & (gradient[:, :k] > 0)
        gradient[held] = 0
        return cls(np.c_[tie, constant], gradient, held)


class _Model:
    """Quadratic model at each phi in the free parameters, scaled by the Hessian's diagonal and diagonalised."""

    def __init__(
        self, phi: Array, gradient: Array, hessian: Array, fixed: Array, problem: Problem, starts: NDArray[np.intp]
    ) -> None:
        term = problem.of_term
        (b, p), k, m = phi.shape, int(term[-1]) + 1, len(term)
        tied = _Tied.at(phi, gradient, fixed, problem, starts)
        self.tie, self.gradient, held = tied.tie, tied.gradient, tied.held
        # A step of A_j takes those of its s_q along that are tied to it.
        along = np.tile(np.eye(p), (b, 1, 1))
        along[:, term, np.arange(k, k + m)] = np.where(held[:, k : k + m], np.nan_to_num(self.tie[:, :m]), 0.0)
        hessian = along @ hessian @ along.transpose(0, 2, 1)
        hessian[held[:, :, None] | held[:, None, :]] = 0
        # Curvatures compare in natural units: A and s in those of A, E in those of the loss.
        unit = np.c_[phi[:, :k], phi[:, term], phi[:, :k].sum(1) + phi[:, -1]]
        natural = np.abs(hessian) * unit[:, :, None] * unit[:, None, :]
        diagonal = np.diagonal(natural, axis1=1, axis2=2)
        # Of a Hessian that is positive, H_ij² <= H_ii·H_jj. Where it is not, a parameter is as stiff as its mixed curvatures.
        mixed = np.minimum(natural**2 / np.maximum(diagonal[:, None, :], 1e-300), natural)
        diagonal = np.maximum(diagonal, mixed.max(2))
        diagonal = np.maximum(diagonal, SMALLEST_CURVATURE * diagonal.max(1, keepdims=True)) + 1e-300
        self.hessian, self.held, self.scale = hessian, held, unit / np.sqrt(diagonal)
        scaled = hessian * self.scale[:, :, None] * self.scale[:, None, :]
        every = np.arange(p)
        scaled[:, every, every] += held  # a held parameter has no step, whatever its curvature
        self.eigenvalues, self.eigenvectors = np.linalg.eigh(scaled)

    @property
    def lowest(self) -> Array:
        return np.asarray(self.eigenvalues[:, 0])

    def step(self, damping: Array) -> Array:
        """Step (B, p); that of a tied s_q is left to :func:`_within_bounds`."""
        rotated = np.einsum("bpi,bp->bi", self.eigenvectors, self.gradient * self.scale)
        rotated /= self.eigenvalues + damping[:, None]
        return np.asarray(-np.einsum("bpi,bi->bp", self.eigenvectors, rotated) * self.scale)

    def decrease(self, step: Array) -> Array:
        """Predicted decrease (B,) of the objective."""
        step = np.where(self.held, 0, step)
        curvature = np.einsum("bp,bpq,bq->b", step, self.hessian, step)
        return np.asarray(-np.einsum("bp,bp->b", self.gradient, step) - 0.5 * curvature)
