"""Prescriptions held against the runs: right laws are usable, laws that miss the best runs are not to be planned by."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from gemstones.laws import PowerLaw, Uncertainty
from gemstones.prescriptions import prescribe
from gemstones.prescriptions.against_runs import LOWEST, against_runs, checkpoints_of, table
from gemstones.prescriptions.search import Search, real_params
from gemstones.suite import counting
from tests.unit.prescriptions.test_bands import fit_of, resamples_of

LAW = PowerLaw(
    ("width", "depth", "params", "tokens*params"), (0.18, 0.49, 0.31, (0.53, -0.21)), (1.03, -0.22, 5.3, 7.37), 1.27
)
SHAPES = [(512, 12), (768, 12), (768, 45), (1024, 28), (1280, 15), (1280, 36), (1792, 18), (2048, 27)]


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    """Runs of eight shapes with 25 checkpoints each, whose losses are the law's, and GPU-hours."""
    parts = []
    for width, depth in SHAPES:
        tokens = np.arange(1, 26) * 1e10
        params = float(counting.params(width, depth))
        part = pd.DataFrame({"width": float(width), "depth": float(depth), "params": params, "tokens": tokens})
        flops = counting.flops_per_token(width, depth) * tokens
        parts.append(part.assign(run=f"{width}x{depth}", flops=flops, gpu_hours=flops / 1e17))
    found = pd.concat(parts, ignore_index=True)
    return found.assign(loss=LAW.predict(found))


def promised(law: PowerLaw, suite, budget: float) -> tuple[float, float]:
    """Loss and parameters."""
    search = Search.of(law, suite)
    width, depth = search.relaxed(budget)
    return float(search.loss(width, depth, budget)[0]), float(real_params(width, depth, search.architecture)[0])


def test_a_right_law_is_usable_and_interpolates_losses(rows, suite):
    found = against_runs(LAW, rows, "flops", 2e20, *promised(LAW, suite, 2e20))
    assert found.verdict == "usable"
    assert found.off < 5e-4  # between checkpoints, log-log lines bend a little
    assert found.runs["loss"].is_monotonic_increasing
    per_token = [counting.flops_per_token(*map(int, run.split("x"))) for run in found.runs["run"]]
    assert found.runs["tokens"].to_numpy() == pytest.approx(2e20 / np.array(per_token))
    assert -0.02 < found.above_lowest < 1e-3  # the best of all shapes, so hardly above the best of some
    assert found.said().startswith(
        f"usable: of the {len(found.runs)} runs that have spent 2e+20 FLOPs, the law misses the 5"
    )


def test_a_law_that_promises_what_no_run_reached_is_not_to_be_planned_by(rows, suite):
    low = replace(LAW, irreducible_loss=LAW.irreducible_loss - 0.08)
    found = against_runs(low, rows, "flops", 2e20, *promised(low, suite, 2e20))
    assert found.verdict == "do not plan by this"
    assert found.lowest["deviation"].max() < -0.02
    assert "% below the lowest that any reached" in found.said()


def test_a_low_promise_is_wrong_only_where_runs_of_that_size_have_been(rows, suite):
    """The law is right, and so is its promise for a size that no run has."""
    loss = against_runs(LAW, rows, "flops", 2e20, 1.0, 8e8).runs["loss"].min()
    wrong, unproven = (against_runs(LAW, rows, "flops", 2e20, 0.985 * loss, params) for params in (8e8, 8e9))
    assert (wrong.verdict, unproven.verdict) == ("do not plan by this", "unproven")
    assert "no run of that size is known there" in unproven.said()
    assert "no run of that size" not in wrong.said()


