import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from gemstones.laws import fit_huber, fit_hull
from gemstones.laws.holdout import TESTS, held_out, held_out_errors
from gemstones.study import Holdout

EQ_2 = ("width", "depth", "params", "tokens")
LEFT_OUT, SMALL, SHORT = TESTS


def relative_error(law, table: pd.DataFrame) -> np.ndarray:
    return law.predict(table) / table["loss"].to_numpy() - 1


def test_a_true_law_predicts_what_it_has_not_seen(grid, law):
    table = grid.assign(loss=law.predict(grid))
    tests = held_out(fit_huber(table), table)
    assert {test: (tests[test]["rows"], tests[test]["runs"]) for test in TESTS} == {
        LEFT_OUT: (120, 10), SMALL: (72, 6), SHORT: (90, 10),
    }  # fmt: skip
    for test in TESTS:
        assert tests[test]["mean_absolute_error"] < 1e-6
        assert tests[test]["final_mean_absolute_error"] < 1e-6
        assert tests[test]["skipped"] == tests[test]["not_converged"] == []
    assert json.loads(json.dumps(tests, allow_nan=False)) == tests


@pytest.mark.parametrize(
    ("covariates", "options"),
    [
        (("params", "tokens"), {}),
        (("width", "depth", "tokens"), {"huber_delta": 1e-3}),
        (("params", "tokens"), {"huber_delta": np.inf}),
        (("params", "tokens"), {"weights": "weight"}),
        (("params", "tokens"), {"overestimate_penalty": 5.0}),
    ],
)
def test_errors_are_those_of_laws_fitted_without_the_rows(noisy, covariates, options):
    """Each fold, fitted from the law of all rows, ends where a fit from scratch does."""
    table = noisy.assign(weight=noisy["tokens"]).sample(frac=1, random_state=0)
    holdout = Holdout(params_at_most=4e8, tokens_at_most=6e10)
    tests = held_out(fit_huber(table, covariates, **options), table, holdout)
    errors = []
    for run, rest in table.groupby("run"):
        without = fit_huber(table[table["run"] != run], covariates, **options)
        error = relative_error(without, rest)
        errors.append(error)
        found = tests[LEFT_OUT]["by_run"][run]
        assert found["rows"] == 12
        assert found["mean_error"] == pytest.approx(error.mean(), rel=1e-6)
        assert found["mean_absolute_error"] == pytest.approx(np.abs(error).mean(), rel=1e-6)
    assert tests[LEFT_OUT]["mean_absolute_error"] == pytest.approx(np.abs(errors).mean(), rel=1e-6)
    assert tests[LEFT_OUT]["worst_run"] == max(
        tests[LEFT_OUT]["by_run"], key=lambda run: tests[LEFT_OUT]["by_run"][run]["mean_absolute_error"]
    )
    for test, column, limit in ((SMALL, "params", 4e8), (SHORT, "tokens", 6e10)):
        beyond = table[table[column] > limit]
        error = relative_error(fit_huber(table[table[column] <= limit], covariates, **options), beyond)
        assert tests[test]["rows"] == len(beyond)
        assert tests[test]["rows_fitted"] == len(table) - len(beyond)
        assert tests[test]["mean_error"] == pytest.approx(error.mean(), rel=1e-6)
        last = (beyond["tokens"] == table["tokens"].max()).to_numpy()
        assert tests[test]["final_mean_absolute_error"] == pytest.approx(np.abs(error[last]).mean(), rel=1e-6)


def test_a_run_that_does_not_follow_the_law_is_the_worst(grid, law):
    loss = law.predict(grid) * np.where(grid["run"] == "768x45", 1.05, 1)
    found = held_out(fit_huber(grid.assign(loss=loss)), grid.assign(loss=loss))[LEFT_OUT]
    assert found["worst_run"] == "768x45"
    # Observed losses are higher than predicted.
    assert found["by_run"]["768x45"]["mean_error"] == pytest.approx(1 / 1.05 - 1, abs=1e-6)


def test_a_cooldown_is_left_out_with_its_main_run(noisy):
    cooldown = noisy[noisy["step"] == 24_000].assign(
        parent=noisy["run"], phase="cooldown", run=noisy["run"] + "-cooldown-24000"
    )
    table = pd.concat([noisy, cooldown], ignore_index=True)
    found = held_out(fit_huber(table), table)[LEFT_OUT]
    assert found["runs"] == 10
    without = fit_huber(table[~table["run"].str.startswith("256x71")])
    error = relative_error(without, table[table["run"].str.startswith("256x71")])
    assert found["by_run"]["256x71"] == {
        "rows": 13,
        "mean_absolute_error": pytest.approx(np.abs(error).mean(), rel=1e-6),
        "mean_error": pytest.approx(error.mean(), rel=1e-6),
    }


def test_limits_are_the_configs_where_they_part_the_rows_and_the_geometric_middle_elsewhere(noisy):
    fit = fit_huber(noisy)
    given = held_out(fit, noisy, Holdout(params_at_most=5e8, tokens_at_most=5e10))
    assert (given[SMALL]["params_at_most"], given[SHORT]["tokens_at_most"]) == (5e8, 5e10)
    for holdout in (None, Holdout(), Holdout(params_at_most=1e12, tokens_at_most=1e3)):
        middle = held_out(fit, noisy, holdout)
        for test, column in ((SMALL, "params"), (SHORT, "tokens")):
            expected = np.sqrt(noisy[column].min() * noisy[column].max())
            assert middle[test][f"{column}_at_most"] == pytest.approx(expected)


