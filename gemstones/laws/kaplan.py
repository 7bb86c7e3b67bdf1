"""Kaplan's form of a law, L = ((N_c/N)^(alpha_N/alpha_D) + D_c/D)^alpha_D (arXiv 2001.08361, Eq. 1.5), and its fit.

It has no irreducible loss: the loss falls to zero with both parameters and tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares
from scipy.special import huber

from gemstones.errors import UserError
from gemstones.laws.minima import CONVERGED_GRADIENT
from gemstones.laws.power_law import positive_columns

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

PARAMETERS = 4
# Starts: alpha_N/alpha_D and alpha_D, with both terms of the same size in the middle of the rows.
RATIOS, EXPONENTS = (0.5, 1.0, 2.0), (0.05, 0.3)
# Deltas passed through on the way to a smaller one, as in gemstones.laws.minimize.
FIRST_DELTA, DELTA_RATIO, STAGE_TOLERANCE = 3e-2, 0.3, 1e-8
TOLERANCE = 1e-15


@dataclass(frozen=True)
class KaplanLaw:
    """L = ((N_c/N)^(alpha_N/alpha_D) + D_c/D)^alpha_D, in nats per token.

    Attributes
    ----------
    alpha_n, alpha_d : exponents of parameters N and of tokens D.
    log_n, log_d : natural logs of N_c and D_c.
    param_count : column of the losses table that N stands for.
    """

    alpha_n: float
    alpha_d: float
    log_n: float
    log_d: float
    param_count: str = "params"

    def predict(self, table: pd.DataFrame | Mapping[str, ArrayLike]) -> Array:
        """Loss in nats per token."""
        n, d = (np.log(np.asarray(table[name], dtype=float)) for name in (self.param_count, "tokens"))
        terms = np.logaddexp(self.alpha_n / self.alpha_d * (self.log_n - n), self.log_d - d)
        return np.asarray(np.exp(self.alpha_d * terms))


# Kaplan et al., Table 2, where the four are fitted together; N_c = 8.8e13 and D_c = 5.4e13 are those of L(N) and L(D) alone.
# Their parameters are without embeddings.
KAPLAN = KaplanLaw(0.076, 0.103, math.log(6.4e13), math.log(1.8e13), "params_no_embeddings")


def fit_kaplan(
    table: pd.DataFrame,
    huber_delta: float = 1e-4,
    param_count: str = "params",
    selection: str | None = None,
    starts: Sequence[KaplanLaw] = (),
) -> KaplanLaw:
    """Fit Kaplan's form by the objective of :func:`gemstones.laws.fit.fit_huber`, which scipy's least squares has too.

    Parameters
    ----------
    starts : where to begin; by default six laws that pass through the middle of the rows.

    Raises
    ------
    UserError
        A missing column, a value without a logarithm, fewer rows than parameters, or no convergence.
    """
    source = f"selection '{selection}'" if selection else "fit"
    logs = np.log(positive_columns(table, (param_count, "tokens", "loss"), source))
    if len(logs) < PARAMETERS:
        raise UserError(f"{source}: {len(logs)} rows for a law with {PARAMETERS} parameters")
    n, d, y = logs.T
    n_mean, d_mean, y_mean = logs.mean(0)
    u, v = n - n_mean, d - d_mean

    # Free parameters: logs of q = alpha_N/alpha_D and of b = alpha_D, and logs of both terms at the middle of the rows.
    def residuals(free: Array) -> Array:
        q, b = np.exp(free[:2])
        return np.asarray(b * np.logaddexp(free[2] - q * u, free[3] - v) - y)

    def jacobian(free: Array) -> Array:
        q, b = np.exp(free[:2])
        total = np.logaddexp(free[2] - q * u, free[3] - v)
        share = np.exp(free[2] - q * u - total)
        return np.stack([-b * q * share * u, b * total, b * share, b * (1 - share)], axis=-1)

    def solve(free: Array, delta: float, tolerance: float) -> Array:
        tolerances = dict.fromkeys(("ftol", "xtol", "gtol"), tolerance)
        with np.errstate(over="ignore"):  # a step too far is taken back
            return least_squares(residuals, free, jacobian, x_scale="jac", loss="huber", f_scale=delta, **tolerances).x

    if starts:
        ratios = [(law.alpha_n / law.alpha_d, law) for law in starts]
        begins = [(q, law.alpha_d, q * (law.log_n - n_mean), law.log_d - d_mean) for q, law in ratios]
    else:
        begins = [(q, b, y_mean / b - math.log(2), y_mean / b - math.log(2)) for q, b in product(RATIOS, EXPONENTS)]
    best, lowest = np.zeros(PARAMETERS), math.inf
    for q, b, *terms in begins:
        free, stage = np.array([math.log(q), math.log(b), *terms]), FIRST_DELTA
        while stage > 1.01 * huber_delta:
            free, stage = solve(free, stage, STAGE_TOLERANCE), stage * DELTA_RATIO
        free = solve(free, huber_delta, TOLERANCE)
        objective = float(huber(huber_delta, residuals(free)).sum())
        if objective < lowest:
            best, lowest = free, objective
    gradient = jacobian(best).T @ np.clip(residuals(best), -huber_delta, huber_delta)
    if not np.linalg.norm(gradient) <= CONVERGED_GRADIENT * len(y) * huber_delta:
        raise UserError(f"{source}: the fit of Kaplan's form has not converged")
    q, b = np.exp(best[:2])
    return KaplanLaw(float(q * b), float(b), float(best[2] / q + n_mean), float(best[3] + d_mean), param_count)
