"""Starts for the fit: a screened grid of exponents, since the law is linear in its coefficients once those are given."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

EXPONENT_GRID = (0.02, 2.5)
# Grid values per exponent, by number of covariates.
GRID_SIZE = {1: 40, 2: 40, 3: 16, 4: 10}
# Starts are drawn from this many best grid points, so that they differ.
SCREENED = 160
# A coefficient that least squares makes negative starts at this share of the mean loss instead.
SMALLEST_SHARE = 1e-6


def screened_starts(u: Array, loss: Array, count: int, generator: np.random.Generator) -> Array:
    """Best grid point and `count` − 1 others, drawn from the best 160.

    For each tuple of exponents, (A_1 … A_k, E) minimise the sum of squared relative residuals. All tuples share one
    table of inner products, so a tuple costs one (k+1)-dimensional solve, whatever the number of rows.

    Parameters
    ----------
    u : (n, k) centred log covariates.
    loss : (n,) in nats.

    Returns
    -------
    (count, 2k+1) exponents, log coefficients for u, E; fewer rows where the grid has fewer points.
    """
    n, k = u.shape
    grid = np.linspace(*EXPONENT_GRID, GRID_SIZE[k])
    basis = np.exp(-grid[None, :, None] * u.T[:, None, :]) / loss  # (k, grid, n)
    basis = np.concatenate([basis, np.broadcast_to(1 / loss, (1, len(grid), n))])
    norm = np.sqrt((basis**2).sum(-1))
    basis /= norm[..., None]
    flat = basis.reshape(-1, n)
    products = (flat @ flat.T).reshape(k + 1, len(grid), k + 1, len(grid))
    target = basis.sum(-1)  # the target is 1 in every row: relative residuals

    points = np.stack(np.meshgrid(*[np.arange(len(grid))] * k, indexing="ij"), -1).reshape(-1, k)
    points = np.c_[points, np.zeros(len(points), dtype=int)]  # the column of E is the same at every grid value
    j = np.arange(k + 1)
    gram = products[j[:, None], points[:, :, None], j[None, :], points[:, None, :]]
    gram[:, j, j] *= 1 + 1e-10
    right = target[j, points]
    coefficients = np.linalg.solve(gram, right[..., None])[..., 0]
    squares = n - (coefficients * right).sum(1)
    # Solutions with all coefficients positive come first; the others are only there for want of better.
    best = np.lexsort((squares, (coefficients < 0).any(1)))[:SCREENED]
    drawn = best[np.sort(generator.permutation(len(best) - 1)[: count - 1] + 1)] if len(best) > 1 else best[:0]
    chosen = np.r_[best[:1], drawn]

    smallest = SMALLEST_SHARE * float(loss.mean())
    amplitudes = np.maximum(coefficients[chosen] / norm[j, points[chosen]], smallest)
    return np.c_[grid[points[chosen, :k]], np.log(amplitudes[:, :k]), amplitudes[:, k]]
