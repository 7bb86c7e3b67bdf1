"""Which form of law a study goes by: the simplest whose held-out error lies within a standard error of the best form's.

The error is that of the losses of a run that was left out, mean over runs. Runs are the same for all forms, so differences are paired
by run, and their standard errors are far smaller than those of the errors themselves. (Breiman et al. 1984, section 3.4.3, choose
the simplest model within one standard error of the best.)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from gemstones.errors import UserError
from gemstones.laws.power_law import factors

if TYPE_CHECKING:
    from gemstones.study import Study

TEST = "leave_one_run_out"
COLUMNS = (f"{TEST}_mean_absolute_error", f"{TEST}_above_best", f"{TEST}_above_best_se")


def form(covariates: Sequence[str]) -> frozenset[frozenset[str]]:
    """A law's terms, in whatever order they and their factors are written."""
    return frozenset(frozenset(factors(term)) for term in covariates)


def candidates(study: Study) -> dict[str, tuple[str, ...]]:
    """Covariates, by name, of the fits that may prescribe: all of one selection, the first of `comparisons`, and fitted alike."""
    if not study.comparisons:
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for name in study.prescriptions.fits:
        fit = study.fits[name]
        if fit.approach != 3 or fit.selection != study.comparisons[0] or fit.param_count != "params":
            continue
        if fit.huber_delta == 1e-4 and fit.weights is None and fit.overestimate_penalty == 1:
            found[name] = fit.covariates
    return found


def above_best(by_run: Mapping[str, Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    """How far each law's mean error over runs lies above the lowest, and the standard error of that difference, paired by run.

    Parameters
    ----------
    by_run : mean absolute error of each run, by law; runs that a law has not are left out of its difference.
    """
    means = {law: float(np.mean(list(errors.values()))) for law, errors in by_run.items() if errors}
    if not means:
        return {}
    best = by_run[min(means, key=means.__getitem__)]
    found = {}
    for law in means:
        difference = np.array([by_run[law][run] - best[run] for run in by_run[law] if run in best])
        error = difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else np.nan
        found[law] = (float(difference.mean()) if len(difference) else np.nan, float(error))
    return found


def choose(study: Study, compared: pd.DataFrame) -> dict[str, Any]:
    """The fit that prescribes where none is named, and why, as plain data.

    Parameters
    ----------
    compared : as :func:`gemstones.laws.comparison.compare_laws` gives it, of the first of `comparisons` at least.

    Returns
    -------
    `fit`; `selection`; `chosen_by` (held-out error, config, or the order of prescriptions.fits where no run could be left out);
    `candidates`, a row for each fit that may prescribe: fit, law, parameters, `error`, `above_best` and `above_best_se`; `best`,
    the same of the form with the lowest error, whose `fit` is None if the study has none of that form; `said`, a sentence.
    """
    rows = compared[(compared["selection"] == study.comparisons[0]) & (compared["parameters_from"] == "fitted here")]
    known = {form(str(law).split(", ")): row for law, row in rows.set_index("law").iterrows()}
    told = {name: _row(name, covariates, known.get(form(covariates))) for name, covariates in candidates(study).items()}
    simplest = simplest_near_best(list(told.values()))
    best = _best(rows, {form(covariates): name for name, covariates in candidates(study).items()})
    fit, chosen_by = (simplest or {}).get("fit"), "held-out error"
    if study.prescriptions.main is not None:
        fit, chosen_by = study.prescriptions.main, "config"
    elif fit is None:
        fit, chosen_by = study.main_fit, "the order of prescriptions.fits"
    found = {"fit": fit, "selection": study.comparisons[0], "chosen_by": chosen_by, "best": best}
    found["candidates"] = list(told.values())
    return {**found, "said": said(found, str(fit))}


def simplest_near_best(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Of rows with `parameters`, `error`, `above_best` and `above_best_se`, the simplest within a standard error of the best.

    The best form may be none of them: where none is that near to it, the row with the lowest error. None where no row has an error.
    """
    tested = [row for row in rows if row["error"] is not None]
    within = [row for row in tested if row["above_best"] <= (row["above_best_se"] or 0.0)]
    near = within or sorted(tested, key=lambda row: row["error"])[:1]
    return min(near, key=lambda row: (row["parameters"], row["error"]), default=None)


def said(choice: Mapping[str, Any], fit: str) -> str:
    """How well a fit predicts beside the best form, in a sentence."""
    row = next((row for row in choice["candidates"] if row["fit"] == fit), None)
    best = choice["best"]
    if row is None or row["error"] is None or best is None:
        return f"{fit} was not compared with other forms by held-out error"
    own = f"{fit} is {100 * row['error']:.2f} % off a run that it has not seen"
    if row["law"] == best["law"]:
        return f"{own}, the least of all forms that were compared"
    more = f"{100 * row['above_best']:.3f} ± {100 * (row['above_best_se'] or 0):.3f} percentage points more than {best['law']}"
    if row["above_best"] <= (row["above_best_se"] or 0):
        fewer = best["parameters"] - row["parameters"]
        return (
            f"{own}: {more}; that is within a standard error, with {fewer} parameter{'s' if fewer != 1 else ''} fewer"
        )
    return f"{own}: {more}, the best form"


def read_choice(path: Path) -> dict[str, Any]:
    """The choice that a study's comparison has written.

    Raises
    ------
    UserError
        If the file holds none.
    """
    try:
        found = json.loads(path.read_text())
        said(found, found["fit"])
        _ = [(row["fit"], str(row["law"])) for row in found["candidates"]], found["selection"]
        return dict(found)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: no choice of a law ({type(error).__name__}: {error}); remove it and make it again"
        ) from None


def _row(name: str | None, covariates: Sequence[str], row: pd.Series[Any] | None) -> dict[str, Any]:
    numbers = [None if row is None or pd.isna(row[column]) else float(row[column]) for column in COLUMNS]
    parameters = None if row is None else int(row["parameters"])
    told = {"fit": name, "law": ", ".join(covariates), "parameters": parameters}
    return told | dict(zip(("error", "above_best", "above_best_se"), numbers, strict=True))


def _best(rows: pd.DataFrame, fits: Mapping[frozenset[frozenset[str]], str]) -> dict[str, Any] | None:
    rows = rows[rows[COLUMNS[1]].notna()]
    if rows.empty:
        return None
    row = rows.loc[rows[COLUMNS[1]].idxmin()]
    terms = str(row["law"]).split(", ")
    return _row(fits.get(form(terms)), terms, row)