def test_checkpoints_that_the_fit_left_out_count(rows):
    """A selection of later checkpoints knows less of where its runs were than the table does."""
    table = rows.assign(suite="mine", phase="main", validation_set="one")
    thin = table[table["tokens"] >= 1e11]
    assert len(checkpoints_of(thin, table)) == len(table)
    other = table.assign(phase="lr_ablation")
    assert len(checkpoints_of(thin, pd.concat([table, other]))) == len(table)
    few, all_of_them = (
        against_runs(LAW, some, "flops", 2e20, 2.9, 8e8).runs for some in (thin, checkpoints_of(thin, table))
    )
    assert len(few) < len(all_of_them)


def test_a_law_that_is_known_to_miss_by_size_proves_nothing(rows, suite):
    loss = against_runs(LAW, rows, "flops", 2e20, 1.0, 8e8).runs["loss"].min()
    early = {"runs": 8, "params": {"correlation": 0.97, "p": 0.0005, "low": -0.02, "high": 0.02}}
    fit = replace(fit_of(LAW), evidence={"patterns": {"early": early, "warnings": []}})
    assert against_runs(fit, rows, "flops", 2e20, 0.985 * loss, 8e9).verdict == "do not plan by this"


def test_between_one_and_two_percent_it_is_rough(rows):
    some = replace(LAW, irreducible_loss=LAW.irreducible_loss + 0.04)
    found = against_runs(some, rows, "flops", 2e20, 3.0, 8e8)
    assert 0.01 < found.off < 0.02
    assert found.verdict == "rough"


def test_only_the_lowest_runs_count(rows):
    """A run that is no candidate for the budget may lie anywhere."""
    off = rows.assign(loss=np.where(rows["run"] == "768x12", 1.1 * rows["loss"], rows["loss"]))
    found = against_runs(LAW, off, "flops", 2e20, 2.9, 8e8)
    assert (len(found.runs) > LOWEST, found.verdict) == (True, "usable")
    assert found.runs["deviation"].min() < -0.05


def test_budgets_of_gpu_hours(rows):
    by_hours, by_flops = (
        against_runs(LAW, rows, "gpu_hours", 2e3, 2.9, 8e8),
        against_runs(LAW, rows, "flops", 2e20, 2.9, 8e8),
    )
    pd.testing.assert_frame_equal(by_hours.runs, by_flops.runs)
    assert "2e+03 GPU-hours" in by_hours.said()


def test_where_no_run_has_been_nothing_is_claimed(rows):
    for budget, some in ((1e23, rows), (2e20, rows.drop(columns=["run"])), (2e20, rows.drop(columns=["flops"]))):
        found = against_runs(LAW, some, "flops", budget, 2.9, 8e8)
        assert (found.verdict, len(found.runs)) == ("no runs", 0)
        assert found.said().startswith("no run has spent")
        assert found.to_json()["promised_above_lowest"] is None
    assert table([against_runs(LAW, rows, "flops", 1e23, 2.9, 8e8)]).empty
    assert list(table([against_runs(LAW, rows, "flops", 2e20, 2.9, 8e8)])["verdict"]) == ["usable"]


def test_the_interval_of_a_run_holds_that_of_the_law(suite):
    """Noise of runs widens the interval of the loss, and nothing else."""
    fit = fit_of(LAW)
    laws = [replace(LAW, irreducible_loss=1.27 + 0.01 * i) for i in range(-2, 3)]
    uncertainty = Uncertainty(fit, resamples_of(laws))
    noisy = replace(
        fit,
        evidence={
            "noise": {
                "run": 0.003,
                "within": 0.0005,
                "seeds": None,
                "source": "residuals",
                "runs": 22,
                "degrees_of_freedom": 12,
            }
        },
    )
    row = prescribe(noisy, [1e20], suite, uncertainty=uncertainty).iloc[0]
    assert row["run_loss_low"] < row["loss_low"] < row["loss"] < row["loss_high"] < row["run_loss_high"]
    assert np.log(row["run_loss_high"] / row["loss"]) > 2 * 0.003
    assert np.isnan(prescribe(fit, [1e20], suite, uncertainty=uncertainty).iloc[0]["run_loss_low"])
