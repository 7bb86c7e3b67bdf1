"""Approach 3: fit a power law to losses by the Huber loss of log residuals (Hoffmann et al., section 3.3 and D.2)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gemstones.errors import UserError
from gemstones.laws.identifiability import check_determined, warnings_of
from gemstones.laws.minimize import Minima, Problem, exponents, from_exponents, minimize
from gemstones.laws.power_law import (
    FLOPS_PER_PARAM_TOKEN,
    PowerLaw,
    check_covariates,
    covariate_columns,
    positive_columns,
)
from gemstones.laws.rows import Rows, read_rows, rows_sha256, versions
from gemstones.laws.starts import screened_starts

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

STARTS = 8
# Two starts ended at the same minimum if their objectives differ by less, relatively.
SAME_MINIMUM = 1e-9
# Gradient norm / (n · delta) below which the fit has converged; 1 would be every row pulling one way.
CONVERGED_GRADIENT = 1e-6
# Residuals this small, in log loss, are called perfect.
PERFECT = 1e-8


@dataclass(frozen=True)
class HuberFit:
    """A power law fitted to rows of the losses table.

    Attributes
    ----------
    law : the fitted law.
    huber_delta : delta of the Huber loss, in nats of log loss; infinite for least squares of log losses.
    objective : sum over rows of `scipy.special.huber(huber_delta, log L_observed − log L_predicted)`, weighted if asked for.
    n_rows, n_runs : rows, and runs among them (None where rows name no run); a cooldown counts with its main run.
    gradient_norm : norm of the objective's gradient in exponents, log coefficients of centred covariates and E, over
        n_rows · huber_delta (or n_rows · the residuals' root mean square, where that is smaller); parameters held at a bound
        are left out.
    converged : whether `gradient_norm` is negligible.
    lowest_curvature : smallest eigenvalue of the Hessian in (A_j, alpha_j·A_j, E) of centred covariates, scaled to a unit
        diagonal; positive at a minimum, and small where it lies in a flat valley.
    starts, share_of_starts_at_optimum : starting points, and the share of them whose way ended at this minimum.
    min_flops, max_flops : range of training FLOPs of the rows (6·N·T where they have no column `flops`, None where unknown); beyond it, a law extrapolates.
    selection : name of the selection the rows come from.
    weights : column that weighted the rows, relative to their mean; None for equal weights.
    overestimate_penalty : weight of rows whose loss the law overestimates, relative to the others.
    warnings : what the data do not identify, one sentence each.
    provenance : versions of package and libraries, SHA-256 of the rows used, seed, specification.
    evidence : what was found out about the fit afterwards: `ranges` (:mod:`~gemstones.laws.certificate`), `fitted_ranges`
        (least and most params, width, depth and tokens of the rows), `intervals`
        (:mod:`~gemstones.laws.uncertainty`), `held_out` (:mod:`~gemstones.laws.holdout`), `card` (:mod:`~gemstones.laws.card`).
    """

    law: PowerLaw
    huber_delta: float
    objective: float
    n_rows: int
    n_runs: int | None
    gradient_norm: float
    converged: bool
    lowest_curvature: float
    starts: int
    share_of_starts_at_optimum: float
    min_flops: float | None = None
    max_flops: float | None = None
    selection: str | None = None
    weights: str | None = None
    overestimate_penalty: float = 1.0
    warnings: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n_parameters(self) -> int:
        """Fitted numbers."""
        return self.law.n_parameters

    def predict(self, table: pd.DataFrame | Mapping[str, ArrayLike]) -> Array:
        """Loss in nats per token; see :meth:`PowerLaw.predict`."""
        return self.law.predict(table)

    def to_json(self) -> dict[str, Any]:
        """The fit as plain data; lists are in the order of `covariates`, and a null delta means least squares."""
        slope = {} if self.law.slope is None else {"slope": self.law.slope}
        return {
            "selection": self.selection,
            "covariates": list(self.law.covariates),
            "param_count": self.law.param_count,
            "huber_delta": self.huber_delta if math.isfinite(self.huber_delta) else None,
            "exponents": list(self.law.exponents),
            "log_coefficients": list(self.law.log_coefficients),
            "irreducible_loss": self.law.irreducible_loss,
            **slope,
            **{key: getattr(self, key) for key in SAME_IN_JSON},
            "warnings": list(self.warnings),
            **self.evidence,
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
        delta = data["huber_delta"]
        return cls(
            law=law,
            huber_delta=math.inf if delta is None else delta,
            selection=data["selection"],
            warnings=tuple(data["warnings"]),
            provenance=data["provenance"],
            evidence={key: data[key] for key in EVIDENCE if key in data},
            **{key: data[key] for key in SAME_IN_JSON},
        )


SAME_IN_JSON = (
    "objective", "n_rows", "n_runs", "gradient_norm", "converged", "lowest_curvature", "starts",
    "share_of_starts_at_optimum", "min_flops", "max_flops", "weights", "overestimate_penalty",
)  # fmt: skip
EVIDENCE = ("ranges", "fitted_ranges", "intervals", "held_out", "card")


def fit_huber(
    table: pd.DataFrame,
    covariates: Sequence[str] = ("params", "tokens"),
    param_count: str = "params",
    huber_delta: float = 1e-4,
    seed: int = 0,
    selection: str | None = None,
    weights: str | None = None,
    overestimate_penalty: float = 1.0,
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
    huber_delta : residual (in log loss) beyond which a row pulls with constant force; infinite for least squares.
    seed : which of the best 160 grid points become starts.
    selection : name of the rows, for messages and the result.
    weights : column of weights of the rows.
    overestimate_penalty : factor on rows whose loss the law overestimates; above 1, the law leans to the lowest losses.

    Raises
    ------
    UserError
        Fewer rows than parameters, a missing column, a value without a logarithm, a constant covariate, equal losses.
    """
    covariates = tuple(covariates)
    source = f"selection '{selection}'" if selection else "fit"
    columns = columns_of(covariates, param_count)
    for name, value in (("huber_delta", huber_delta), ("overestimate_penalty", overestimate_penalty)):
        if not value > 0 or (name != "huber_delta" and not math.isfinite(value)):
            raise UserError(f"{name} is {value}; wanted: a number greater than 0")
    rows = read_rows(table, columns, source, weights)
    check_determined(rows.values, columns, source)
    problem, centre = problem_of(rows, overestimate_penalty)
    starts = screened_starts(problem, STARTS, np.random.default_rng(seed))
    minima = minimize(starts, problem, huber_delta)
    best = int(np.argmin(minima.objective))
    law = law_at(minima.phi[best], centre, covariates, param_count)
    # How hard a row pulls at most, or where delta is beyond the residuals, on average.
    pull = min(huber_delta, max(math.sqrt(2 * float(minima.objective[best]) / len(rows.values)), PERFECT))
    gradient_norm = float(np.linalg.norm(minima.gradient[best])) / (len(rows.values) * pull)
    min_flops, max_flops = _flops_range(table, param_count)
    fit = HuberFit(
        law=law,
        huber_delta=float(huber_delta),
        objective=float(minima.objective[best]),
        n_rows=len(rows.values),
        n_runs=rows.n_runs,
        gradient_norm=gradient_norm,
        converged=gradient_norm <= CONVERGED_GRADIENT,
        lowest_curvature=float(minima.lowest_curvature[best]),
        starts=len(starts),
        share_of_starts_at_optimum=float(np.mean(_at_minimum(minima, best, len(rows.values)))),
        min_flops=min_flops,
        max_flops=max_flops,
        selection=selection,
        weights=weights,
        overestimate_penalty=float(overestimate_penalty),
        provenance={
            **versions(),
            "rows_sha256": rows_sha256(rows.values, columns),
            "seed": seed,
            "specification": {
                "approach": 3,
                "selection": selection,
                "covariates": list(covariates),
                "param_count": param_count,
                "huber_delta": float(huber_delta) if math.isfinite(huber_delta) else None,
                "weights": weights,
                "overestimate_penalty": float(overestimate_penalty),
            },
        },
    )
    return replace(fit, warnings=warnings_of(fit, table, rows, problem))


def columns_of(covariates: Sequence[str], param_count: str) -> tuple[str, ...]:
    """Columns that a fit reads: the covariates', then the loss. Raises UserError for an unknown covariate."""
    check_covariates(covariates)
    return (*covariate_columns(covariates, param_count), "loss")


def problem_of(rows: Rows, overestimate_penalty: float = 1.0) -> tuple[Problem, Array]:
    """What is minimised for the rows, and the means (k,) of the log covariates, at which they are centred."""
    log_x = np.log(rows.values[:, :-1])
    centre = log_x.mean(0)
    u = np.ascontiguousarray((log_x - centre).T)
    return Problem(u, np.log(rows.values[:, -1]), rows.weights, overestimate_penalty), centre


def law_at(phi: Array, centre: Array, covariates: tuple[str, ...], param_count: str) -> PowerLaw:
    """The law of one phi (2k+1,) of :mod:`gemstones.laws.minimize`."""
    alpha, log_coefficients, (constant,) = np.split(laws_of(phi, centre), [len(covariates), 2 * len(covariates)])
    return PowerLaw(covariates, tuple(alpha.tolist()), tuple(log_coefficients.tolist()), float(constant), param_count)


def laws_of(phi: Array, centre: Array) -> Array:
    """Exponents, log coefficients and E (…, 2k+1) of phi (…, 2k+1)."""
    k, alpha = len(centre), exponents(phi)
    # Back from centred to plain logs: log A_j − alpha_j·(log x_j − m_j).
    return np.concatenate([alpha, np.log(phi[..., :k]) + alpha * centre, phi[..., 2 * k :]], axis=-1)


def phi_of(law: PowerLaw, centre: Array) -> Array:
    """Inverse of :func:`law_at`: phi (1, 2k+1)."""
    alpha = np.array([law.exponents])
    return from_exponents(alpha, np.array([law.log_coefficients]) - alpha * centre, np.array([law.irreducible_loss]))


def _at_minimum(minima: Minima, best: int, n: int) -> NDArray[np.bool_]:
    # Objectives of perfect data are rounding errors, hence the absolute term.
    highest = minima.objective[best] * (1 + SAME_MINIMUM) + n * np.finfo(float).eps ** 2
    return np.asarray(minima.objective <= highest)


def _flops_range(table: pd.DataFrame, param_count: str) -> tuple[float, float] | tuple[None, None]:
    try:
        if "flops" in table:
            flops = positive_columns(table, ("flops",), "")
        else:
            flops = FLOPS_PER_PARAM_TOKEN * positive_columns(table, (param_count, "tokens"), "").prod(axis=1)
    except UserError:
        return None, None  # a fit does not need them
    return float(flops.min()), float(flops.max())
