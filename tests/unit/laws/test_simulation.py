"""Simulated suites, and how often intervals hold the truth."""

import zlib

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from gemstones import laws
from gemstones.laws.coverage import DEFAULT, METHODS, coverage, side_by_side
from gemstones.laws.simulation import checkpoints, errors, law_of, smooth, statistics, suite
from gemstones.prescriptions.coverage import part_of
from gemstones.study import Errors, Study, load
from tests.conftest import config_of

NONE = {"run": 0, "start": 0, "drift": 0, "drift_lag": 0, "noise": 0, "spike_share": 0, "spike": 0}
RESAMPLES = 24
TOKENS = np.arange(1, 36) * 1e10


def drawn(runs: int = 4000, **spec: float) -> np.ndarray:
    return errors(Errors.model_validate({**NONE, **spec}), TOKENS, runs, np.random.default_rng(0))


@pytest.fixture(scope="module")
def study() -> Study:
    config = config_of("simulation")
    config["simulation"] |= {"steps": 83_475, "evaluate_every": 9_275, "parts": 1}
    config["simulation"]["laws"]["params_tokens"]["errors"] = {**NONE, "run": 1e-3, "noise": 5e-4}
    shapes = ["256x23", "512x12", "768x3", "256x80", "1280x15", "1792x18", "2560x8", "1536x50"]
    config["simulation"]["scenarios"] = {
        "few": {"law": "params_tokens", "shapes": shapes, "suites": 2, "resamples": RESAMPLES}
    }
    return load(config)


@pytest.fixture(scope="module")
def whole(study: Study) -> pd.DataFrame:
    return part_of(study, "few", 0)


def test_without_errors_losses_are_the_law(study):
    truth = study.simulation.laws["width_depth"]
    rows = checkpoints(study)
    assert (rows["run"].nunique(), len(rows)) == (22, 22 * 9)
    assert rows["tokens"].max() == 83_475 * 2048 * 2048
    exact = suite(rows, truth.model_copy(update={"errors": Errors.model_validate(NONE)}), np.random.default_rng(0))
    assert exact["loss"].to_numpy() == pytest.approx(law_of(truth).predict(rows), rel=1e-14)


def test_an_offset_is_the_runs_and_has_heavy_tails():
    found = drawn(run=0.01)
    assert np.ptp(found, axis=1).max() == 0
    assert np.median(np.abs(found)) == pytest.approx(0.01 * stats.t.ppf(0.75, 3), rel=0.05)
    assert stats.kurtosis(found[:, 0]) > 5


def test_a_start_fades_and_leaves_the_middle_of_its_run():
    found = drawn(start=0.03, start_decay=0.5)
    assert np.abs(found[:, 17]).max() < 1e-15
    fading = np.arange(1, 36) ** -0.5
    assert found.std(0) == pytest.approx(0.03 * np.abs(fading - fading[17]), rel=0.05)


def test_a_walk_is_stationary():
    found = drawn(drift=0.01, drift_lag=0.9)
    assert found.std(0) == pytest.approx(np.full(35, 0.01), rel=0.05)
    assert np.corrcoef(found[:, 0], found[:, 1])[0, 1] == pytest.approx(0.9, abs=0.01)
    assert np.corrcoef(found[:, 0], found[:, 10])[0, 1] == pytest.approx(0.9**10, abs=0.05)


def test_spikes_are_rare_and_upwards():
    found = drawn(spike_share=0.01, spike=0.02)
    assert found.min() == 0
    assert np.mean(found > 0) == pytest.approx(0.01, rel=0.05)
    assert np.sqrt(np.mean(found[found > 0] ** 2)) == pytest.approx(0.02, rel=0.05)


def test_statistics_tell_the_parts_of_an_error():
    spec = {
        "run": 0.01,
        "start": 0.04,
        "drift": 0.001,
        "drift_lag": 0.9,
        "noise": 1e-3,
        "spike_share": 0.003,
        "spike": 0.03,
    }
    found = statistics(drawn(2000, **spec))
    assert found["noise"] == pytest.approx(np.sqrt(1e-3**2 + (1 - 0.9) * 1e-3**2 / 1.5), rel=0.1)
    assert found["runs_robust"] == pytest.approx(1.4826 * 0.01 * stats.t.ppf(0.75, 3), rel=0.05)
    assert found["start"] == pytest.approx(0.04 * (1 - 18**-0.5), rel=0.05)
    assert found["spikes"] == pytest.approx(0.003 * 2 * stats.norm.sf(6 * 1.2247 * found["noise"] / 0.03), rel=0.2)
    assert found["runs"] > found["runs_robust"]
    assert statistics(drawn(noise=1e-3))["lag"] == pytest.approx(-1 / 35, abs=0.01)
    assert statistics(drawn(noise=1e-3))["kurtosis"] == pytest.approx(0, abs=0.1)


def test_the_number_of_parts_changes_no_suite(study, whole):
    halves = study.model_copy(update={"simulation": study.simulation.model_copy(update={"parts": 2})})
    parts = pd.concat([part_of(halves, "few", part) for part in (1, 0)])
    key = ["suite", "method", "quantity"]
    pd.testing.assert_frame_equal(parts.sort_values(key, ignore_index=True), whole.sort_values(key, ignore_index=True))
    assert whole.groupby("quantity")["estimate"].nunique().min() == 2  # suites differ


