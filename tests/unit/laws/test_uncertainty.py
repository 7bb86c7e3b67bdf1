"""Resamples of a law's rows, their intervals, and the ranges within 1 % of the objective."""

import json

import numpy as np
import pytest
from scipy import optimize, stats
from scipy.special import huber

from gemstones.errors import UserError
from gemstones.laws import Uncertainty, assess, fit_huber, fit_hull, resample
from gemstones.laws.certificate import ranges
from gemstones.laws.uncertainty import expanded_tail
from gemstones.study import Bootstrap

TINY = Bootstrap(resamples=12)


@pytest.fixture(scope="module")
def fitted(noisy):
    return fit_huber(noisy, huber_delta=1e-3)


def test_a_resample_is_the_fit_of_the_rows_weighed_by_run(noisy, fitted):
    """Seen from outside: each resample's law is that of a fit whose rows weigh what their runs do."""
    found = resample(fitted, noisy, TINY, seed=4)
    runs = sorted(noisy["run"].unique())
    drawn = len(runs) * np.random.default_rng([4, 0]).dirichlet(np.ones(len(runs)), 12)
    assert drawn.mean() == pytest.approx(1)
    for (_, row), weights in zip(found.iterrows(), drawn, strict=True):
        weighed = noisy.assign(weight=noisy["run"].map(dict(zip(runs, weights, strict=True))))
        again = fit_huber(weighed, huber_delta=1e-3, weights="weight")
        assert row["objective"] == pytest.approx(again.objective, rel=1e-6)
        assert row["exponent_params"] == pytest.approx(again.law.exponents[0], rel=1e-3)
        assert row["log_coefficient_tokens"] == pytest.approx(again.law.log_coefficients[1], rel=1e-3)


def test_resamples_keep_the_weights_of_rows_and_the_penalty(noisy):
    rows = noisy.assign(weight=np.random.default_rng(8).uniform(0.5, 2, len(noisy)))
    options = {"huber_delta": 1e-3, "overestimate_penalty": 3.0}
    found = fit_huber(rows, weights="weight", **options)
    runs = sorted(noisy["run"].unique())
    drawn = len(runs) * np.random.default_rng([2, 0]).dirichlet(np.ones(len(runs)), 3)
    laws = resample(found, rows, Bootstrap(resamples=3), seed=2)
    for (_, law), weights in zip(laws.iterrows(), drawn, strict=True):
        product = rows["weight"] * rows["run"].map(dict(zip(runs, weights, strict=True)))
        again = fit_huber(rows.assign(product=product), weights="product", **options)
        assert law["exponent_tokens"] == pytest.approx(again.law.exponents[1], rel=1e-3)


def test_runs_no_more_than_parameters_have_a_warning(noisy):
    runs = noisy[noisy["run"].isin(sorted(noisy["run"].unique())[:5])]
    found = fit_huber(runs)
    warnings = Uncertainty(found, resample(found, runs, TINY)).warnings()
    assert "5 runs for 5 parameters: the intervals are too narrow" in warnings


