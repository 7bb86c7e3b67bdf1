"""Minimise the Huber objective of a power law from many starts, or on many resamples, at once.

With centred log covariates u_j a law is L = E + sum of A_j·exp(−alpha_j·u_j). The data fix its level E + ΣA_j and its
slopes s_j = alpha_j·A_j well, and the exponents badly: in (alpha, log A, E) the minimum lies in a narrow, curved valley, where
Newton steps crawl. The parameters are therefore phi = (A_1 … A_k, s_1 … s_k, E), in which the valley is straight and all
bounds are simple: A > 0, 0 <= alpha = s/A <= 10, E >= 0. (E, not its logarithm, whose gradient vanishes as E → 0.)

The objective is tiny (1e-5 … 1e-3) and its Hessian jumps where a residual crosses delta, so quasi-Newton methods with
default tolerances stop early. Levenberg steps on the exact Hessian, with delta lowered in stages, do not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# An exponent this high means a jump between two values of a covariate, no power law.
EXPONENT_BOUNDS = (0.0, 10.0)
# Deltas passed through on the way to a smaller one; larger deltas see all rows, hence no distant stall.
FIRST_DELTA, DELTA_RATIO = 3e-2, 0.1
# A stage is left near its minimum only: further off, the next one crawls in steps of its smaller delta.
STAGE_TOLERANCE, STAGE_STEPS = 1e-7, 100
# Starts whose log losses all agree within this share of a stage's delta are one from there on.
SAME_START = 1e-2
# Predicted relative decrease of the objective at which a start has converged.
TOLERANCE = 1e-14
# Squared relative rounding error of a residual: below it, a decrease means nothing.
RESIDUAL_ROUNDING = 1e-31
# No step changes an A_j by more than this factor; one below this many nats does nothing, and goes no further down.
LARGEST_FACTOR, NEGLIGIBLE = 5.0, 1e-9
# Parameters whose scaled curvature is smaller, relative to the largest, are damped as if it were not.
SMALLEST_CURVATURE = 1e-10
DAMPING_FIRST, DAMPING_FLOOR, DAMPING_CEILING = 1e-3, 1e-13, 1e10
# Rows times starts that are evaluated together, so that the work stays in the cache and memory does not grow with either.
BLOCK = 16_384


@dataclass(frozen=True)
class Problem:
    """Rows to fit, the same for all B starts or, with a leading axis of B, each start's own.

    Attributes
    ----------
    u : (k, n) or (B, k, n) centred log covariates.
    log_loss : (n,) or (B, n) natural log of the losses.
    weights : (n,) or (B, n) weight of each row; None for ones.
    overestimate_penalty : weight of rows whose loss the law overestimates, relative to the others.
    """

    u: Array
    log_loss: Array
    weights: Array | None = None
    overestimate_penalty: float = 1.0

    @property
    def rows(self) -> int:
        return self.log_loss.shape[-1]

    @property
    def shared(self) -> bool:
        """Whether all starts see the same rows, losses and weights."""
        return self.u.ndim == 2 and self.log_loss.ndim == 1 and (self.weights is None or self.weights.ndim == 1)

    def block(self, starts: NDArray[np.intp], rows: slice) -> tuple[Array, Array, Array | None]:
        """u, log losses and weights of some starts and rows."""
        u = self.u[..., rows] if self.u.ndim == 2 else self.u[starts, :, rows]
        log_loss = self.log_loss[rows] if self.log_loss.ndim == 1 else self.log_loss[starts, rows]
        if self.weights is None:
            return u, log_loss, None
        return u, log_loss, self.weights[rows] if self.weights.ndim == 1 else self.weights[starts, rows]


@dataclass(frozen=True)
class Minima:
    """Where the starts ended.

    Attributes
    ----------
    phi : (B, 2k+1); objective : (B,).
    gradient : (B, 2k+1) with respect to (alpha, log A, E), zero for parameters held at a bound.
    lowest_curvature : (B,) smallest eigenvalue of the Hessian in phi, scaled to a unit diagonal, of the free parameters.
    """

    phi: Array
    objective: Array
    gradient: Array
    lowest_curvature: Array


def from_exponents(exponents: Array, log_coefficients: Array, constant: Array) -> Array:
    """phi (B, 2k+1) of exponents (B, k), log coefficients for the centred covariates (B, k) and E (B,)."""
    amplitude = np.exp(log_coefficients)
    return np.c_[amplitude, exponents * amplitude, constant]


def exponents(phi: Array) -> Array:
    """Exponents (…, k) of phi (…, 2k+1)."""
    k = phi.shape[-1] // 2
    return np.asarray(phi[..., k : 2 * k] / phi[..., :k])


def predict(phi: Array, u: Array) -> Array:
    """Losses (B, n) in nats at phi (B, 2k+1) for u (k, n) or (B, k, n)."""
    k = phi.shape[-1] // 2
    return np.asarray(np.matmul(phi[:, None, :k], np.exp(-exponents(phi)[:, :, None] * u))[:, 0] + phi[:, 2 * k, None])


def evaluate(
    phi: Array, problem: Problem, delta: float, at: NDArray[np.intp] | None = None
) -> tuple[Array, Array, Array]:
    """Objective (B,), gradient (B, p) and exact Hessian (B, p, p) in phi (B, p), p = 2k+1.

    The objective is the weighted sum over rows of the Huber loss of log L_observed − log L_predicted. `at` says which of the
    problem's starts the B are.
    """
    b, p = phi.shape
    k, n = p // 2, problem.rows
    at = np.arange(b) if at is None else at
    value, gradient, hessian, bend = np.zeros(b), np.zeros((b, p)), np.zeros((b, p, p)), np.zeros((b, k))
    rows = min(n, BLOCK)
    starts = max(1, BLOCK // rows)
    for some in (slice(i, i + starts) for i in range(0, b, starts)):
        amplitude, exponent, constant = phi[some, :k], exponents(phi[some]), phi[some, 2 * k :]
        for these in (slice(i, i + rows) for i in range(0, n, rows)):
            u, log_loss, weights = problem.block(at[some], these)
            power = exponent[:, :, None] * u
            term = np.exp(-power)
            loss = np.matmul(amplitude[:, None, :], term)[:, 0] + constant
            residual = log_loss - np.log(loss)
            slope = np.clip(residual, -delta, delta)
            curvature = slope + (slope == residual)
            huber_loss = slope * (residual - 0.5 * slope)
            if problem.overestimate_penalty != 1:
                over = np.where(residual < 0, problem.overestimate_penalty, 1.0)
                weights = over if weights is None else over * weights
            if weights is not None:
                slope, curvature, huber_loss = slope * weights, curvature * weights, huber_loss * weights
            value[some] += huber_loss.sum(-1)
            # Jacobian of log L, (B, p, n).
            inverse = 1 / loss
            jacobian = np.empty((len(amplitude), p, log_loss.shape[-1]))
            term *= inverse[:, None]
            np.multiply(term, power, out=jacobian[:, :k])
            jacobian[:, :k] += term
            by_slope = np.multiply(term, u, out=jacobian[:, k : 2 * k])
            bend[some] += np.matmul(by_slope * u, slope[..., None])[..., 0]
            np.negative(by_slope, out=by_slope)
            jacobian[:, 2 * k] = inverse
            gradient[some] -= np.matmul(jacobian, slope[..., None])[..., 0]
            hessian[some] += np.matmul(jacobian * curvature[:, None], jacobian.transpose(0, 2, 1))
    # L is linear but for A·exp(−(s/A)·u), whose second derivatives are all multiples of u²·exp(−(s/A)·u)/A.
    alpha, bend = exponents(phi), bend / phi[:, :k]
    i, j = np.arange(k), np.arange(k, 2 * k)
    hessian[:, i, i] -= alpha**2 * bend
    hessian[:, i, j] += alpha * bend
    hessian[:, j, i] = hessian[:, i, j]
    hessian[:, j, j] -= bend
    return value, gradient, hessian


def minimize(
    phi: Array,
    problem: Problem,
    delta: float,
    first_delta: float = FIRST_DELTA,
    tolerance: float = TOLERANCE,
    fixed: Array | None = None,
) -> Minima:
    """Local minima from the starts phi (B, 2k+1), with delta lowered in stages from `first_delta` to the wanted one.

    Starts that meet go on as one, since their ways from there are the same; the result lists them all. `fixed` as in
    :func:`levenberg`.
    """
    stage, way = first_delta, np.arange(len(phi))
    while stage > 1.01 * delta:
        phi = levenberg(phi, problem, stage, STAGE_TOLERANCE, STAGE_STEPS, fixed).phi
        if problem.shared and len(phi) > 1 and fixed is None:
            first, met = _met(np.log(predict(phi, problem.u)), SAME_START * stage)
            phi, way = phi[first], met[way]
        stage *= DELTA_RATIO
    found = levenberg(phi, problem, delta, tolerance, fixed=fixed)
    return Minima(found.phi[way], found.objective[way], found.gradient[way], found.lowest_curvature[way])


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

    `fixed` (B, k+1) holds exponents, and E, where they are not to change; NaN elsewhere.
    """
    b, p = phi.shape
    k = p // 2
    fixed = np.full((b, k + 1), np.nan) if fixed is None else fixed
    phi = _within_bounds(phi, fixed)
    value, gradient, hessian = evaluate(phi, problem, delta)
    model = _Model(phi, gradient, hessian, fixed)
    lowest_curvature = model.lowest.copy()
    damping, active = np.full(b, DAMPING_FIRST), np.arange(b)
    for _ in range(max_steps):
        # An indefinite Hessian needs at least the damping that makes it positive.
        short = model.lowest + damping <= 1e-12
        damping = np.where(short, np.maximum(-1.1 * model.lowest + 1e-6, 4 * damping), damping)
        step = model.step(damping)
        trial = _within_bounds(phi[active] + step, fixed[active], phi[active])
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
            lowest_curvature[last] = _Model(phi[last], gradient[last], hessian[last], fixed[last]).lowest
        active, damping = active[~done], damping[~done]
        if not len(active):
            break
        model = _Model(phi[active], gradient[active], hessian[active], fixed[active])
    else:
        lowest_curvature[active] = model.lowest
    free = _Model.tied(phi, gradient, fixed)[1]
    by_log = phi[:, :k] * free[:, :k] + phi[:, k : 2 * k] * free[:, k : 2 * k]
    by_exponent = phi[:, :k] * free[:, k : 2 * k]
    return Minima(phi, value, np.c_[by_exponent, by_log, free[:, 2 * k]], lowest_curvature)


