"""Starts for the fit: a screened grid of exponents, since the law is linear in its coefficients once those are given."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gemstones.laws.minimize import BLOCK, Problem, from_exponents

Array = NDArray[np.float64]

EXPONENT_GRID = (0.02, 2.5)
# Grid values per exponent, by number of covariates.
GRID_SIZE = {1: 40, 2: 40, 3: 16, 4: 10}
# Starts are drawn from this many best grid points, so that they differ.
SCREENED = 160
# A coefficient that least squares makes negative starts at this share of the mean loss instead.
SMALLEST_SHARE = 1e-6


def screened_starts(problem: Problem, count: int, generator: np.random.Generator) -> Array:
    """Best grid point and `count` − 1 others, drawn from the best 160.

    For each tuple of exponents, (A_1 … A_k, E) minimise the weighted sum of squared relative residuals. All tuples share one
    table of inner products, so a tuple costs one (k+1)-dimensional solve, whatever the number of rows.

    Returns
    -------
    (count, 2k+1) phi of :mod:`gemstones.laws.minimize`; fewer where the grid has fewer points.
    """
    k, n = problem.u.shape
    grid = np.linspace(*EXPONENT_GRID, GRID_SIZE[k])
    loss = np.exp(problem.log_loss)
    root = np.ones(n) if problem.weights is None else np.sqrt(problem.weights)
    products, target = np.zeros(2 * [k * len(grid) + 1]), np.zeros(k * len(grid) + 1)
    for rows in (slice(i, i + BLOCK) for i in range(0, n, BLOCK)):
        basis = np.exp(-grid[:, None] * problem.u[:, None, rows]).reshape(k * len(grid), -1)
        basis = np.r_[basis, np.ones((1, basis.shape[1]))] * (root[rows] / loss[rows])
        products += basis @ basis.T
        target += basis @ root[rows]  # the target is 1 in every row: relative residuals
    norm = np.sqrt(np.diag(products))
    products, target = products / norm[:, None] / norm, target / norm

    points = np.stack(np.meshgrid(*[np.arange(len(grid))] * k, indexing="ij"), -1).reshape(-1, k)
    columns = np.c_[points + len(grid) * np.arange(k), np.full(len(points), k * len(grid))]
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
    return from_exponents(grid[points[chosen]], np.log(amplitudes[:, :k]), amplitudes[:, k])
