"""Approach 3: fit a power law to losses by the Huber loss of log residuals (Hoffmann et al., section 3.3 and D.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gemstones import __version__
from gemstones.errors import UserError
from gemstones.laws.minimize import EXPONENT_BOUNDS, Problem, minimize
from gemstones.laws.power_law import PowerLaw, check_covariates, covariate_columns, positive_columns
from gemstones.laws.rows import in_canonical_order, number_of_runs, rows_sha256
from gemstones.laws.starts import screened_starts

if TYPE_CHECKING:
    import pandas as pd

STARTS = 8
# Two starts ended at the same minimum if their objectives differ by less, relatively.
SAME_MINIMUM = 1e-9
# Gradient norm / (n · delta) below which the fit has converged; 1 would be every row pulling one way.
CONVERGED_GRADIENT = 1e-6
# Centred log covariates with a smaller ratio of singular values are called collinear.
COLLINEAR = 1e-6


@dataclass(frozen=True)
class HuberFit:
    """A power law fitted to rows of the losses table.

    Attributes
    ----------
    law : the fitted law.
    huber_delta : delta of the Huber loss, in nats of log loss.
    objective : plain sum over rows of `scipy.special.huber(huber_delta, log L_observed − log L_predicted)`.
    n_rows, n_runs : rows, and distinct runs among them (None where rows name no run).
    gradient_norm : norm of the objective's gradient in exponents, log coefficients of centred covariates and E, over
        n_rows · huber_delta; parameters held at a bound are left out.
    converged : whether `gradient_norm` is negligible.
    starts, share_of_starts_at_optimum : starting points, and the share of them whose way ended at this minimum.
    min_flops, max_flops : range of training FLOPs of the rows (None where unknown); beyond it, a law extrapolates.
    selection : name of the selection the rows come from.
    warnings : what the data do not identify, one sentence each.
    provenance : package version, SHA-256 of the rows used, seed, specification.
    """

    law: PowerLaw
    huber_delta: float
    objective: float
    n_rows: int
    n_runs: int | None
    gradient_norm: float
    converged: bool
    starts: int
    share_of_starts_at_optimum: float
    min_flops: float | None = None
    max_flops: float | None = None
    selection: str | None = None
    warnings: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def predict(self, table: pd.DataFrame | Mapping[str, ArrayLike]) -> NDArray[np.float64]:
        """Loss in nats per token; see :meth:`PowerLaw.predict`."""
        return self.law.predict(table)

    def to_json(self) -> dict[str, Any]:
        """The fit as plain data; lists are in the order of `covariates`."""
        slope = {} if self.law.slope is None else {"slope": self.law.slope}
        return {
            "selection": self.selection,
            "covariates": list(self.law.covariates),
            "param_count": self.law.param_count,
            "huber_delta": self.huber_delta,
            "exponents": list(self.law.exponents),
            "log_coefficients": list(self.law.log_coefficients),
            "irreducible_loss": self.law.irreducible_loss,
            **slope,
            "objective": self.objective,
            "n_rows": self.n_rows,
            "n_runs": self.n_runs,
            "gradient_norm": self.gradient_norm,
            "converged": self.converged,
            "starts": self.starts,
            "share_of_starts_at_optimum": self.share_of_starts_at_optimum,
            "min_flops": self.min_flops,
            "max_flops": self.max_flops,
            "warnings": list(self.warnings),
            "provenance": dict(self.provenance),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> HuberFit:
        """Inverse of :meth:`to_json`; raises KeyError where a key is missing."""
        law = PowerLaw(
            tuple(data["covariates"]),
            tuple(data["exponents"]),
            tuple(data["log_coefficients"]),
            data["irreducible_loss"],
            data["param_count"],
        )
        same = (
            "huber_delta", "objective", "n_rows", "n_runs", "gradient_norm", "converged", "starts",
            "share_of_starts_at_optimum", "min_flops", "max_flops", "selection", "provenance",
        )  # fmt: skip
        return cls(law=law, warnings=tuple(data["warnings"]), **{key: data[key] for key in same})


def fit_huber(
    table: pd.DataFrame,
    covariates: Sequence[str] = ("params", "tokens"),
    param_count: str = "params",
    huber_delta: float = 1e-4,
    seed: int = 0,
    selection: str | None = None,
) -> HuberFit:
    """Fit L = E + sum of A_j / x_j^alpha_j by minimising the sum of Huber losses of log residuals.

    A grid of exponents is screened, and damped Newton steps on the exact Hessian polish 8 starts until none predicts a
    relative decrease above 1e-14. Exponents and E are bounded at 0. Neither the order of the rows nor the units of the
    covariates matter.

    Parameters
    ----------
    table : rows of the losses table; reads `loss`, the covariates' columns and, where present, `run` and `flops`.
    covariates : roles among params, tokens, width, depth; Eq. 1 of the paper is (params, tokens).
    param_count : column that stands for the role params.
    huber_delta : residual (in log loss) beyond which a row pulls with constant force.
    seed : which of the best 160 grid points become starts.
    selection : name of the rows, for messages and the result.

    Raises
    ------
    UserError
        Fewer rows than parameters, a missing column, a value without a logarithm, a constant covariate, equal losses.
    """
    covariates = tuple(covariates)
    check_covariates(covariates)
    if not (np.isfinite(huber_delta) and huber_delta > 0):
        raise UserError(f"huber_delta is {huber_delta}; wanted: a finite number greater than 0")
    source = f"selection '{selection}'" if selection else "fit"
    columns = covariate_columns(covariates, param_count)
    values = positive_columns(table, (*columns, "loss"), source)
    _check_identifiable(values, columns, source)
    # One canonical order of rows, so that sums, and with them the fit, do not depend on the table's order.
    values = in_canonical_order(values)
    x, loss = values[:, :-1], values[:, -1]

    log_x = np.log(x)
    centre = log_x.mean(0)
    problem = Problem(log_x - centre, np.log(loss))
    starts = screened_starts(problem.u, loss, STARTS, np.random.default_rng(seed))
    minima = minimize(starts, problem, huber_delta)
    best = int(np.argmin(minima.objective))
    lowest = float(minima.objective[best])
    k = len(covariates)
    theta = minima.theta[best]
    # Back from centred to plain logs: c_j − alpha_j·(log x_j − m_j).
    log_coefficients = theta[k : 2 * k] + theta[:k] * centre
    law = PowerLaw(
        covariates, tuple(theta[:k].tolist()), tuple(log_coefficients.tolist()), float(theta[2 * k]), param_count
    )
    gradient_norm = float(np.linalg.norm(minima.gradient[best])) / (len(loss) * huber_delta)
    converged = gradient_norm <= CONVERGED_GRADIENT
    flops = positive_columns(table, ("flops",), source)[:, 0] if "flops" in table else None
    return HuberFit(
        law=law,
        huber_delta=float(huber_delta),
        objective=lowest,
        n_rows=len(loss),
        n_runs=number_of_runs(table),
        gradient_norm=gradient_norm,
        converged=converged,
        starts=len(starts),
        # Objectives of perfect data are rounding errors, hence the absolute term.
        share_of_starts_at_optimum=float(
            np.mean(minima.objective <= lowest * (1 + SAME_MINIMUM) + len(loss) * np.finfo(float).eps ** 2)
        ),
        min_flops=None if flops is None else float(flops.min()),
        max_flops=None if flops is None else float(flops.max()),
        selection=selection,
        warnings=_warnings(law, problem, converged),
        provenance={
            "gemstones": __version__,
            "rows_sha256": rows_sha256(values, (*columns, "loss")),
            "seed": seed,
            "specification": {
                "approach": 3,
                "selection": selection,
                "covariates": list(covariates),
                "param_count": param_count,
                "huber_delta": float(huber_delta),
            },
        },
    )


def _check_identifiable(values: NDArray[np.float64], columns: Sequence[str], source: str) -> None:
    n, parameters = len(values), 2 * len(columns) + 1
    if n < parameters:
        raise UserError(
            f"{source}: {n} rows for a law with {parameters} parameters; wanted: at least {parameters} rows"
        )
    for name, column in zip((*columns, "loss"), values.T, strict=True):
        if np.ptp(column) == 0:
            raise UserError(f"{source}: column '{name}' is {column[0]:g} in every row; a law needs it to vary")


def _warnings(law: PowerLaw, problem: Problem, converged: bool) -> tuple[str, ...]:
    found = []
    if not converged:
        found.append("the fit has not converged: its gradient is not negligible")
    if law.irreducible_loss == 0:
        found.append("the irreducible loss is not identified: the objective falls until E = 0")
    for column, exponent in zip(law.columns, law.exponents, strict=True):
        if exponent in EXPONENT_BOUNDS:
            found.append(f"the exponent of {column} is at its bound {exponent:g}")
    singular = np.linalg.svd(problem.u / np.linalg.norm(problem.u, axis=0), compute_uv=False)
    if singular[-1] < COLLINEAR * singular[0]:
        found.append("the logs of the covariates are collinear: only sums of their exponents are identified")
    return tuple(found)
