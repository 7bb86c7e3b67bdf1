"""Small random tables on which fits are hard: few levels, vanishing terms, exponents at bounds; and what SciPy finds on them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import huber

from gemstones.laws.power_law import factors, term_numbers

COLUMNS = ("width", "depth", "params", "tokens")
STAGES = (3e-2, 3e-3, 1e-3, 3e-4)
# Of exponents (further factors of a product may be negative), log coefficients and E.
EXPONENTS, LOG_COEFFICIENTS = (0.0, 10.0), (-60.0, 30.0)


def random_tables(seed: int, count: int) -> Iterator[tuple[int, pd.DataFrame, tuple[str, ...], float]]:
    """Number, table, covariates and delta of tables of one to four columns; every third law has a product."""
    for number in range(count):
        generator = np.random.default_rng([seed, number])
        k = int(generator.integers(1, 5))
        used = [COLUMNS[i] for i in np.sort(generator.choice(4, k, replace=False))]
        n = int(generator.integers(2 * k + 5, 60))
        spread = generator.choice([1e-3, 0.3, 1.5], k)
        levels = generator.choice([2, 3, 5, n], k)
        log_x = np.stack(
            [generator.choice(generator.normal(0, s, m), n) for s, m in zip(spread, levels, strict=True)], 1
        )
        if min(len(np.unique(column)) for column in log_x.T) < 2:
            continue
        alpha = generator.choice([0, 0.05, 0.3, 0.6, 3], k)
        loss = (generator.uniform(0.1, 1, k) * np.exp(-alpha * log_x)).sum(1) + generator.choice([0, 1.5])
        loss *= np.exp(generator.standard_t(3, n) * generator.choice([1e-3, 1e-2, 0.05]))
        covariates = [*used[:-1], f"{used[-1]}*{used[0]}"] if k > 1 and number % 3 == 0 else used
        table = pd.DataFrame(np.exp(log_x) * 1e6, columns=used).assign(loss=loss)
        yield number, table, tuple(covariates), float(generator.choice([1e-4, 1e-3]))


def scipy_objective(
    table: pd.DataFrame, covariates: tuple[str, ...], delta: float, starts: int, seed: int = 0
) -> float:
    """Lowest objective that L-BFGS-B finds within the package's bounds, from random starts and with delta lowered in stages."""
    generator, term = np.random.default_rng(seed), term_numbers(covariates)
    names = [factor for each in covariates for factor in factors(each)]
    u = np.log(table[names].to_numpy())
    u -= u.mean(0)
    y, m, k = np.log(table["loss"].to_numpy()), len(names), len(covariates)
    first = np.r_[True, np.diff(term) > 0]

    def objective(p: np.ndarray, d: float) -> tuple[float, np.ndarray]:
        power = np.stack([(u * p[:m])[:, term == j].sum(1) for j in range(k)], 1)
        part = np.exp(np.clip(p[m : m + k] - power, -700, 700))
        loss = part.sum(1) + p[-1] + 1e-300
        share, residual = part / loss[:, None], np.log(loss) - y
        pull = np.clip(residual, -d, d)[:, None]
        gradient = np.r_[-(pull * share[:, term] * u).sum(0), (pull * share).sum(0), (pull[:, 0] / loss).sum()]
        return float(huber(d, residual).sum()) / d, gradient / d

    low = [EXPONENTS[0] if one else -EXPONENTS[1] for one in first]
    box = [*((each, EXPONENTS[1]) for each in low), *[LOG_COEFFICIENTS] * k, (0.0, None)]
    best = np.inf
    for _ in range(starts):
        p = np.r_[generator.uniform(0, 1, m), generator.uniform(-3, 0, k), generator.uniform(0.3, 2)]
        for d in (*(stage for stage in STAGES if stage > delta), delta):
            p = minimize(
                objective,
                p,
                (d,),
                "L-BFGS-B",
                True,
                bounds=box,
                options={"maxiter": 1000, "ftol": 1e-15, "gtol": 1e-11},
            ).x
        best = min(best, objective(p, delta)[0] * delta)
    return best
