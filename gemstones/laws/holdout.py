"""Held-out tests: a law is fitted again without some rows, and its losses for them are compared with the observed ones.

Three tests: each run left out in turn (a cooldown goes with its main run), from small to large models, from short to long
training. Errors are relative, predicted loss / observed loss − 1, and so positive where the law overestimates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gemstones.errors import UserError
from gemstones.laws.fit import HuberFit, columns_of, phi_of, problem_of
from gemstones.laws.hull import HullFit, fit_hull
from gemstones.laws.identifiability import DISTINCT_VALUES
from gemstones.laws.minima import CONVERGED_GRADIENT, PERFECT, STARTS, along_constant
from gemstones.laws.minimize import Minima, minimize
from gemstones.laws.objective import predict
from gemstones.laws.power_law import positive_columns
from gemstones.laws.rows import read_rows, run_names, shape_families
from gemstones.laws.starts import screened_starts

if TYPE_CHECKING:
    import pandas as pd

    from gemstones.study import Holdout

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
# From masks (F, n) of rows to fit to the losses (F, n) that the F laws predict, NaN without a law, and whether they converged.
Refit = Callable[[Mask], tuple[Array, Mask]]

TESTS = LEAVE_ONE_RUN_OUT, SMALL_TO_LARGE, SHORT_TO_LONG = "leave_one_run_out", "small_to_large", "short_to_long"
# The fit of all rows is a good start for one of some of them; a first stage this wide lets it move.
FIRST_DELTA = 1e-2
# Folds times rows that are fitted together, so that memory does not grow with both.
TOGETHER = 1_000_000
_NO_RUNS = "not every row names a run"


# Runs are left out one by one up to this many; more make as many groups.
MOST_FOLDS = 200


class Fold(NamedTuple):
    """One refit of a test: `train` (n,) says which rows are fitted; all others, which `left_out` names, are predicted."""

    test: str
    left_out: str
    train: Mask


def held_out(fit: HuberFit | HullFit, table: pd.DataFrame, holdout: Holdout | None = None) -> dict[str, Any]:
    """Test a fit on the rows that it was fitted to.

    Parameters
    ----------
    table : the rows of the fit's selection.
    holdout : where small and short end; see :func:`held_out_errors`.

    Returns
    -------
    Plain data. For a power law see :func:`held_out_errors`. A hull predicts no loss: for it, `leave_one_run_out` says how
    low and how high the slopes of its lines come when a run that has a point on the hull is left out, and which.

    Raises
    ------
    UserError
        As the fit itself.
    """
    if isinstance(fit, HullFit):
        return {"leave_one_run_out": _slopes_without_a_run(fit, table)}
    columns = columns_of(fit.law.covariates, fit.law.param_count)
    source = f"selection '{fit.selection}'" if fit.selection else "fit"
    table = table.iloc[read_rows(table, columns, source).order]
    rows = read_rows(table, columns, source, fit.weights)  # in the table's order, which is theirs by now
    problem, centre = problem_of(rows, fit.law.covariates, fit.overestimate_penalty)
    start = phi_of(fit.law, centre)

    def gradients(minima: Minima, n: NDArray[np.intp]) -> Array:
        scale = np.minimum(fit.huber_delta, np.maximum(np.sqrt(2 * minima.objective / n), PERFECT))
        return np.linalg.norm(minima.gradient, axis=1) / (n * scale)

    def refit(train: Mask) -> tuple[Array, Mask]:
        n, weights = train.sum(1), train.astype(float) if rows.weights is None else train * rows.weights
        starts = np.repeat(start, len(train), axis=0)
        found = minimize(starts, replace(problem, weights=weights), fit.huber_delta, FIRST_DELTA)
        if len(train) == 1:  # of a test that is one fit: minima of nearly one objective may predict otherwise
            found = along_constant(found, replace(problem, weights=weights[0]), fit.huber_delta)
        phi, gradient = found.phi, gradients(found, n)
        # Where the fit itself needed several starts, so do these.
        for i in np.flatnonzero((gradient > CONVERGED_GRADIENT) | (fit.share_of_starts_at_optimum < 1)):
            alone = replace(problem, weights=weights[i])
            others = minimize(screened_starts(alone, STARTS, np.random.default_rng(0)), alone, fit.huber_delta)
            best = int(np.argmin(others.objective))
            if others.objective[best] < found.objective[i]:
                phi[i], gradient[i] = others.phi[best], gradients(others, np.full(len(others.phi), n[i]))[best]
        return predict(phi, problem.u, problem.of_term), gradient <= CONVERGED_GRADIENT

    return held_out_errors(table, refit, columns[:-1], fit.n_parameters, fit.law.param_count, holdout)


def held_out_errors(
    table: pd.DataFrame,
    refit: Refit,
    columns: Sequence[str] = (),
    parameters: int = 0,
    param_count: str = "params",
    holdout: Holdout | None = None,
) -> dict[str, Any]:
    """The three tests, for a law of any form.

    Parameters
    ----------
    table : rows; reads `loss` and, where present, `run`, `parent`, `tokens` and `param_count`.
    refit : fits and predicts, in the table's order of rows.
    columns, parameters : columns that must vary within the rows to fit, and the fewest rows that a fit takes.
    holdout : the largest parameter count and tokens to fit. By default, and where these do not part the rows, it is the
        geometric middle between the rows' smallest and largest.

    Returns
    -------
    `leave_one_run_out`, `small_to_large` and `short_to_long`, each with the numbers of `rows` and `runs` predicted, the
    `mean_absolute_error` and `mean_error` of these rows, `final_mean_absolute_error` of the last row of each run, and
    `skipped`, a sentence for each fold that could not be fitted, and `not_converged`, what was left out where a fit stopped
    before its minimum; where rows name runs, the `worst_run` and errors `by_run`. The second and third also have `params_at_most`
    or `tokens_at_most` and the number of `rows_fitted`.
    """
    names = shape_families(table)
    tests: dict[str, dict[str, Any]] = {test: {"skipped": [], "not_converged": []} for test in TESTS}
    folds = _without_each_run(names, tests[TESTS[0]])
    for test, key, column in zip(TESTS[1:], ("params_at_most", "tokens_at_most"), (param_count, "tokens"), strict=True):
        folds += _beyond(table, column, getattr(holdout, key, None), test, key, tests[test])
    values, possible = positive_columns(table, (*columns, "loss"), "held-out tests"), []
    for fold in folds:
        fault = _fault(values, fold.train, columns, parameters)
        if fault:
            tests[fold.test]["skipped"].append(f"without {fold.left_out}: {fault}")
        else:
            possible.append(fold)

    loss = values[:, -1]
    error = {test: np.full(len(table), np.nan) for test in TESTS}
    together = max(1, TOGETHER // max(1, len(table)))
    for some in (possible[i : i + together] for i in range(0, len(possible), together)):
        for fold, predicted, converged in zip(some, *refit(np.array([fold.train for fold in some])), strict=True):
            error[fold.test][~fold.train] = (predicted / loss - 1)[~fold.train]
            if not converged:
                tests[fold.test]["not_converged"].append(fold.left_out)

    for test in TESTS:
        tests[test] |= _summary(error[test], names, table)
    if names is None:
        return tests
    for test in TESTS:
        by_run = {str(run): _summary(error[test][names == run]) for run in np.unique(names)}
        by_run = {run: errors for run, errors in by_run.items() if errors}
        if by_run:
            worst = max(by_run, key=lambda run: by_run[run]["mean_absolute_error"])
            tests[test] |= {"worst_run": worst, "by_run": by_run}
    return tests


def _without_each_run(names: NDArray[np.str_] | None, test: dict[str, Any]) -> list[Fold]:
    if names is None or len(set(names)) < 2:
        test["skipped"].append(_NO_RUNS if names is None else f"all rows are of one run, {names[0]}")
        return []
    runs = np.unique(names)
    if len(runs) <= MOST_FOLDS:
        return [Fold(TESTS[0], f"run {run}", names != run) for run in runs]
    # So many runs are left out a group at a time.
    group = np.searchsorted(runs, names) % MOST_FOLDS
    return [Fold(TESTS[0], f"group {i} of {MOST_FOLDS}", group != i) for i in range(MOST_FOLDS)]


def _beyond(
    table: pd.DataFrame, column: str, at_most: float | None, name: str, key: str, test: dict[str, Any]
) -> list[Fold]:
    x = _numbers(table, column)
    if np.isnan(x).any():
        test["skipped"].append(f"not every row has a number of {column}")
        return []
    low, high = x.min(), x.max()
    if low == high:
        test["skipped"].append(f"{column} is {low:g} in every row")
        return []
    if at_most is None or not low <= at_most < high:
        at_most = math.sqrt(low) * math.sqrt(high)
    train = x <= at_most
    test |= {key: float(at_most), "rows_fitted": int(train.sum())}
    return [Fold(name, f"{column} above {at_most:.3g}", train)]


def _fault(values: Array, train: Mask, columns: Sequence[str], parameters: int) -> str | None:
    """Why the rows `train` of values (n, len(columns) + 1) determine no law, if they do not."""
    if train.sum() < parameters:
        return f"{train.sum()} rows are left for {parameters} parameters"
    for column, x in zip(columns, values.T, strict=False):
        distinct = len(np.unique(x[train]))
        # What has few values in all rows is forgiven: those predicted are then among them.
        if distinct < min(DISTINCT_VALUES, max(2, len(np.unique(x)))):
            return f"{column} has {distinct} value{'s' if distinct > 1 else ''} in the rows that are left"
    return None


def _summary(error: Array, names: NDArray[np.str_] | None = None, table: pd.DataFrame | None = None) -> dict[str, Any]:
    """Means over the rows that were predicted; nothing where none was."""
    tested = ~np.isnan(error)
    if not tested.any():
        return {}
    found: dict[str, Any] = {"rows": int(tested.sum())}
    if names is not None:
        found["runs"] = len(np.unique(names[tested]))
    found["mean_absolute_error"] = float(np.abs(error[tested]).mean())
    found["mean_error"] = float(error[tested].mean())
    if names is not None and table is not None:
        tokens = _numbers(table, "tokens")
        last = [np.flatnonzero(names == run)[np.argmax(tokens[names == run])] for run in np.unique(names[tested])]
        last = [row for row in last if tested[row] and not np.isnan(tokens[row])]
        if last:
            found["final_mean_absolute_error"] = float(np.abs(error[last]).mean())
    return found


def _numbers(table: pd.DataFrame, column: str) -> Array:
    """A column (n,) that the law itself may not need: not-a-number where it is none of positive numbers."""
    try:
        return positive_columns(table, (column,), "held-out tests")[:, 0]
    except UserError:
        return np.full(len(table), np.nan)


def _slopes_without_a_run(fit: HullFit, table: pd.DataFrame) -> dict[str, Any]:
    names = run_names(table)
    if names is None or fit.n_runs == 1:
        return {"skipped": [_NO_RUNS if names is None else f"all rows are of one run, {names[0]}"]}
    # Without a run that has no point on it, the hull is the same.
    run_of = dict(zip(table["run"].astype(str), names, strict=True))
    on_hull = sorted({str(run_of[str(point.run)]) for point in fit.hull})
    slopes: dict[str, dict[str, float]] = {quantity: {} for quantity in fit.lines}
    skipped = []
    for run in on_hull:
        try:
            lines = fit_hull(table[names != run], fit.resource, fit.param_count, fit.selection).lines
        except UserError as error:
            skipped.append(f"without run {run}: {error}")
            continue
        for quantity, line in lines.items():
            slopes[quantity][run] = line.slope
    found = {
        quantity: {
            "lowest": min(by_run.values()),
            "lowest_without": min(by_run, key=by_run.__getitem__),
            "highest": max(by_run.values()),
            "highest_without": max(by_run, key=by_run.__getitem__),
        }
        for quantity, by_run in slopes.items()
        if by_run
    }
    return {"runs": len(set(names)), "runs_on_hull": len(on_hull), "slopes": found, "skipped": skipped}