def test_neither_processes_nor_more_resamples_nor_a_kill_change_a_resample(noisy, fitted, tmp_path, monkeypatch):
    monkeypatch.setattr("gemstones.laws.resampling.CHUNK", 8)
    alone = resample(fitted, noisy, Bootstrap(resamples=20), seed=1)
    assert resample(fitted, noisy, Bootstrap(resamples=20), seed=1, jobs=2).equals(alone)
    assert resample(fitted, noisy, Bootstrap(resamples=13), seed=1).equals(alone.head(13))
    assert not resample(fitted, noisy, Bootstrap(resamples=20), seed=2).equals(alone)
    # A chunk that was finished before a kill is not computed again: here one is there, with a mark.
    from gemstones.laws import resampling

    work = resampling._chunk
    monkeypatch.setattr(resampling, "_chunk", lambda *given: work(*given) if given[-1] < 2 else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        resample(fitted, noisy, Bootstrap(resamples=20), seed=1, unfinished=tmp_path / "kept")
    kept = sorted((tmp_path / "kept").glob("*-0.npy"))
    marked = np.load(kept[0])
    marked[0, 0] = 0.123
    np.save(kept[0], marked)
    monkeypatch.setattr(resampling, "_chunk", work)
    finished = resample(fitted, noisy, Bootstrap(resamples=20), seed=1, unfinished=tmp_path / "kept")
    assert finished["exponent_params"][0] == 0.123
    assert finished.iloc[1:].equals(alone.iloc[1:])
    assert not (tmp_path / "kept").exists()


def test_rows_of_a_run_are_resampled_together(noisy):
    """Runs that are each off by their own amount: intervals by row miss that, and are far too narrow."""
    off = dict(zip(noisy["run"].unique(), np.random.default_rng(5).normal(0, 0.01, 10), strict=True))
    rows = noisy.assign(loss=noisy["loss"] * np.exp(noisy["run"].map(off)))
    found = fit_huber(rows, huber_delta=1e-3)
    width = {}
    for unit in ("run", "row"):
        interval = Uncertainty(found, resample(found, rows, Bootstrap(resamples=60, unit=unit))).to_json()
        assert interval["unit"] == unit
        low, high = interval["quantities"]["exponent_params"]
        width[unit] = high - low
    assert width["run"] > 1.5 * width["row"]


def test_rows_without_runs_are_resampled_one_by_one(noisy):
    found = fit_huber(noisy.drop(columns="run"))
    assert set(resample(found, noisy.drop(columns="run"), TINY)["unit"]) == {"row"}


def test_cooldowns_are_resampled_with_the_run_they_branch_from(noisy):
    """Each row as a cooldown of its own: what is resampled is the parent."""
    cooldowns = noisy.assign(phase="cooldown", parent=noisy["run"], run=noisy["run"] + "-" + noisy["step"].astype(str))
    found = fit_huber(cooldowns)
    assert found.n_runs == 10
    assert Uncertainty(found, resample(found, cooldowns, TINY)).units == 10


def test_few_runs_are_told(noisy):
    two = noisy[noisy["run"].isin(["256x23", "1536x50"])]
    found = fit_huber(two)
    assert any("params has 2 values only" in warning for warning in found.warnings)
    one = noisy[noisy["run"] == "256x23"]
    with pytest.raises(UserError, match="column 'params' is"):
        fit_huber(one)
    lonely = fit_huber(one, ("tokens",))
    assert any("one run" in warning for warning in lonely.warnings)
    assert resample(lonely, one, TINY).empty


def test_hulls_are_drawn_by_run(noisy):
    found = fit_hull(noisy)
    by_run = resample(found, noisy, Bootstrap(resamples=40), seed=3)
    runs = sorted(noisy["run"].unique())
    counts = np.random.default_rng([3, 0]).multinomial(10, np.full(10, 0.1), 500)
    expected = []
    for times in counts[:3]:
        drawn = noisy[noisy["run"].isin([run for run, time in zip(runs, times, strict=True) if time])]
        expected.append(fit_hull(drawn).lines["params"].slope)
    assert by_run["slope_params"][:3].to_numpy() == pytest.approx(expected, rel=1e-9)
    low, high = Uncertainty(found, by_run).to_json()["quantities"]["slope_params"]
    assert low <= found.lines["params"].slope <= high


def test_few_units_widen_the_interval():
    assert expanded_tail(0.95, 10**6, 5) == pytest.approx(0.025, rel=1e-3)
    # A quarter of the units is left for the errors: twice as wide.
    assert expanded_tail(0.95, 20, 15) == pytest.approx(stats.norm.cdf(2 * stats.norm.ppf(0.025)))
    assert 0 < expanded_tail(0.95, 5, 9) < expanded_tail(0.95, 10, 5) < expanded_tail(0.95, 20, 5)


def test_assessed_fits_come_back_from_json(noisy, fitted):
    found, resamples = assess(fitted, noisy, TINY)
    assert len(resamples) == 12
    again = type(found).from_json(json.loads(json.dumps(found.to_json())))
    assert again == found
    assert again.evidence["intervals"]["resamples"] == 12
    without = assess(fitted, noisy, Bootstrap(resamples=0))[0]
    assert "intervals" not in without.evidence


def test_ranges_end_where_the_objective_exceeds_its_minimum_by_one_percent(noisy, fitted):
    """Against a general-purpose minimiser over the other parameters."""
    found = ranges(fitted, noisy)
    log_x = np.log(noisy[["params", "tokens"]].to_numpy())
    centre, log_loss = log_x.mean(0), np.log(noisy["loss"].to_numpy())

    def lowest(alpha: float) -> float:
        def objective(free):
            exponents = np.array([alpha, free[0]])
            predicted = free[3] + np.exp(free[1:3] - exponents * (log_x - centre)).sum(1)
            return huber(1e-3, log_loss - np.log(np.maximum(predicted, 1e-9))).sum()

        law = fitted.law
        log_coefficients = np.array(law.log_coefficients) - np.array(law.exponents) * centre
        start = np.array([law.exponents[1], *log_coefficients, law.irreducible_loss])
        options = {"maxiter": 20_000, "maxfev": 20_000, "xatol": 1e-9, "fatol": 1e-12}
        for _ in range(3):
            start = optimize.minimize(objective, start, method="Nelder-Mead", options=options).x
        return objective(start)

    for end in found["exponent_params"]:
        assert lowest(end) / fitted.objective - 1 == pytest.approx(0.01, rel=0.06)
    low, high = found["irreducible_loss"]
    assert low < fitted.law.irreducible_loss < high


def test_says_what_the_rows_leave_open(grid):
    """A law whose constant is not in the rows: E may as well be 0."""
    from gemstones.laws import PowerLaw

    law = PowerLaw(("params", "tokens"), (0.1, 0.12), (2.0, 2.0), 0.3)
    generator = np.random.default_rng(0)
    rows = grid.assign(loss=law.predict(grid) * np.exp(generator.normal(0, 0.01, len(grid))))
    found = assess(fit_huber(rows), rows, Bootstrap(resamples=0))[0]
    assert found.evidence["ranges"]["irreducible_loss"][0] == 0
    assert any("irreducible loss is" in warning for warning in found.warnings)
