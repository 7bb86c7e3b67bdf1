"""The authors' published fits, each beside the converged fit of the same rows.

Source: `parameters/` (Approach 1), `parameters_delta-4/` and `parameters_delta-3/` (Approach 3) of the authors' repository.
The name of a file says what was fitted, in the authors' words; `_name` says it from an entry of the config.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import huber

from gemstones.laws.fit import HuberFit
from gemstones.laws.hull import QUANTITIES, HullFit, Line
from gemstones.laws.power_law import ROLES, PowerLaw
from gemstones.losses.released import REGISTRY, fetch
from gemstones.losses.selections import select
from gemstones.study import Approach1, Approach3, Study

# Our selections in the authors' words. A file that is not in the registry was never published.
HULL_ROWS = {
    "hot_dense": "",
    "all_dense": "_100b+",
    "over_120b_dense": "_120b+_only",
    "lr_ablation_dense": "_lr_ablation",
    "cooldown_end": "_cooldown",
}
LAW_ROWS = {
    "hot": "hot",
    "all": "hot_100b+",
    "over_120b": "hot_120b+_only",
    "width_512": "hot_100b+_512x",
    "lr_ablation": "lr_ablation_hot",
    "cooldown_start": "cool_begin",
    "cooldown_end": "cool_end",
    "chinchilla_like": "hot_sampled_like_chinchilla",
    "chinchilla_like_lr_ablation": "lr_ablation_hot_sampled_like_chinchilla",
    "chinchilla_reduced": "slim_chinchilla",
}
# "No embeds" means without both matrices in Approach 1, and without the input embedding in Approach 3.
HULL_COUNTS = {"params": "", "params_no_embeddings": "_no_embeds"}
LAW_COUNTS = {"params": "", "params_no_input_embedding": "_no_embeds"}
# Covariates in the order of the authors' numbers.
LAWS = {
    "parameters": ("params", "tokens"),
    "width_depth": ("width", "depth", "tokens"),
    "width_depth_parameters": ("width", "depth", "params", "tokens"),
}
DELTAS = {1e-4: "parameters_delta-4", 1e-3: "parameters_delta-3"}

# The authors print ten decimals of an objective, and of parameters to which it is less sensitive.
PRINTED = 2e-10
ROUNDED_TOKENS = ("chinchilla_like", "chinchilla_like_lr_ablation")

COLUMNS = (
    "fit",
    "approach",
    "rows",
    "huber_delta",
    "objective_stored",
    "objective_published",
    "objective_converged",
    "excess_objective",
    "slope_published",
    "slope_converged",
    "largest_line_difference",
    "irreducible_loss_published",
    "irreducible_loss_converged",
    "note",
    "intercept_published",
    "intercept_converged",
    *(
        f"{role}_{name}_{which}"
        for name in ("exponent", "log_coefficient")
        for role in ROLES
        for which in ("published", "converged")
    ),
)


@dataclass(frozen=True)
class PublishedLaw:
    """An Approach 3 fit of the authors.

    Attributes
    ----------
    law : with the parameters that they published.
    objective : sum of Huber losses that they stored with it, to ten decimals.
    """

    law: PowerLaw
    objective: float


@dataclass(frozen=True)
class PublishedLines:
    """An Approach 1 fit of the authors: a line for params and tokens, in some fits for tokens_per_param."""

    lines: Mapping[str, Line]


def published_laws(study: Study, folder: str | Path) -> dict[str, PublishedLaw | PublishedLines]:
    """The published counterpart of every fit of a study's config that has one, by the fit's name.

    A fit has a counterpart if selection (by name), parameter count and covariates and Huber delta, or resource, are the
    same.

    Parameters
    ----------
    folder : where downloaded files are kept; see :func:`gemstones.losses.released.fetch`, also for errors.
    """
    found: dict[str, PublishedLaw | PublishedLines] = {}
    for name, spec in study.fits.items():
        if spec.approach == 1:
            files = {quantity: _lines_file(spec, quantity) for quantity in QUANTITIES}
            lines = {quantity: _line(_read(file, folder)) for quantity, file in files.items() if file in REGISTRY}
            if lines:
                found[name] = PublishedLines(lines)
        else:
            for kind, covariates in LAWS.items():
                file = _law_file(spec, kind)
                if set(covariates) == set(spec.covariates) and file in REGISTRY:
                    found[name] = _law(_read(file, folder), covariates, spec.param_count)
    return found


def compare(
    study: Study,
    losses: pd.DataFrame,
    fits: Mapping[str, HuberFit | HullFit],
    published: Mapping[str, PublishedLaw | PublishedLines],
) -> pd.DataFrame:
    """Every fit beside its published counterpart.

    Parameters
    ----------
    losses : the losses table that the fits were made from.
    fits, published : by the fit's name in the config.

    Returns
    -------
    DataFrame with one row per fit and the columns `COLUMNS`, empty where they do not apply or nothing was published:
    `objective_stored` as the authors printed it, `objective_published` of their law on our rows, `excess_objective` how
    far this lies above the converged one (relative), slopes of log optimal parameters on log C, and
    `largest_line_difference` between slopes and intercepts of Approach 1, `intercept` that of its line of params.
    """
    rows = []
    for name, fit in fits.items():
        theirs = published.get(name)
        row = {"fit": name, "approach": study.fits[name].approach, "rows": fit.n_rows}
        if isinstance(fit, HullFit):
            row |= _compare_lines(fit, theirs if isinstance(theirs, PublishedLines) else PublishedLines({}))
        else:
            selection = study.fits[name].selection
            row |= _law_columns(fit.law, "converged") | {
                "huber_delta": fit.huber_delta,
                "objective_converged": fit.objective,
            }
            if isinstance(theirs, PublishedLaw):
                row |= _law_columns(theirs.law, "published")
                row |= _compare_objectives(
                    fit, theirs, select(losses, study.selections[selection], selection), selection
                )
        rows.append(row if theirs else row | {"note": "never published"})
    return pd.DataFrame(rows).reindex(columns=list(COLUMNS))


def _compare_objectives(fit: HuberFit, theirs: PublishedLaw, rows: pd.DataFrame, selection: str) -> dict[str, Any]:
    residuals = np.log(rows["loss"].to_numpy(float)) - np.log(theirs.law.predict(rows))
    objective = float(huber(fit.huber_delta, residuals).sum())
    note = None
    if abs(objective - theirs.objective) > PRINTED:
        rounded = selection in ROUNDED_TOKENS
        note = f"the authors fitted other rows{': their tokens are rounded to 1e9' if rounded else ''}"
    return {
        "objective_stored": theirs.objective,
        "objective_published": objective,
        "excess_objective": objective / fit.objective - 1,
        "note": note,
    }


def _compare_lines(fit: HullFit, theirs: PublishedLines) -> dict[str, Any]:
    row = {"slope_converged": fit.lines["params"].slope, "intercept_converged": fit.lines["params"].intercept}
    if theirs.lines:
        pairs = [(line, fit.lines[quantity]) for quantity, line in theirs.lines.items()]
        row["slope_published"] = theirs.lines["params"].slope
        row["intercept_published"] = theirs.lines["params"].intercept
        row["largest_line_difference"] = max(
            max(abs(a.slope - b.slope), abs(a.intercept - b.intercept)) for a, b in pairs
        )
    return row


def _law_columns(law: PowerLaw, which: str) -> dict[str, Any]:
    exponents = zip(law.covariates, law.exponents, strict=True)
    coefficients = zip(law.covariates, law.log_coefficients, strict=True)
    return {
        f"slope_{which}": law.slope,
        f"irreducible_loss_{which}": law.irreducible_loss,
        **{f"{role}_exponent_{which}": exponent for role, exponent in exponents},
        **{f"{role}_log_coefficient_{which}": coefficient for role, coefficient in coefficients},
    }


def _lines_file(spec: Approach1, quantity: str) -> str | None:
    if spec.resource != "flops" or spec.selection not in HULL_ROWS or spec.param_count not in HULL_COUNTS:
        return None
    return (
        f"parameters/approach_1_linear_regression_{quantity}{HULL_ROWS[spec.selection]}"
        f"{HULL_COUNTS[spec.param_count]}.json"
    )


def _law_file(spec: Approach3, kind: str) -> str | None:
    if spec.huber_delta not in DELTAS or spec.selection not in LAW_ROWS or spec.param_count not in LAW_COUNTS:
        return None
    return (
        f"{DELTAS[spec.huber_delta]}/approach_3_{kind}_grid_search_0_{LAW_ROWS[spec.selection]}"
        f"{LAW_COUNTS[spec.param_count]}.json"
    )


def _read(name: str, folder: str | Path) -> dict[str, Any]:
    return json.loads(fetch(name, folder).read_text())


def _line(stored: Mapping[str, Any]) -> Line:
    return Line(stored["coef"][0], stored["intercept"])


def _law(stored: Mapping[str, Any], covariates: tuple[str, ...], param_count: str) -> PublishedLaw:
    values = {key: column["0"] for key, column in stored.items()}  # a table with the one row "0"
    exponents, coefficients = tuple(values["exponents"]), tuple(values["coefficients"])
    irreducible_loss = float(np.exp(values["irreducible_error"]))  # stored as its logarithm
    return PublishedLaw(PowerLaw(covariates, exponents, coefficients, irreducible_loss, param_count), values["loss"])
