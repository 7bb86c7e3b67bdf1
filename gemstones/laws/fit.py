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
from gemstones.laws.minima import CONVERGED_GRADIENT, at_minimum, lowest_minima, pull_of
from gemstones.laws.objective import Problem, exponents, from_exponents
from gemstones.laws.power_law import (
    FLOPS_PER_PARAM_TOKEN,
    PowerLaw,
    covariate_columns,
    factors,
    n_parameters,
    positive_columns,
    roles,
    term_numbers,
    written,
)
from gemstones.laws.rows import Rows, read_rows, rows_sha256, versions

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]


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
        (:mod:`~gemstones.laws.uncertainty`), `held_out` (:mod:`~gemstones.laws.holdout`), `patterns`
        (:mod:`~gemstones.laws.patterns`), `noise` (:mod:`~gemstones.laws.noise`), `card` (:mod:`~gemstones.laws.card`).
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
        """The fit as plain data.

        Lists are in the order of `covariates`; the exponents of a product are a list in the order of its factors. A null delta
        means least squares.
        """
        slope = {} if self.law.slope is None else {"slope": self.law.slope}
        return {
            "selection": self.selection,
            "covariates": list(self.law.covariates),
            "param_count": self.law.param_count,
            "huber_delta": self.huber_delta if math.isfinite(self.huber_delta) else None,
            "exponents": [list(each) if isinstance(each, tuple) else each for each in self.law.exponents],
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
EVIDENCE = ("ranges", "fitted_ranges", "patterns", "intervals", "held_out", "noise", "card")


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
    """Fit E plus terms A / x^alpha, or of several covariates, by minimising the sum of Huber losses of log residuals.

    A grid of exponents is screened, and damped Newton steps on the exact Hessian polish 8 starts, more where they disagree, until
    none predicts a relative decrease above 1e-14. Exponents lie between 0 and 10, those of a product's further factors between
    −10 and 10, and E is at least 0. Neither the order of the rows nor the units of the covariates matter.

    Parameters
    ----------
    table : rows of the losses table; reads `loss`, the covariates' columns and, where present, `run` and `flops`.
    covariates : terms: a column (params, tokens, width, depth, or any other of positive numbers), or a product of columns
        such as tokens*params; Eq. 1 of the paper is (params, tokens).
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
    covariates = written(covariates)
    source = f"selection '{selection}'" if selection else "fit"
    columns = columns_of(covariates, param_count)
    for name, value in (("huber_delta", huber_delta), ("overestimate_penalty", overestimate_penalty)):
        if not value > 0 or (name != "huber_delta" and not math.isfinite(value)):
            raise UserError(f"{name} is {value}; wanted: a number greater than 0")
    rows = read_rows(table, columns, source, weights)
    check_determined(rows.values, columns, source, n_parameters(covariates))
    problem, centre = problem_of(rows, covariates, overestimate_penalty)
    minima = lowest_minima(problem, huber_delta, seed)
    best = int(np.argmin(minima.objective))
    law = law_at(minima.phi[best], centre, covariates, param_count)
    pull = pull_of(minima.objective[best], problem, huber_delta)
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
        starts=len(minima.phi),
        share_of_starts_at_optimum=float(np.mean(at_minimum(minima, best, len(rows.values)))),
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
    """Columns that a fit reads: those of the covariates' roles, then the loss."""
    return (*covariate_columns(covariates, param_count), "loss")


def problem_of(rows: Rows, covariates: Sequence[str], overestimate_penalty: float = 1.0) -> tuple[Problem, Array]:
    """What is minimised for rows of :func:`columns_of`, and the means (m,), for each exponent, at which log covariates are centred."""
    names = roles(covariates)
    log_x = np.log(rows.values[:, [names.index(factor) for term in covariates for factor in factors(term)]])
    centre = log_x.mean(0)
    u = np.ascontiguousarray((log_x - centre).T)
    term = term_numbers(covariates)
    return Problem(u, np.log(rows.values[:, -1]), rows.weights, overestimate_penalty, term), centre


def law_at(phi: Array, centre: Array, covariates: tuple[str, ...], param_count: str) -> PowerLaw:
    """The law of one phi (p,) of :mod:`gemstones.laws.objective`."""
    term, m = term_numbers(covariates), len(centre)
    alpha, log_coefficients, (constant,) = np.split(laws_of(phi, centre, term), [m, m + len(covariates)])
    nested = [alpha[term == j].tolist() for j in range(len(covariates))]
    exponents = tuple(each[0] if len(each) == 1 else tuple(each) for each in nested)
    return PowerLaw(covariates, exponents, tuple(log_coefficients.tolist()), float(constant), param_count)


def laws_of(phi: Array, centre: Array, term: NDArray[np.intp]) -> Array:
    """Exponents, log coefficients and E (…, p) of phi (…, p)."""
    k, alpha = int(term[-1]) + 1, exponents(phi, term)
    # Back from centred to plain logs: log A_j − sum of alpha_q·(log x_q − m_q).
    moved = np.stack([(alpha * centre)[..., term == j].sum(-1) for j in range(k)], axis=-1)
    return np.concatenate([alpha, np.log(phi[..., :k]) + moved, phi[..., -1:]], axis=-1)


def phi_of(law: PowerLaw, centre: Array) -> Array:
    """Inverse of :func:`law_at`: phi (1, p)."""
    term, alpha = term_numbers(law.covariates), np.array([law.flat_exponents])
    moved = np.stack([(alpha * centre)[:, term == j].sum(-1) for j in range(len(law.covariates))], axis=-1)
    return from_exponents(alpha, np.array([law.log_coefficients]) - moved, np.array([law.irreducible_loss]), term)


def _flops_range(table: pd.DataFrame, param_count: str) -> tuple[float, float] | tuple[None, None]:
    try:
        if "flops" in table:
            flops = positive_columns(table, ("flops",), "")
        else:
            flops = FLOPS_PER_PARAM_TOKEN * positive_columns(table, (param_count, "tokens"), "").prod(axis=1)
    except UserError:
        return None, None  # a fit does not need them
    return float(flops.min()), float(flops.max())
