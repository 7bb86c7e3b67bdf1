"""Starts for the fit: screened exponents, since the law is linear in its coefficients once those are given; and wide ones.

Screened starts lie where a law of moderate exponents fits well, and so near one another. Wide ones may have any exponent and any
share of the loss in any term.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gemstones.laws.objective import BLOCK, Problem, exponent_bounds, exponents, from_exponents, predict

Array = NDArray[np.float64]

EXPONENT_GRID = (0.02, 2.5)
# Grid values per exponent of a term of its own, by number of terms; fewer for the factors of a product.
GRID_SIZE = {1: 40, 2: 40, 3: 16, 4: 10}
SMALLEST_GRID, PRODUCT_GRID = 6, 6
# Exponents of a product's further factors, which may be negative.
FACTOR_GRID = (-0.6, 0.6)
# Tuples of exponents that are looked at: all, or so many of them at random.
SCREENED_TUPLES = 12_000
# Starts are drawn from this many best tuples, so that they differ.
SCREENED = 160
# Exponents of wide starts.
WIDE_EXPONENTS = (0.02, 10.0)
# A term with a smaller share of the loss has vanished; it is tried again with a small share and the best of so many exponents.
VANISHED, REVIVED, TRIED, TRIED_OF_PRODUCT, AT_ONCE = 1e-7, 1e-5, 201, 21, 4
# A coefficient that least squares makes negative starts at this share of the mean loss instead.
SMALLEST_SHARE = 1e-6


def screened_starts(problem: Problem, count: int, generator: np.random.Generator) -> Array:
    """Best tuple of exponents of a grid and `count` − 1 others, drawn from the best 160.

    For each tuple of exponents, (A_1 … A_k, E) minimise the weighted sum of squared relative residuals. All tuples share one
    table of inner products, so a tuple costs one (k+1)-dimensional solve, whatever the number of rows.

    Returns
    -------
    (count, p) phi of :mod:`gemstones.laws.objective`; fewer where the grid has fewer points.
    """
    term, n = problem.of_term, problem.rows
    k = int(term[-1]) + 1
    grids = [grid(problem, j) for j in range(k)]
    sizes = np.array([len(each) for each in grids])
    first = np.cumsum(sizes) - sizes
    loss = np.exp(problem.log_loss)
    root = np.ones(n) if problem.weights is None else np.sqrt(problem.weights)
    products, target = np.zeros(2 * [int(sizes.sum()) + 1]), np.zeros(int(sizes.sum()) + 1)
    for rows in (slice(i, i + BLOCK) for i in range(0, n, BLOCK)):
        basis = np.concatenate([np.exp(-grids[j] @ problem.u[term == j][:, rows]) for j in range(k)])
        basis = np.r_[basis, np.ones((1, basis.shape[1]))] * (root[rows] / loss[rows])
        products += basis @ basis.T
        target += basis @ root[rows]  # the target is 1 in every row: relative residuals
    norm = np.sqrt(np.diag(products))
    products, target = products / norm[:, None] / norm, target / norm

    points = _tuples(sizes, generator)
    columns = np.c_[points + first, np.full(len(points), sizes.sum())]
    gram = products[columns[:, :, None], columns[:, None, :]]
    j = np.arange(k + 1)
    gram[:, j, j] *= 1 + 1e-10
    right = target[columns]
    coefficients = np.linalg.solve(gram, right[..., None])[..., 0]
    squares = -(coefficients * right).sum(1)
    # Solutions with all coefficients positive come first; the others are only there for want of better.
    best = np.lexsort((squares, (coefficients < 0).any(1)))[:SCREENED]
    drawn = best[np.sort(generator.permutation(len(best) - 1)[: count - 1] + 1)] if len(best) > 1 else best[:0]
    chosen = np.r_[best[:1], drawn]

    amplitudes = np.maximum(coefficients[chosen] / norm[columns[chosen]], SMALLEST_SHARE * float(loss.mean()))
    alpha = np.concatenate([grids[j][points[chosen, j]] for j in range(k)], axis=1)
    return from_exponents(alpha, np.log(amplitudes[:, :k]), amplitudes[:, k], term)


def wide_starts(problem: Problem, count: int, generator: np.random.Generator) -> Array:
    """Starts (count, p) with exponents of any size, and terms and E that share the mean loss at random."""
    term = problem.of_term
    k, low, high = int(term[-1]) + 1, *exponent_bounds(term)
    lowest, highest = (float(np.log(end)) for end in WIDE_EXPONENTS)
    alpha = np.exp(lowest + (highest - lowest) * generator.random((count, len(term))))
    # Half of the exponents that may be negative are.
    negative = (low < 0) & (generator.random((count, len(term))) < 0.5)
    alpha = np.clip(alpha * np.where(negative, -1, 1), low, high)
    shares = generator.dirichlet(np.ones(k + 1), count)
    level = float(np.exp(problem.log_loss).mean())
    return from_exponents(alpha, np.log(level * np.maximum(shares[:, :k], SMALLEST_SHARE)), level * shares[:, k], term)


def dropped_terms(phi: Array, problem: Problem, delta: float) -> Array:
    """Starts (count, p) from an end phi (p,) at which a term has vanished although another exponent would lower the objective.

    A coefficient of zero is at a minimum only if no exponent makes the objective fall with it: the slope by each term's
    coefficient is looked at for a range of its exponents.
    """
    term = problem.of_term
    k, (low, high) = int(term[-1]) + 1, exponent_bounds(term)
    loss = predict(phi[None], problem.u, term)[0]
    pull = np.clip(problem.log_loss - np.log(loss), -delta, delta)
    pull = pull * np.where(pull < 0, problem.overestimate_penalty, 1.0) / loss
    if problem.weights is not None:
        pull = pull * problem.weights
    found = []
    end = phi.copy()
    flat = np.array([not exponents(phi[None], term)[0, term == j].any() for j in range(k)])
    end[-1] += phi[:k][flat].sum()  # terms without a power are part of E
    for j in range(k):
        own = np.flatnonzero(term == j)
        largest = phi[j] * np.exp(-exponents(phi[None], term)[0, own] @ problem.u[own]).max()
        if not flat[j] and largest > VANISHED * loss.mean():
            continue
        axes = [np.linspace(low[q], high[q], TRIED if len(own) == 1 else TRIED_OF_PRODUCT) for q in own.tolist()]
        tried = np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], axis=1)
        power = -tried @ problem.u[own]
        top = power.max(1, keepdims=True)
        falls = np.exp(power - top) @ pull
        for at in np.unique(np.linspace(0, len(tried) - 1, 1 + AT_ONCE).astype(int))[:-1]:
            some = slice(at, at + -(-len(tried) // AT_ONCE))
            best = at + int(np.argmax(falls[some]))
            if falls[best] <= 0:
                continue
            start = end.copy()
            start[:k][flat] = VANISHED * loss.mean()
            start[j] = REVIVED * loss.mean() * np.exp(-top[best, 0])
            start[k + own] = tried[best] * start[j]
            found.append(start)
    return np.array(found).reshape(-1, len(phi))


def grid(problem: Problem, j: int) -> Array:
    """Exponents (size, factors) of the j-th term that are screened."""
    term = problem.of_term
    factors, k = int((term == j).sum()), int(term[-1]) + 1
    own = np.linspace(*EXPONENT_GRID, GRID_SIZE.get(k, SMALLEST_GRID) if factors == 1 else PRODUCT_GRID)
    axes = [own, *[np.linspace(*FACTOR_GRID, PRODUCT_GRID)] * (factors - 1)]
    return np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], axis=1)


def _tuples(sizes: NDArray[np.intp], generator: np.random.Generator) -> NDArray[np.intp]:
    """Which of each term's exponents a tuple has, (tuples, k)."""
    if sizes.prod() <= SCREENED_TUPLES:
        return np.stack([axis.ravel() for axis in np.meshgrid(*map(np.arange, sizes), indexing="ij")], axis=1)
    return generator.integers(0, sizes, (SCREENED_TUPLES, len(sizes)))
