"""Minimise the Huber objective of a power law from many starts at once.

theta = (alpha_1 … alpha_k, c_1 … c_k, E) with log L = log(E + sum of exp(c_j − alpha_j·u_j)), where the u_j are centred
log covariates, so that c_j and alpha_j are nearly uncorrelated. E itself, not its logarithm, is a parameter: with
log E, the gradient vanishes as E → 0 and starts are caught there. Exponents and E are bounded at 0.

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
FIRST_DELTA, DELTA_RATIO = 3e-2, 10**-0.5
# A stage is left near its minimum only: further off, the next one crawls in steps of its smaller delta.
STAGE_TOLERANCE, STAGE_STEPS = 1e-7, 100
# Starts whose log losses all agree within this share of a stage's delta are one from there on.
SAME_START = 1e-2
# Predicted relative decrease of the objective at which a start has converged.
TOLERANCE = 1e-14
# Squared relative rounding error of a residual: below it, a decrease means nothing.
RESIDUAL_ROUNDING = 1e-31
# exp() of this stays finite when summed and squared.
EXPONENT_CLIP = 300.0
# An exponent so close to a bound is at it; so is an E below this share of the smallest loss.
EXPONENT_ROUNDING, NEGLIGIBLE_SHARE = 1e-9, 1e-6
# Longest step in any parameter; a few e-folds of a coefficient.
LONGEST_STEP = 5.0
DAMPING_FIRST, DAMPING_FLOOR, DAMPING_CEILING = 1e-3, 1e-13, 1e10


@dataclass(frozen=True)
class Problem:
    """Rows to fit.

    Attributes
    ----------
    u : (n, k) centred log covariates.
    log_loss : (n,) natural log of the losses.
    weights : (n,) or (B, n) weight of each row, for B starts; None for ones.
    """

    u: Array
    log_loss: Array
    weights: Array | None = None

    def bounds(self) -> tuple[Array, Array]:
        k = self.u.shape[1]
        low, high = EXPONENT_BOUNDS
        return np.r_[np.full(k, low), np.full(k, -np.inf), 0.0], np.r_[np.full(k, high), np.full(k + 1, np.inf)]

    def rows_of(self, starts: NDArray[np.intp]) -> Problem:
        """The problem as seen by some of the starts."""
        if self.weights is None or self.weights.ndim == 1:
            return self
        return Problem(self.u, self.log_loss, self.weights[starts])


@dataclass(frozen=True)
class Minima:
    """Where the starts ended: theta (B, 2k+1), objective (B,), free gradient (B, 2k+1), Levenberg steps (B,)."""

    theta: Array
    objective: Array
    gradient: Array
    steps: NDArray[np.intp]


def predict(theta: Array, u: Array) -> tuple[Array, Array]:
    """Terms (B, n, k) and loss (B, n) in nats at theta (B, 2k+1)."""
    k = u.shape[1]
    terms = np.exp(np.clip(theta[:, None, k : 2 * k] - theta[:, None, :k] * u, -EXPONENT_CLIP, EXPONENT_CLIP))
    return terms, terms.sum(-1) + theta[:, 2 * k, None]


def objective(theta: Array, problem: Problem, delta: float) -> Array:
    """Weighted sum of the Huber loss of the log residuals, (B,), at theta (B, 2k+1)."""
    from scipy.special import huber

    with np.errstate(divide="ignore"):
        residual = problem.log_loss - np.log(predict(theta, problem.u)[1])
    rows = huber(delta, residual)
    return np.asarray((rows if problem.weights is None else rows * problem.weights).sum(-1))


def derivatives(theta: Array, problem: Problem, delta: float) -> tuple[Array, Array]:
    """Gradient (B, p) and exact Hessian (B, p, p) of the objective at theta (B, p), p = 2k+1."""
    u, k = problem.u, problem.u.shape[1]
    terms, loss = predict(theta, u)
    residual = problem.log_loss - np.log(loss)
    slope = np.clip(residual, -delta, delta)
    curvature = (np.abs(residual) <= delta).astype(float)
    if problem.weights is not None:
        slope, curvature = slope * problem.weights, curvature * problem.weights
    share = terms / loss[..., None]
    # Jacobian of log L with respect to (alpha, c, E).
    jacobian = np.concatenate([-share * u, share, 1 / loss[..., None]], axis=-1)
    gradient = -np.matmul(slope[:, None, :], jacobian)[:, 0]
    hessian = np.matmul((jacobian * (curvature + slope)[..., None]).transpose(0, 2, 1), jacobian)
    alpha, c = np.arange(k), np.arange(k, 2 * k)
    slope_share = slope[..., None] * share
    hessian[:, c, c] -= slope_share.sum(1)
    hessian[:, alpha, c] += (slope_share * u).sum(1)
    hessian[:, c, alpha] = hessian[:, alpha, c]
    hessian[:, alpha, alpha] -= (slope_share * u * u).sum(1)
    return gradient, hessian


def minimize(theta: Array, problem: Problem, delta: float) -> Minima:
    """Local minima from the starts theta (B, 2k+1), with delta lowered in stages to the wanted one.

    Starts that meet go on as one, since their ways from there are the same; the result lists them all.
    """
    stage, steps, way = FIRST_DELTA, np.zeros(len(theta), dtype=np.intp), np.arange(len(theta))
    while stage > 1.01 * delta:
        theta, taken = levenberg(theta, problem, stage, STAGE_TOLERANCE, STAGE_STEPS)
        steps += taken[way]
        if problem.weights is None or problem.weights.ndim == 1:  # else each start has rows of its own
            first, met = _met(np.log(predict(theta, problem.u)[1]), SAME_START * stage)
            theta, way = theta[first], met[way]
        stage *= DELTA_RATIO
    theta, taken = levenberg(theta, problem, delta)
    theta = _on_bounds(theta, problem, delta)
    gradient = derivatives(theta, problem, delta)[0]
    gradient[_held(theta, gradient, *problem.bounds())] = 0
    value = objective(theta, problem, delta)
    return Minima(theta[way], value[way], gradient[way], steps + taken[way])


def _on_bounds(theta: Array, problem: Problem, delta: float) -> Array:
    """Put exponents and E that are next to a bound on it, where this does not raise the objective."""
    low, high = problem.bounds()
    near = np.full(theta.shape[1], EXPONENT_ROUNDING)
    near[-1] = NEGLIGIBLE_SHARE * np.exp(problem.log_loss.min())
    for j in np.flatnonzero(np.isfinite(low)):
        for bound in (low[j], high[j]):
            moved = theta.copy()
            moved[np.abs(theta[:, j] - bound) < near[j], j] = bound
            worse = objective(moved, problem, delta) > objective(theta, problem, delta)
            theta = np.where(worse[:, None], theta, moved)
    return theta


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
    theta: Array, problem: Problem, delta: float, tolerance: float = TOLERANCE, max_steps: int = 400
) -> tuple[Array, NDArray[np.intp]]:
    """Damped Newton steps within the bounds, every start at its own damping, until each predicts no further decrease.

    Returns
    -------
    theta (B, 2k+1) and the number of steps tried (B,).
    """
    low, high = problem.bounds()
    theta = np.clip(theta, low, high)
    value = objective(theta, problem, delta)
    rounding = RESIDUAL_ROUNDING * len(problem.log_loss)
    damping = np.full(len(theta), DAMPING_FIRST)
    steps = np.zeros(len(theta), dtype=np.intp)
    model = _Model.empty(*theta.shape)
    stale = active = np.arange(len(theta))
    while len(active):
        if len(stale):
            model.update(stale, theta, *derivatives(theta[stale], problem.rows_of(stale), delta), low, high)
        # An indefinite Hessian needs at least the damping that makes it positive.
        lowest = model.eigenvalues[active, 0]
        short = lowest + damping[active] <= 1e-12
        damping[active] = np.where(short, np.maximum(-1.1 * lowest + 1e-6, 4 * damping[active]), damping[active])
        step, unbounded = model.step(active, damping[active])
        trial = np.clip(theta[active] + step, low, high)
        predicted = model.decrease(active, trial - theta[active])
        trial_value = objective(trial, problem.rows_of(active), delta)
        decrease = value[active] - trial_value
        accepted = (decrease > 0) & (decrease > 1e-4 * predicted)
        steps[active] += 1
        theta[active[accepted]], value[active[accepted]] = trial[accepted], trial_value[accepted]
        good, poor = accepted & (decrease > 0.75 * predicted), accepted & (decrease < 0.25 * predicted)
        factor = np.select([~accepted, good, poor], [5.0, 0.15, 2.0], 1.0)
        damping[active] = np.maximum(damping[active] * factor, np.where(accepted, DAMPING_FLOOR, 1e-7))
        done = (unbounded <= tolerance * value[active] + rounding) | (damping[active] > DAMPING_CEILING)
        going = ~done & (steps[active] < max_steps)
        stale, active = active[going & accepted], active[going]
    return theta, steps


@dataclass
class _Model:
    """Quadratic model of each start, scaled by the Hessian's diagonal and diagonalised; bounded parameters are held."""

    gradient: Array
    hessian: Array
    scale: Array
    eigenvalues: Array
    eigenvectors: Array

    @classmethod
    def empty(cls, starts: int, p: int) -> _Model:
        return cls(*(np.zeros(shape) for shape in [(starts, p), (starts, p, p)] + [(starts, p)] * 2 + [(starts, p, p)]))

    def update(
        self, at: NDArray[np.intp], theta: Array, gradient: Array, hessian: Array, low: Array, high: Array
    ) -> None:
        held = _held(theta[at], gradient, low, high)
        gradient = np.where(held, 0.0, gradient)
        hessian = np.where(held[:, :, None] | held[:, None, :], 0.0, hessian)
        diagonal = np.abs(np.diagonal(hessian, axis1=1, axis2=2))
        diagonal = np.maximum(diagonal, 1e-6 * diagonal.max(1, keepdims=True)) + 1e-300
        scale = 1 / np.sqrt(diagonal)
        scaled = hessian * scale[:, :, None] * scale[:, None, :]
        p = np.arange(theta.shape[1])
        scaled[:, p, p] += held  # a held parameter has no step, whatever its curvature
        self.gradient[at], self.hessian[at], self.scale[at] = gradient, hessian, scale
        self.eigenvalues[at], self.eigenvectors[at] = np.linalg.eigh(scaled)

    def step(self, at: NDArray[np.intp], damping: Array) -> tuple[Array, Array]:
        """Step (B, p) and the decrease (B,) that it predicts where no bound is met."""
        rotated = np.einsum("bpi,bp->bi", self.eigenvectors[at], self.gradient[at] * self.scale[at])
        rotated /= self.eigenvalues[at] + damping[:, None]
        step = -np.einsum("bpi,bi->bp", self.eigenvectors[at], rotated) * self.scale[at]
        step *= np.minimum(1, LONGEST_STEP / np.maximum(np.abs(step).max(1), 1e-300))[:, None]
        return step, self.decrease(at, step)

    def decrease(self, at: NDArray[np.intp], step: Array) -> Array:
        curvature = np.einsum("bp,bpq,bq->b", step, self.hessian[at], step)
        return -np.einsum("bp,bp->b", self.gradient[at], step) - 0.5 * np.asarray(curvature)


def _held(theta: Array, gradient: Array, low: Array, high: Array) -> NDArray[np.bool_]:
    """Parameters at a bound that the objective pushes outwards."""
    return ((theta <= low) & (gradient > 0)) | ((theta >= high) & (gradient < 0))
