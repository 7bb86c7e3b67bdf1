"""Held-out errors of the laws on the released losses, and that their refits are at the minimum."""

from dataclasses import replace

import numpy as np
import pytest

from gemstones.laws import fit_huber, holdout
from gemstones.laws.comparison import authors_laws, compare_laws
from gemstones.laws.holdout import LEAVE_ONE_RUN_OUT, SHORT_TO_LONG, SMALL_TO_LARGE, held_out
from gemstones.laws.minimize import minimize
from gemstones.laws.starts import screened_starts
from gemstones.losses.released import released_losses
from gemstones.losses.selections import select

LAWS = {2: ("params", "tokens"), 3: ("width", "depth", "tokens"), 4: ("width", "depth", "params", "tokens")}


@pytest.fixture(scope="session")
def downloads(released_folder, tmp_path_factory):
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="session")
def rows(released, downloads):
    return select(released_losses(released, downloads), released.selections["all"], "all")


@pytest.mark.parametrize(
    ("k", "one_run", "small_to_large", "short_to_long"),
    [(2, 1.01, 1.11, 1.41), (3, 0.68, 1.57, 1.09), (4, 0.48, 0.91, 0.97)],
)
def test_known_errors(released, rows, k, one_run, small_to_large, short_to_long):
    """In percent; from short to long the known ones are of the last two of each run's rows, those beyond 340B tokens."""
    fit = fit_huber(rows, LAWS[k])
    tests = held_out(fit, rows, released.holdout)
    assert 100 * tests[LEAVE_ONE_RUN_OUT]["mean_absolute_error"] == pytest.approx(one_run, abs=0.005)
    assert 100 * tests[SMALL_TO_LARGE]["mean_absolute_error"] == pytest.approx(small_to_large, abs=0.005)
    short = fit_huber(rows[rows["tokens"] <= released.holdout.tokens_at_most], LAWS[k])
    last = rows[rows["tokens"] > 340e9]
    assert 100 * np.abs(short.predict(last) / last["loss"] - 1).mean() == pytest.approx(short_to_long, abs=0.005)
    beyond = rows[rows["tokens"] > released.holdout.tokens_at_most]
    error = np.abs(short.predict(beyond) / beyond["loss"] - 1)
    assert tests[SHORT_TO_LONG]["mean_absolute_error"] == pytest.approx(error.mean(), rel=1e-6)
    ends = (beyond["step"] == 83_475).to_numpy()
    assert tests[SHORT_TO_LONG]["final_mean_absolute_error"] == pytest.approx(error[ends].mean(), rel=1e-6)
    counts = {test: (found["rows"], found["runs"], found.get("rows_fitted")) for test, found in tests.items()}
    assert counts == {
        LEAVE_ONE_RUN_OUT: (770, 22, None), SMALL_TO_LARGE: (105, 3, 665), SHORT_TO_LONG: (550, 22, 220),
    }  # fmt: skip


@pytest.mark.parametrize("k", LAWS)
def test_refits_are_at_the_minimum(released, rows, k, monkeypatch):
    """From the fit of all rows, every fold ends as low as from screened starts."""
    calls = []

    def recorded(phi, problem, *arguments):
        calls.append((problem, minimize(phi, problem, *arguments)))
        return calls[-1][1]

    monkeypatch.setattr(holdout, "minimize", recorded)
    held_out(fit_huber(rows, LAWS[k]), rows, released.holdout)
    ((problem, found),) = calls
    assert len(found.objective) == 24
    for weights, objective in zip(problem.weights, found.objective, strict=True):
        alone = replace(problem, weights=weights)
        cold = minimize(screened_starts(alone, 8, np.random.default_rng(0)), alone, 1e-4)
        assert objective == pytest.approx(cold.objective.min(), rel=1e-9)


def test_comparison(released, rows, downloads):
    table = compare_laws(rows, "all", authors_laws(released, "all", downloads), released.holdout)
    assert table["note"].isna().all()
    best = table.loc[table["aic_above_lowest"] == 0].iloc[0]
    assert (best["law"], best["parameters_from"]) == ("width, depth, params, tokens*width*depth", "fitted here")
    # SPEC 6b, in percent.
    left_out = (
        100 * table[table["parameters_from"] == "fitted here"].set_index("law")["leave_one_run_out_mean_absolute_error"]
    )
    assert left_out["width, depth, params, tokens*params"] == pytest.approx(0.201, abs=2e-3)
    assert left_out["width, depth, params, tokens"] == pytest.approx(0.477, abs=2e-3)
    ours, theirs = (
        table[table["parameters_from"] == who].set_index("law") for who in ("fitted here", "Gemstones authors")
    )
    assert list(theirs.index) == [", ".join(covariates) for covariates in LAWS.values()]
    assert (ours["objective"][theirs.index] < theirs["objective"]).all()
    assert ours.loc["Kaplan's form", "objective"] == pytest.approx(7.86576e-4, rel=1e-6)
    elsewhere = table[table["parameters_from"] == "another suite"].set_index("law")["mean_absolute_error"]
    assert (100 * elsewhere).round(1).to_dict() == {"Chinchilla": 12.2, "Kaplan": 10.3}
