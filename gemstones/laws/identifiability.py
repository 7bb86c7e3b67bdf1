"""What rows do not determine: errors where they leave a law open, warnings where they leave a part of it open."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gemstones.errors import UserError
from gemstones.laws.objective import Problem, exponent_bounds
from gemstones.laws.power_law import PowerLaw, row_name, term_numbers
from gemstones.laws.rows import Rows

if TYPE_CHECKING:
    import pandas as pd

    from gemstones.laws.fit import HuberFit

Array = NDArray[np.float64]

# Two logs are called collinear where what one leaves of the other is a smaller share of it.
COLLINEAR = 1e-3
# A term A/x^alpha and the constant E cannot be told apart from fewer distinct values of x.
DISTINCT_VALUES = 3
# A column is called constant below the first ratio of its largest to its smallest value; beyond the second, terms overflow.
CONSTANT, WIDEST = 1 + 1e-6, 1e30
# No loss in nats, nor one in other units, lies outside.
LOSSES = (1e-4, 1e9)
# A term that changes the loss by a smaller share between any two rows has no exponent to speak of.
NEGLIGIBLE_TERM = 1e-6
# A curvature, scaled as in `HuberFit.lowest_curvature`, that rounding may turn negative.
FLAT = 1e-6
# A loss that differs from the law by this factor is an outlier by any standard.
OUTLIER = 2.0

# Rounding may leave an exponent that far from a bound which the objective pushes it against.
AT_BOUND = 1e-9


def check_determined(values: Array, columns: Sequence[str], source: str, parameters: int) -> None:
    """Raise UserError unless the values (n, r+1) of roles and the loss, named by `columns`, can determine so many parameters."""
    n = len(values)
    if n < parameters:
        raise UserError(
            f"{source}: {n} rows for a law with {parameters} parameters; wanted: at least {parameters} rows"
        )
    for name, column in zip(columns, values.T, strict=True):
        low, high = float(column.min()), float(column.max())
        if name == columns[-1] and not (LOSSES[0] <= low and high <= LOSSES[1]):
            off = low if low < LOSSES[0] else high
            raise UserError(f"{source}: column '{name}' has {off:g}; wanted: {LOSSES[0]:g} to {LOSSES[1]:g} nats")
        if high <= low * CONSTANT:
            raise UserError(f"{source}: column '{name}' is {low:g} in every row; a law needs it to vary")
        if high / WIDEST > low:
            raise UserError(
                f"{source}: column '{name}' goes from {low:g} to {high:g}; wanted: a factor of {WIDEST:g} at most"
            )
    points = len(np.unique(values[:, :-1], axis=0))
    if points < parameters:
        raise UserError(
            f"{source}: {n} rows at {points} different points for a law with {parameters} parameters; wanted: at least "
            f"{parameters} points"
        )


def warnings_of(fit: HuberFit, table: pd.DataFrame, rows: Rows, problem: Problem) -> tuple[str, ...]:
    """What is wrong with a fit to the rows of `table`, or left open by them, one sentence each."""
    law, found, n, parameters = fit.law, [], len(rows.values), fit.law.n_parameters
    points = len(np.unique(rows.values[:, :-1], axis=0))
    if not fit.converged:
        found.append("the fit has not converged: its gradient is not negligible")
    if fit.lowest_curvature < -FLAT:
        found.append("the objective curves down here: this is no minimum")
    if fit.starts > 1 >= fit.share_of_starts_at_optimum * fit.starts:
        found.append(f"1 of {fit.starts} starts ended here: the objective may have a lower minimum")
    if points == parameters:
        found.append(f"{points} different points for as many parameters: nothing is left to contradict the law")
    if rows.weights is not None and (many := n**2 / (rows.weights**2).sum()) < parameters:
        found.append(f"the weights leave {many:.1f} of {n} rows: too few for {parameters} parameters")
    if law.irreducible_loss == 0:
        found.append("the irreducible loss is not identified: the objective falls until E = 0")
    for name, x in zip(law.columns, rows.values.T, strict=False):
        if len(np.unique(x)) < DISTINCT_VALUES:
            found.append(f"{name} has {len(np.unique(x))} values only: its exponent is not identified")
    found += _of_exponents(law, rows)
    for i, j in _collinear(rows.values[:, :-1]):
        found.append(f"{law.columns[j]} is a power of {law.columns[i]}: which exponent is whose is not identified")
    repeated = n - len(np.unique(rows.values, axis=0))
    if repeated:
        found.append(f"{repeated} of {n} rows repeat others to the last digit: they count again")
    off = np.abs(problem.log_loss - np.log(law.predict(dict(zip(law.columns, rows.values.T, strict=False)))))
    worst = int(off.argmax())
    if off[worst] > math.log(OUTLIER):
        many = int((off > math.log(OUTLIER)).sum())
        found.append(
            f"{many} of {n} losses are off the law by more than a factor of {OUTLIER:g}, most of all "
            f"{row_name(table, int(rows.order[worst]))}: {rows.values[worst, -1]:g}"
        )
    if rows.n_runs == 1:
        found.append("all rows are of one run: nothing says how runs differ")
    return tuple(found)


def _of_exponents(law: PowerLaw, rows: Rows) -> list[str]:
    """What is wrong with single exponents: at a bound, or of a term that hardly changes the loss."""
    found = []
    x = dict(zip(law.columns, rows.values.T, strict=False))
    low, high = exponent_bounds(term_numbers(law.covariates))
    place = 0
    for term, exponents, c in zip(law.covariates, law.terms, law.log_coefficients, strict=True):
        told = law.param_count if term == "params" else term
        power = sum(alpha * np.log(x[law.param_count if f == "params" else f]) for f, alpha in exponents.items())
        effect = np.ptp(np.exp(c - power)) / rows.values[:, -1].min()
        at_bound = False
        for factor, alpha in exponents.items():
            bound = low[place] if 2 * alpha < low[place] + high[place] else high[place]
            place += 1
            if abs(alpha - bound) < AT_BOUND:
                at_bound = True
                of = told if len(exponents) == 1 else f"{factor} in {told}"
                found.append(f"the exponent of {of} is at its bound {bound:g}")
        if not at_bound and effect < NEGLIGIBLE_TERM:
            found.append(f"{told} hardly changes the loss: its exponent is not identified")
    return found


def _collinear(values: Array) -> list[tuple[int, int]]:
    """Pairs of columns (n, r) of which one is a power of the other."""
    u = np.log(values).T
    u -= u.mean(1, keepdims=True)
    unit = u / np.linalg.norm(u, axis=1, keepdims=True)
    pairs = [(i, j) for i in range(len(u)) for j in range(i + 1, len(u))]
    return [(i, j) for i, j in pairs if np.linalg.norm(unit[j] - (unit[i] @ unit[j]) * unit[i]) < COLLINEAR]