def _within_bounds(phi: Array, fixed: Array, before: Array | None = None) -> Array:
    """phi with A within reach of `before`, exponents and E within their bounds or at their fixed values."""
    k = phi.shape[1] // 2
    amplitude = phi[:, :k]
    if before is not None:
        amplitude = np.clip(amplitude, before[:, :k] / LARGEST_FACTOR, before[:, :k] * LARGEST_FACTOR)
        amplitude = np.maximum(amplitude, NEGLIGIBLE)
    low, high = (bound * amplitude for bound in EXPONENT_BOUNDS)
    slope = np.where(np.isnan(fixed[:, :k]), np.clip(phi[:, k : 2 * k], low, high), fixed[:, :k] * amplitude)
    constant = np.where(np.isnan(fixed[:, k]), np.maximum(phi[:, 2 * k], 0), fixed[:, k])
    return np.c_[amplitude, slope, constant]


class _Model:
    """Quadratic model at each phi in the free parameters, scaled by the Hessian's diagonal and diagonalised.

    Where an exponent is at a bound that the objective pushes against, or fixed, s_j follows A_j.
    """

    def __init__(self, phi: Array, gradient: Array, hessian: Array, fixed: Array) -> None:
        k, p = phi.shape[1] // 2, phi.shape[1]
        self.tie, self.gradient, held = self.tied(phi, gradient, fixed)
        hessian = hessian.copy()
        tie, i, j = np.where(held[:, k : 2 * k], self.tie, 0.0), np.arange(k), np.arange(k, 2 * k)
        hessian[:, i] += tie[:, :, None] * hessian[:, j]
        hessian[:, :, i] += tie[:, None, :] * hessian[:, :, j]
        hessian[held[:, :, None] | held[:, None, :]] = 0
        # Curvatures compare in natural units: A and s in those of A, E in those of the loss.
        unit = np.c_[phi[:, :k], phi[:, :k], phi[:, :k].sum(1) + phi[:, 2 * k]]
        diagonal = np.abs(np.diagonal(hessian, axis1=1, axis2=2)) * unit**2
        diagonal = np.maximum(diagonal, SMALLEST_CURVATURE * diagonal.max(1, keepdims=True)) + 1e-300
        self.hessian, self.held, self.scale = hessian, held, unit / np.sqrt(diagonal)
        scaled = hessian * self.scale[:, :, None] * self.scale[:, None, :]
        every = np.arange(p)
        scaled[:, every, every] += held  # a held parameter has no step, whatever its curvature
        self.eigenvalues, self.eigenvectors = np.linalg.eigh(scaled)

    @staticmethod
    def tied(phi: Array, gradient: Array, fixed: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
        """Exponents that are held (B, k), the gradient of the free parameters and which are held (B, p)."""
        k = phi.shape[1] // 2
        amplitude, slope, by_slope = phi[:, :k], phi[:, k : 2 * k], gradient[:, k : 2 * k]
        low, high = EXPONENT_BOUNDS
        tie = np.where((slope <= low * amplitude) & (by_slope > 0), low, np.nan)
        tie = np.where((slope >= high * amplitude) & (by_slope < 0), high, tie)
        tie = np.where(np.isnan(fixed[:, :k]), tie, fixed[:, :k])
        held = np.zeros(phi.shape, dtype=bool)
        held[:, k : 2 * k] = ~np.isnan(tie)
        held[:, 2 * k] = ~np.isnan(fixed[:, k]) | ((phi[:, 2 * k] <= 0) & (gradient[:, 2 * k] > 0))
        gradient = gradient.copy()
        gradient[:, :k] += np.where(np.isnan(tie), 0, tie * by_slope)
        held[:, :k] = (amplitude <= NEGLIGIBLE) & (gradient[:, :k] > 0)
        gradient[held] = 0
        return tie, gradient, held

    @property
    def lowest(self) -> Array:
        return np.asarray(self.eigenvalues[:, 0])

    def step(self, damping: Array) -> Array:
        """Step (B, p); that of a tied s_j is left to the bounds."""
        rotated = np.einsum("bpi,bp->bi", self.eigenvectors, self.gradient * self.scale)
        rotated /= self.eigenvalues + damping[:, None]
        return np.asarray(-np.einsum("bpi,bi->bp", self.eigenvectors, rotated) * self.scale)

    def decrease(self, step: Array) -> Array:
        """Predicted decrease (B,) of the objective."""
        step = np.where(self.held, 0, step)
        curvature = np.einsum("bp,bpq,bq->b", step, self.hessian, step)
        return np.asarray(-np.einsum("bp,bp->b", self.gradient, step) - 0.5 * curvature)