def test_what_cannot_be_tested_is_said(noisy):
    fit = fit_huber(noisy)
    assert held_out(fit, noisy.drop(columns="run"))[LEFT_OUT] == {
        "skipped": ["not every row names a run"], "not_converged": [],
    }  # fmt: skip
    one = noisy.assign(run="a")
    assert held_out(fit_huber(one), one)[LEFT_OUT]["skipped"] == ["all rows are of one run, a"]
    depths = fit_huber(noisy, ("width", "depth", "tokens"))
    unknown = held_out(depths, noisy.drop(columns="params"))
    assert unknown[SMALL]["skipped"] == ["not every row has a number of params"]
    assert unknown[SHORT]["rows"] == 90
    same = held_out(fit_huber(noisy, ("params",)), noisy.assign(tokens=1e10))
    assert same[SHORT]["skipped"] == ["tokens is 1e+10 in every row"]


def test_folds_that_determine_no_law_are_skipped(noisy):
    three = ["256x23", "256x71", "768x45"]
    few = noisy[noisy["run"].isin(three)]
    found = held_out(fit_huber(few), few)[LEFT_OUT]
    assert found["skipped"] == [f"without run {run}: params has 2 values in the rows that are left" for run in three]
    assert "rows" not in found
    # Only 768x3 has more than two numbers of tokens.
    two = noisy[(noisy["run"] == "768x3") | noisy["step"].isin([12_000, 24_000])]
    found = held_out(fit_huber(two), two)[LEFT_OUT]
    assert found["skipped"] == ["without run 768x3: tokens has 2 values in the rows that are left"]
    assert "768x3" not in found["by_run"]
    assert found["runs"] == 9
    short = held_out(fit_huber(noisy), noisy, Holdout(tokens_at_most=1e10))[SHORT]
    assert short["skipped"] == ["without tokens above 1e+10: tokens has 1 value in the rows that are left"]
    small = held_out(fit_huber(few), few, Holdout(params_at_most=few["params"].min()))[SMALL]
    assert small["skipped"] == [
        f"without params above {few['params'].min():.3g}: params has 1 value in the rows that are left"
    ]
    assert held_out(fit_huber(noisy[::20]), noisy[::20])[SMALL]["skipped"] == [
        "without params above 3.05e+08: 3 rows are left for 5 parameters"
    ]


def test_a_covariate_with_two_values_everywhere_is_no_reason_to_skip(noisy):
    two = noisy[noisy["step"].isin([12_000, 24_000])]
    found = held_out(fit_huber(two), two)
    assert found[LEFT_OUT]["runs"] == 10
    assert found[SHORT]["skipped"] == ["without tokens above 7.12e+10: tokens has 1 value in the rows that are left"]


def test_a_fit_that_has_not_converged_is_named(noisy):
    def refit(train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        converged = train[:, -1]
        return np.tile(noisy["loss"] * 1.01, (len(train), 1)), converged

    found = held_out_errors(noisy, refit)
    assert found[LEFT_OUT]["not_converged"] == ["run 3072x12"]
    assert found[SMALL]["not_converged"] == ["params above 3.12e+08"]
    assert found[LEFT_OUT]["rows"] == 120
    assert found[LEFT_OUT]["mean_error"] == pytest.approx(0.01)


def test_a_law_that_the_rows_do_not_identify_is_fitted_from_more_starts(noisy):
    """Four covariates for losses of two: the fit of all rows is no good start for the others."""
    some = noisy[noisy["step"] % 6000 == 0]
    found = held_out(replace(fit_huber(some, EQ_2), share_of_starts_at_optimum=0.9), some)
    for run in ("256x23", "512x12"):
        without = fit_huber(some[some["run"] != run], EQ_2)
        error = relative_error(without, some[some["run"] == run])
        assert found[LEFT_OUT]["by_run"][run]["mean_error"] == pytest.approx(error.mean(), abs=1e-5)


def test_many_folds_are_fitted_in_parts(noisy, monkeypatch):
    fit = fit_huber(noisy)
    at_once = held_out(fit, noisy)
    monkeypatch.setattr("gemstones.laws.holdout.TOGETHER", 3 * len(noisy))
    in_parts = held_out(fit, noisy)
    assert in_parts[LEFT_OUT]["mean_error"] == pytest.approx(at_once[LEFT_OUT]["mean_error"], rel=1e-9)


def test_a_hull_without_a_run(noisy):
    fit = fit_hull(noisy)
    found = held_out(fit, noisy)[LEFT_OUT]
    slopes = {run: fit_hull(noisy[noisy["run"] != run]).lines["params"].slope for run in noisy["run"].unique()}
    spread = found["slopes"]["params"]
    assert (spread["lowest"], spread["highest"]) == (min(slopes.values()), max(slopes.values()))
    assert slopes[spread["lowest_without"]] == spread["lowest"] < fit.lines["params"].slope
    assert slopes[spread["highest_without"]] == spread["highest"] > fit.lines["params"].slope
    assert (found["runs"], found["runs_on_hull"], found["skipped"]) == (10, len({point.run for point in fit.hull}), [])
    nameless = noisy.drop(columns="run")
    assert held_out(fit_hull(nameless), nameless)[LEFT_OUT] == {"skipped": ["not every row names a run"]}
