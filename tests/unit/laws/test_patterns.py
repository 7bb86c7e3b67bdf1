"""Patterns in residuals: found with their size and remedy where they were put in, and rarely where there are none."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from gemstones.laws import PowerLaw, fit_huber, with_patterns
from gemstones.laws.patterns import patterns

TRUTH = PowerLaw(
    ("width", "depth", "params", "tokens*params"), (0.18, 0.49, 0.31, (0.53, -0.21)), (1.03, -0.22, 5.3, 7.37), 1.27
)


@pytest.fixture(scope="module")
def interacting(grid) -> pd.DataFrame:
    """Losses in which size makes data worth less, with noise of runs and of rows."""
    generator = np.random.default_rng(0)
    runs = {run: generator.normal(0, 1e-3) for run in grid["run"].unique()}
    noise = grid["run"].map(runs) + generator.normal(0, 3e-4, len(grid))
    return grid.assign(loss=TRUTH.predict(grid) * np.exp(noise))


def test_a_missing_interaction_is_named_with_its_size(interacting):
    found = patterns(fit_huber(interacting, ("width", "depth", "params", "tokens")), interacting)
    told = found["early"]["params"]
    assert told["correlation"] > 0.9
    assert told["p"] < 0.01
    assert told["low"] < -0.002 < 0.002 < told["high"]
    assert found["warnings"][0].startswith("early losses of runs with the largest params lie ")
    assert f"{100 * told['high']:.2g} % above the law" in found["warnings"][0]
    assert found["warnings"][0].endswith("over 10 runs; try tokens*params")


def test_the_law_with_the_interaction_leaves_no_pattern(interacting):
    fit = fit_huber(interacting, TRUTH.covariates)
    assert patterns(fit, interacting)["warnings"] == []
    assert with_patterns(fit, interacting).warnings == fit.warnings


def test_a_law_without_shape_says_which_shapes_it_misses(grid, wide_law):
    rows = grid.assign(loss=wide_law.predict(grid))
    (told,) = [line for line in patterns(fit_huber(rows), rows)["warnings"] if line.startswith("whole runs")]
    assert told.endswith("over 10 runs; try width and depth")


def test_losses_that_fall_otherwise_along_all_runs_are_told(grid, law):
    fit = replace(fit_huber(grid.assign(loss=law.predict(grid))))
    first = grid["step"] == 2000
    rows = grid.assign(loss=law.predict(grid) * np.where(first, 1.02, 1))
    (told,) = patterns(fit, rows)["warnings"]
    assert told.startswith("early losses of all runs lie ")
    assert told.endswith("the term of tokens misses how losses fall along a run")


def test_chance_makes_few_warnings(grid, law):
    """Errors of a law of the right form that are each run's own, in the whole run and in how it starts: 1 % a test."""
    warned = 0
    for seed in range(60):
        generator = np.random.default_rng(seed)
        names = grid["run"].unique()
        whole, start = (dict(zip(names, generator.normal(0, 5e-3, len(names)), strict=True)) for _ in range(2))
        error = grid["run"].map(whole) + grid["run"].map(start) * (grid["step"] <= 4000)
        rows = grid.assign(loss=law.predict(grid) * np.exp(error))
        fit = fit_huber(rows, huber_delta=1e-2)
        warned += bool(patterns(replace(fit, law=law), rows, seed)["warnings"])
    assert warned <= 5


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda rows: rows.drop(columns=["run"]), "not every row names a run"),
        (lambda rows: rows[rows["run"].isin(rows["run"].unique()[:5])], "5 runs have enough rows"),
        (lambda rows: rows[rows["step"] <= 4000], "0 runs have enough rows"),
    ],
)
def test_what_cannot_be_tested_is_said(interacting, change, reason):
    rows = change(interacting)
    found = patterns(fit_huber(interacting), rows)
    assert reason in found["not_tested"]
    assert "early" not in found


def test_rows_without_shapes_are_tested_by_params_alone(interacting):
    rows = interacting.drop(columns=["width", "depth"])
    assert set(patterns(fit_huber(rows), rows)["early"]) == {"runs", "params"}
