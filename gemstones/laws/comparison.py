"""Laws of several forms on the same rows: how far they miss them, held-out errors, AIC and BIC.

Three kinds: fitted here (sums of powers, and Kaplan's form), the Gemstones authors' parameters for the same rows, and laws of
other suites as published. The last know neither our tokenizer nor our data: their errors say how far such a law carries over,
not how good its form is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import erf, huber

from gemstones.errors import UserError
from gemstones.laws.choice import above_best, candidates, form
from gemstones.laws.fit import fit_huber
from gemstones.laws.holdout import TESTS, Mask, held_out, held_out_errors
from gemstones.laws.kaplan import KAPLAN, PARAMETERS, fit_kaplan
from gemstones.laws.power_law import CHINCHILLA, PowerLaw, n_parameters, positive_columns
from gemstones.laws.published import PublishedLaw, published_laws
from gemstones.laws.rows import run_names
from gemstones.losses.selections import select

if TYPE_CHECKING:
    from gemstones.study import Holdout, Study

Array = NDArray[np.float64]

HUBER_DELTA = 1e-4
# Without and with an interaction of tokens and size.
FITTED = (
    ("params", "tokens"), ("params", "tokens*params"),
    *(("width", "depth", data) for data in ("tokens", "tokens*width", "tokens*depth", "tokens*width*depth")),
    *(
        ("width", "depth", "params", data)
        for data in ("tokens", "tokens*params", "tokens*width", "tokens*depth", "tokens*width*depth")
    ),
)  # fmt: skip
HERE, AUTHORS, ELSEWHERE = "fitted here", "Gemstones authors", "another suite"
COLUMNS = (
    "selection", "law", "parameters_from", "parameters", "rows", "runs", "objective", "mean_absolute_error",
    *(
        f"{test}_{what}"
        for test in TESTS
        for what in ("mean_absolute_error", "above_best", "above_best_se", "mean_error", "final_mean_absolute_error")
    ),
    "worst_run", "params_at_most", "small_to_large_rows", "tokens_at_most", "short_to_long_rows",
    "aic", "bic", "aic_above_lowest", "note",
)  # fmt: skip


class Law(Protocol):
    def predict(self, table: pd.DataFrame, /) -> Array: ...


def authors_laws(study: Study, selection: str, folder: str | Path) -> list[PowerLaw]:
    """The Gemstones authors' laws for the rows of a selection: the counterparts of the config's fits to it."""
    if "released" not in study.losses.sources:
        return []
    same = {
        name: spec
        for name, spec in study.fits.items()
        if spec.approach == 3
        and (spec.selection, spec.param_count, spec.huber_delta) == (selection, "params", HUBER_DELTA)
    }
    found = published_laws(study.model_copy(update={"fits": same}), folder)
    laws = [theirs.law for theirs in found.values() if isinstance(theirs, PublishedLaw)]
    return sorted(laws, key=lambda law: FITTED.index(law.covariates))


def compare_selections(study: Study, losses: pd.DataFrame, folder: str | Path) -> pd.DataFrame:
    """:func:`compare_laws` for all selections of a study's `comparisons`, with the forms of the fits that may prescribe.

    Parameters
    ----------
    losses : the losses table.
    folder : where downloaded files are kept, for the authors' laws.
    """
    further = list(candidates(study).values())
    tables = []
    for name in study.comparisons:
        rows = select(losses, study.selections[name], name)
        tables.append(compare_laws(rows, name, authors_laws(study, name, folder), study.holdout, study.seed, further))
    return pd.concat(tables, ignore_index=True)


def compare_laws(
    table: pd.DataFrame,
    selection: str | None = None,
    authors: Sequence[PowerLaw] = (),
    holdout: Holdout | None = None,
    seed: int = 0,
    further: Sequence[tuple[str, ...]] = (),
) -> pd.DataFrame:
    """Compare laws on the rows of a selection, all by the Huber loss of log residuals with delta = 1e-4.

    Parameters
    ----------
    table : rows of the losses table.
    authors : the Gemstones authors' laws for these rows.
    holdout : see :func:`gemstones.laws.holdout.held_out_errors`.
    further : covariates of forms to compare beside those of `FITTED`.

    Returns
    -------
    DataFrame with one row a law and the columns `COLUMNS`. Errors are relative. `<test>_above_best` is how far the mean over runs of
    a form that is fitted here lies above that of the best one, `<test>_above_best_se` the standard error of that difference, paired
    by run (null where a run alone is predicted). Laws that are not fitted here are held
    against the same rows as they are. The authors' have seen those rows, so that this is no test of them; `aic` and `bic`
    count their parameters all the same, but none for laws of other suites. `note` says why numbers are
    missing, and which refits have not converged.
    """
    laws: list[tuple[str, str, int, Callable[..., tuple[Law, dict[str, Any]]]]] = [
        *(
            (", ".join(covariates), HERE, n_parameters(covariates), partial(_power_law, covariates, seed))
            for covariates in {form(each): each for each in (*further, *FITTED)}.values()
        ),
        ("Kaplan's form", HERE, PARAMETERS, _kaplan_law),
        *((", ".join(law.covariates), AUTHORS, law.n_parameters, partial(_fixed, law, law.columns)) for law in authors),
        ("Chinchilla", ELSEWHERE, 0, partial(_fixed, CHINCHILLA, CHINCHILLA.columns)),
        ("Kaplan", ELSEWHERE, 0, partial(_fixed, KAPLAN, (KAPLAN.param_count, "tokens"))),
    ]
    names = run_names(table)
    rows: list[dict[str, Any]] = []
    by_run: dict[str, dict[str, dict[str, float]]] = {test: {} for test in TESTS}
    for name, origin, parameters, make in laws:
        row: dict[str, Any] = {"selection": selection, "law": name, "parameters_from": origin, "parameters": parameters}
        row |= {"rows": len(table), "runs": None if names is None else len(np.unique(names))}
        try:
            law, tests = make(table, selection, holdout)
        except UserError as error:
            rows.append(row | {"note": str(error)})
            continue
        predicted, loss = law.predict(table), table["loss"].to_numpy(float)
        residuals = np.log(loss) - np.log(predicted)
        minus_2_log_likelihood = -2 * log_likelihood(residuals, HUBER_DELTA)
        row |= {
            "objective": float(huber(HUBER_DELTA, residuals).sum()),
            "mean_absolute_error": float(np.abs(predicted / loss - 1).mean()),
            # One parameter more than the law's: the scale of the residuals.
            "aic": minus_2_log_likelihood + 2 * (parameters + 1),
            "bic": minus_2_log_likelihood + math.log(len(table)) * (parameters + 1),
        }
        rows.append(row | _test_columns(tests))
        if origin == HERE:
            for test, found in tests.items():
                by_run[test][name] = {run: each["mean_absolute_error"] for run, each in found.get("by_run", {}).items()}
    differences = {test: above_best(errors) for test, errors in by_run.items()}
    for row in rows:
        if row["parameters_from"] == HERE:
            for test, by_law in differences.items():
                row[f"{test}_above_best"], row[f"{test}_above_best_se"] = by_law.get(row["law"], (None, None))
    compared = pd.DataFrame(rows).reindex(columns=list(COLUMNS))
    return compared.assign(aic_above_lowest=compared["aic"] - compared["aic"].min())


def _power_law(
    covariates: tuple[str, ...], seed: int, table: pd.DataFrame, selection: str | None, holdout: Holdout | None
) -> tuple[Law, dict[str, Any]]:
    fit = fit_huber(table, covariates, huber_delta=HUBER_DELTA, seed=seed, selection=selection)
    return fit, held_out(fit, table, holdout)


def _kaplan_law(table: pd.DataFrame, selection: str | None, holdout: Holdout | None) -> tuple[Law, dict[str, Any]]:
    law = fit_kaplan(table, HUBER_DELTA, selection=selection)

    def predicted(train: Mask) -> Array:
        try:
            return fit_kaplan(table[train], HUBER_DELTA, starts=[law]).predict(table)
        except UserError:
            return np.full(len(table), np.nan)

    def refit(masks: Mask) -> tuple[Array, Mask]:
        losses = np.array([predicted(train) for train in masks])
        return losses, ~np.isnan(losses[:, 0])

    return law, held_out_errors(table, refit, ("params", "tokens"), PARAMETERS, holdout=holdout)


def _fixed(
    law: Law, columns: Sequence[str], table: pd.DataFrame, selection: str | None, holdout: Holdout | None
) -> tuple[Law, dict[str, Any]]:
    positive_columns(table, columns, f"selection '{selection}'")
    predicted = law.predict(table)

    def unchanged(masks: Mask) -> tuple[Array, Mask]:
        return np.tile(predicted, (len(masks), 1)), np.ones(len(masks), dtype=bool)

    return law, held_out_errors(table, unchanged, holdout=holdout)


def log_likelihood(residuals: Array, delta: float) -> float:
    """Log likelihood of log residuals r under the density whose −log is Huber's loss H, at the most likely scale.

    The density is exp(−H(r)/s)/Z(s), normal in the middle and exponential beyond delta, with
    Z(s) = sqrt(2·pi·s)·erf(delta/sqrt(2s)) + 2s/delta · exp(−delta²/(2s)). At the most likely s, the mean of H is its
    expectation, which lies between s/2 (all normal) and s (all exponential). It takes rows as independent. Those of a run are
    not: differences of AIC and BIC are overstated, and both favour laws with many parameters. (BIC with the number of runs
    would mend its penalty alone, not the likelihood that it is set against; held-out errors by run do not have the fault.)
    """
    total, n = float(huber(delta, residuals).sum()), len(residuals)

    def minus(log_s: float) -> float:
        s = math.exp(log_s)
        tails = 2 * s / delta * math.exp(-(delta**2) / (2 * s))
        return total / s + n * math.log(math.sqrt(2 * math.pi * s) * float(erf(delta / math.sqrt(2 * s))) + tails)

    mean = math.log(max(total / n, np.finfo(float).tiny))
    bounds = (mean - 0.01, mean + math.log(2) + 0.01)
    return -float(minimize_scalar(minus, bounds=bounds, method="bounded", options={"xatol": 1e-10}).fun)


def _test_columns(tests: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    leave_one_out, small, short = (tests[test] for test in TESTS)
    row = {f"{test}_{key}": value for test, found in tests.items() for key, value in found.items()}
    row |= {"worst_run": leave_one_out.get("worst_run")}
    row |= {"params_at_most": small.get("params_at_most"), "tokens_at_most": short.get("tokens_at_most")}
    faults = [reason for found in tests.values() for reason in found["skipped"]]
    faults += [f"without {rows}: not converged" for found in tests.values() for rows in found["not_converged"]]
    return {key: value for key, value in row.items() if key in COLUMNS} | {"note": "; ".join(faults) or None}
