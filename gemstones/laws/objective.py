"""The Huber objective of a power law, with its gradient and exact Hessian, at many starts or on many resamples at once.

With centred log covariates u_q a law is L = E + sum over terms j of A_j·exp(−sum over q in j of alpha_q·u_q); most terms have one
factor, a product has several. The data fix its level E + ΣA_j and its slopes s_q = alpha_q·A_j well, and the exponents badly: in
(alpha, log A, E) the minimum lies in a narrow, curved valley, where Newton steps crawl. The parameters are therefore
phi = (A_1 … A_k, s_1 … s_m, E), in which the valley is straight and all bounds are simple: A > 0, 0 <= alpha = s/A <= 10,
E >= 0. (E, not its logarithm, whose gradient vanishes as E → 0.) Of a product's factors, only the first exponent has to be
positive: the others lie between −10 and 10, since how fast one covariate helps may rise or fall with another.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# An exponent this high means a jump between two values of a covariate, no power law. Its negative is the lower bound of the
# exponents of a product's further factors; zero is that of all others.
HIGHEST_EXPONENT = 10.0
# Rows times starts that are evaluated together, so that the work stays in the cache and memory does not grow with either.
BLOCK = 16_384
# A term below this many nats does nothing.
NEGLIGIBLE = 1e-9


@dataclass(frozen=True)
class Problem:
    """Rows to fit, the same for all B starts or, with a leading axis of B, each start's own.

    Attributes
    ----------
    u : (m, n) or (B, m, n) centred log covariates, one for each exponent.
    log_loss : (n,) or (B, n) natural log of the losses.
    weights : (n,) or (B, n) weight of each row; None for ones.
    overestimate_penalty : weight of rows whose loss the law overestimates, relative to the others.
    term : (m,) ascending, the term that each exponent belongs to; None if each has a term of its own.
    """

    u: Array
    log_loss: Array
    weights: Array | None = None
    overestimate_penalty: float = 1.0
    term: NDArray[np.intp] | None = None

    @property
    def rows(self) -> int:
        return self.log_loss.shape[-1]

    @property
    def of_term(self) -> NDArray[np.intp]:
        """(m,) the term of each exponent."""
        return np.arange(self.u.shape[-2]) if self.term is None else self.term

    def floor(self, exponents: Array, starts: NDArray[np.intp]) -> Array:
        """Log of the smallest coefficients (B, k) that are told from zero: their terms are NEGLIGIBLE wherever these are largest.

        Of a product it is that of the largest values of its factors, which no row need have together.
        """
        term = self.of_term
        low, high = self.u.min(-1), self.u.max(-1)
        if self.u.ndim == 3:
            low, high = low[starts], high[starts]
        largest = np.maximum(-exponents * low, -exponents * high)
        by_term = np.stack([largest[:, term == j].sum(1) for j in range(int(term[-1]) + 1)], axis=1)
        return np.log(NEGLIGIBLE) - by_term

    @property
    def shared(self) -> bool:
        """Whether all starts see the same rows, losses and weights."""
        return self.u.ndim == 2 and self.log_loss.ndim == 1 and (self.weights is None or self.weights.ndim == 1)

    def of(self, starts: NDArray[np.intp]) -> Problem:
        """The problem of some starts alone."""
        if self.shared:
            return self
        u = self.u if self.u.ndim == 2 else self.u[starts]
        log_loss = self.log_loss if self.log_loss.ndim == 1 else self.log_loss[starts]
        weights = self.weights if self.weights is None or self.weights.ndim == 1 else self.weights[starts]
        return replace(self, u=u, log_loss=log_loss, weights=weights)

    def block(self, starts: NDArray[np.intp], rows: slice) -> tuple[Array, Array, Array | None]:
        """u, log losses and weights of some starts and rows."""
        u = self.u[..., rows] if self.u.ndim == 2 else self.u[starts, :, rows]
        log_loss = self.log_loss[rows] if self.log_loss.ndim == 1 else self.log_loss[starts, rows]
        if self.weights is None:
            return u, log_loss, None
        return u, log_loss, self.weights[rows] if self.weights.ndim == 1 else self.weights[starts, rows]


def exponent_bounds(term: NDArray[np.intp]) -> tuple[Array, Array]:
    """Lowest and highest exponents (m,), for the term that each belongs to: the first of a term is at least 0."""
    first = np.r_[True, np.diff(term) > 0]
    return np.where(first, 0.0, -HIGHEST_EXPONENT), np.full(len(term), HIGHEST_EXPONENT)


def from_exponents(exponents: Array, log_coefficients: Array, constant: Array, term: NDArray[np.intp]) -> Array:
    """phi (B, p) of exponents (B, m), log coefficients for the centred covariates (B, k) and E (B,)."""
    amplitude = np.exp(log_coefficients)
    return np.c_[amplitude, exponents * amplitude[:, term], constant]


def exponents(phi: Array, term: NDArray[np.intp]) -> Array:
    """Exponents (…, m) of phi (…, p)."""
    k, m = int(term[-1]) + 1, len(term)
    return np.asarray(phi[..., k : k + m] / phi[..., term])


def predict(phi: Array, u: Array, term: NDArray[np.intp]) -> Array:
    """Losses (B, n) in nats at phi (B, p) for u (m, n) or (B, m, n)."""
    k = int(term[-1]) + 1
    power = _by_term(exponents(phi, term)[:, :, None] * u, term)
    return np.asarray(np.matmul(phi[:, None, :k], np.exp(-power))[:, 0] + phi[:, -1, None])


def _by_term(of_exponents: Array, term: NDArray[np.intp]) -> Array:
    """Sums (B, k, n) over the exponents of each term, of (B, m, n)."""
    if term[-1] + 1 == len(term):
        return of_exponents
    return np.asarray(np.add.reduceat(of_exponents, np.flatnonzero(np.r_[True, np.diff(term) > 0]), axis=1))


def evaluate(
    phi: Array, problem: Problem, delta: float, at: NDArray[np.intp] | None = None
) -> tuple[Array, Array, Array]:
    """Objective (B,), gradient (B, p) and exact Hessian (B, p, p) in phi (B, p).

    The objective is the weighted sum over rows of the Huber loss of log L_observed − log L_predicted. `at` says which of the
    problem's starts the B are.
    """
    term_of = problem.of_term
    (b, p), n, k, m = phi.shape, problem.rows, int(term_of[-1]) + 1, len(term_of)
    at = np.arange(b) if at is None else at
    # Pairs of exponents of one term.
    q, r = np.nonzero(np.triu(term_of[:, None] == term_of))
    plain = k == m  # each term has one: nothing has to be gathered
    value, gradient, hessian, bend = np.zeros(b), np.zeros((b, p)), np.zeros((b, p, p)), np.zeros((b, len(q)))
    rows = min(n, BLOCK)
    starts = max(1, BLOCK // rows)
    for some in (slice(i, i + starts) for i in range(0, b, starts)):
        amplitude, exponent, constant = phi[some, :k], exponents(phi[some], term_of), phi[some, -1:]
        for these in (slice(i, i + rows) for i in range(0, n, rows)):
            u, log_loss, weights = problem.block(at[some], these)
            power = _by_term(exponent[:, :, None] * u, term_of)
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
            by_slope = np.multiply(term if plain else term[:, term_of], u, out=jacobian[:, k : k + m])
            bent = by_slope * u if plain else by_slope[:, q] * u[..., r, :]
            bend[some] += np.matmul(bent, slope[..., None])[..., 0]
            np.negative(by_slope, out=by_slope)
            jacobian[:, -1] = inverse
            gradient[some] -= np.matmul(jacobian, slope[..., None])[..., 0]
            hessian[some] += np.matmul(jacobian * curvature[:, None], jacobian.transpose(0, 2, 1))
    _bend(hessian, bend, phi, term_of, q, r)
    return value, gradient, hessian


def _bend(
    hessian: Array,
    bend: Array,
    phi: Array,
    term: NDArray[np.intp],
    q: NDArray[np.intp],
    r: NDArray[np.intp],
) -> None:
    """Add what comes of the bend of L itself to Hessians (B, p, p).

    L is linear but for A·exp(−sum of (s_q/A)·u_q), whose second derivatives are those of its slopes, u_q·u_r·exp(…)/A, once or
    twice times an exponent: `bend` (B, pairs q <= r of one term) holds their sums over rows, times A.
    """
    k, alpha = int(term[-1]) + 1, exponents(phi, term)
    bend = bend / phi[:, term[q]]
    for i, (one, other) in enumerate(zip(q.tolist(), r.tolist(), strict=True)):
        for a, b in {(one, other), (other, one)}:
            j = int(term[a])
            hessian[:, k + a, k + b] -= bend[:, i]
            hessian[:, j, k + a] += alpha[:, b] * bend[:, i]
            hessian[:, k + a, j] += alpha[:, b] * bend[:, i]
            hessian[:, j, j] -= alpha[:, a] * alpha[:, b] * bend[:, i]