def test_every_method_gives_every_quantity_an_interval(whole):
    assert (whole.groupby("quantity")["method"].unique().map(set) == set(METHODS)).all()
    law = whole[~whole["quantity"].str.startswith("hull")]
    optimum = ["log_optimal_params", "log_optimal_tokens", "log_optimal_tokens_per_param", "log_loss"]
    assert set(law["quantity"]) == {
        "exponent_params", "exponent_tokens", "irreducible_loss", "slope", "log_loss_ahead",
        *(f"{name}_{budget}" for name in optimum for budget in ("1e+20", "1e+21", "1e+22")),
    }  # fmt: skip
    assert (whole["low"] <= whole["high"]).all()


def test_the_default_is_what_the_package_gives(study, whole):
    generator = np.random.default_rng([study.seed, zlib.crc32(b"few"), 0])
    rows = checkpoints(study, study.simulation.scenarios["few"].shapes)
    losses = suite(rows, study.simulation.laws["params_tokens"], generator)
    bootstrap = study.bootstrap.model_copy(update={"resamples": RESAMPLES})
    fit, _ = laws.assess(laws.fit_huber(losses), losses, bootstrap, seed=int(generator.integers(2**31)))
    ours = whole[(whole["suite"] == 0) & (whole["method"] == DEFAULT)].set_index("quantity")
    intervals = fit.evidence["intervals"]["quantities"]
    assert set(intervals) == {"exponent_params", "exponent_tokens", "irreducible_loss", "slope"}
    for name, (low, high) in intervals.items():
        assert (ours.loc[name, "low"], ours.loc[name, "high"]) == (low, high)


def test_the_truth_is_the_laws(study, whole):
    law = law_of(study.simulation.laws["params_tokens"])
    truth = whole.drop_duplicates("quantity").set_index("quantity")["truth"]
    assert truth["slope"] == pytest.approx(law.slope)
    assert np.exp(truth["log_optimal_params_1e+21"]) == pytest.approx(law.allocation().params(1e21))
    rows = checkpoints(study, study.simulation.scenarios["few"].shapes)
    hull = laws.fit_hull(rows.assign(loss=law.predict(rows)))
    assert truth["hull_slope_params"] == hull.lines["params"].slope


def test_an_offset_of_shape_is_smooth_and_the_same_for_seeds_of_a_shape():
    width, depth = np.array([256.0, 256, 272, 3072]), np.array([23.0, 23, 24, 12])
    found = np.stack([smooth(width, depth, np.random.default_rng(i)) for i in range(2000)])
    assert found.std(0) == pytest.approx(np.ones(4), rel=0.06)
    correlation = np.corrcoef(found.T)[0]
    assert correlation[1] == pytest.approx(1, abs=1e-6)
    assert correlation[2] > 0.99
    assert correlation[3] == pytest.approx(np.exp(-(np.log(12) ** 2 + np.log(23 / 12) ** 2) / 2), abs=0.06)


def test_the_form_is_that_of_the_comparison(study):
    """Of a truth with an interaction the additive law is not chosen, and its intervals are about the optimum alone."""
    scenario = {"law": "interaction", "fitted": "chosen", "suites": 1, "resamples": 8}
    config = config_of("simulation")
    config["simulation"] |= {"evaluate_every": 9_275, "parts": 1}
    config["simulation"]["scenarios"] = {
        "chosen": scenario, "additive": {**scenario, "fitted": ["width", "depth", "params", "tokens"]},
    }  # fmt: skip
    wide = load(config)
    chosen, additive = (
        part_of(wide, name, 0).query("method == @DEFAULT and fitted != 'hull'") for name in ("chosen", "additive")
    )
    assert set(chosen["fitted"]) == {"width, depth, params, tokens*params"}
    assert {"exponent_params_in_tokens*params", "log_optimal_params_1e+21", "log_loss_1e+20"} <= set(chosen["quantity"])
    assert not additive["quantity"].str.startswith(("exponent", "irreducible")).any()
    optimum = additive.set_index("quantity").loc["log_optimal_params_1e+21"]
    assert optimum["truth"] == pytest.approx(chosen.set_index("quantity").loc["log_optimal_params_1e+21", "truth"])
    # The additive law's optimum is twice as large.
    assert optimum["estimate"] > optimum["truth"] + 0.4


@pytest.mark.parametrize("suites", [13, 60])
@pytest.mark.parametrize("held", [True, False])
def test_coverage_lies_within_its_binomial_interval(suites, held):
    parts = pd.DataFrame({"low": [0.0] * suites, "high": 2.0 if held else 0.5, "suite": range(suites)})
    (row,) = coverage(parts.assign(scenario="s", quantity="q", method="m", truth=1.0, estimate=1)).to_dict("records")
    assert row["coverage_low"] <= row["coverage"] == held <= row["coverage_high"]
    assert row["coverage_high"] - row["coverage_low"] > 0.05


def test_coverage_counts_intervals_that_hold_the_truth():
    ends = [(0.0, 2.0), (0.5, 0.9), (1.1, 3.0), (np.nan, np.nan), (1.0, 1.0)]
    parts = pd.DataFrame(ends, columns=["low", "high"]).assign(
        scenario="s", suite=range(5), quantity="q", method="m", truth=1.0, estimate=[1, 2, 3, 4, 5]
    )
    (row,) = coverage(parts).to_dict("records")
    assert row["coverage"] == 0.4
    wilson = stats.binomtest(2, 5).proportion_ci(method="wilson")
    assert (row["coverage_low"], row["coverage_high"]) == pytest.approx((wilson.low, wilson.high))
    assert (row["too_low"], row["too_high"], row["without_interval"]) == (0.2, 0.2, 0.2)
    assert row["median_width"] == pytest.approx((0.4 + 1.9) / 2)
    assert (row["suites"], row["median_estimate"]) == (5, 3)
    shown = side_by_side(coverage(parts))
    assert shown["s: coverage, %"].to_dict("records") == [{"quantity": "q", "m": "40 (12–77)"}]
