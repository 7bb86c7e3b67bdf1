"""Rows that determine no law, or only a part of one: an error or a warning, and never a silent wrong number."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest

from gemstones.errors import UserError
from gemstones.laws import PowerLaw, assess, fit_huber, fit_hull, read
from gemstones.study import Bootstrap

FEW = Bootstrap(resamples=20)
BY_ROW = Bootstrap(resamples=20, unit="row")

# Nothing that numpy has to say about numbers may reach the user.
pytestmark = pytest.mark.filterwarnings("error")


def put(table, column, value, row=3):
    changed = table.astype({column: object})
    changed.loc[row, column] = value
    return changed


def runs_of(table, number):
    return table[table["run"].isin(table["run"].unique()[:number])]


def wide(table, factor, noise=0.0):
    """Losses of a known law over params that span a factor."""
    generator = np.random.default_rng(2)
    params = generator.permutation(np.geomspace(1, factor, len(table)))
    law = PowerLaw(("params", "tokens"), (0.3, 0.28), (1.1, 6.0), 1.7)
    rows = table.assign(params=params)
    return rows.assign(loss=law.predict(rows) * np.exp(generator.normal(0, noise, len(rows)))), law


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.head(0), "0 rows for a law with 5 parameters; wanted: at least 5 rows"),
        (lambda t: t.head(4), "4 rows for a law with 5 parameters; wanted: at least 5 rows"),
        (lambda t: pd.concat([t.iloc[::31]] * 9), "36 rows at 4 different points for a law with 5 parameters"),
        (lambda t: t.assign(params=7.0), "column 'params' is 7 in every row"),
        (lambda t: t.assign(params=1e9 + np.arange(len(t)) % 3), r"column 'params' is 1e\+09 in every row"),
        (lambda t: t.assign(loss=2.0), "column 'loss' is 2 in every row"),
        (lambda t: t.assign(loss=2 + 1e-12 * np.arange(len(t))), "column 'loss' is 2 in every row"),
        (lambda t: put(t, "loss", 0), r"row 3 \(run 256x23, step 8000\): column 'loss' is 0; wanted: a finite number"),
        (lambda t: put(t, "tokens", -1), r"row 3 .*: column 'tokens' is -1; wanted: a finite number greater than 0"),
        (lambda t: put(t, "loss", np.nan), r"row 3 .*: column 'loss' is empty"),
        (lambda t: put(t, "loss", None), r"row 3 .*: column 'loss' is empty"),
        (lambda t: put(t, "params", np.inf), r"row 3 .*: column 'params' is inf"),
        (lambda t: put(t, "loss", "n/a"), r"row 3 .*: column 'loss' is 'n/a'; wanted: a number"),
        (lambda t: put(t, "loss", 1e300), r"column 'loss' has 1e\+300; wanted: 0.0001 to 1e\+09 nats"),
        (lambda t: t.assign(loss=t["loss"] * 1e-9), "wanted: 0.0001 to"),
        (lambda t: wide(t, 1e40)[0], r"column 'params' goes from 1 to 1e\+40; wanted: a factor of 1e\+30 at most"),
        (lambda t: t.assign(params=pd.date_range("2020", periods=len(t))), "'params' holds datetime64.*numbers"),
        (lambda t: t.assign(params=True), "column 'params' holds bool; wanted: numbers"),
        (lambda t: pd.concat([t, t[["loss"]]], axis=1), "two columns are named 'loss'"),
        (lambda t: t.drop(columns="loss"), "no column 'loss'; it has run, step"),
        (lambda t: t.assign(w=0.0), r"row 0 .*: column 'w' is 0; wanted: a finite number greater than 0"),
    ],
)
def test_rows_that_determine_no_law_are_an_error_of_one_line(noisy, change, message):
    rows = change(noisy)
    with pytest.raises(UserError, match=message) as error:
        fit_huber(rows, weights="w" if "w" in rows else None)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("delta", [1e-4, np.inf])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.iloc[[0, 30, 60, 90, 115]], "5 different points for as many parameters"),
        (lambda t: runs_of(t, 2), "params has 2 values only: its exponent is not identified"),
        (lambda t: t.assign(tokens=20 * t["params"]), "tokens is a power of params: which exponent is whose"),
        (lambda t: t.assign(tokens=t["params"] ** 2), "tokens is a power of params: which exponent is whose"),
        (lambda t: pd.concat([t, t.head(7)], ignore_index=True), "7 of 127 rows repeat others to the last digit"),
        (lambda t: put(t, "loss", 1e6), r"most of all row 3 \(run 256x23, step 8000\): 1e\+06"),
        (lambda t: t.assign(loss=1 + t["tokens"] ** 0.1), "the exponent of tokens is at its bound 0"),
        (
            lambda t: t.assign(loss=np.random.default_rng(0).uniform(1, 10, len(t))),
            "losses are off the law by more than a factor of 2",
        ),
        (
            lambda t: t.assign(w=np.exp(np.random.default_rng(0).normal(0, 20, len(t)))),
            r"the weights leave 1\.\d of 120 rows: too few for 5 parameters",
        ),
    ],
)
def test_rows_that_leave_a_part_open_are_warned_of(noisy, change, message, delta):
    rows = change(noisy)
    found = fit_huber(rows, huber_delta=delta, weights="w" if "w" in rows else None)
    assert pd.Series(found.warnings).str.contains(message).any(), found.warnings


def test_fits_of_sound_rows_have_no_warnings(noisy):
    assert fit_huber(noisy).warnings == ()


@pytest.mark.parametrize("factor", [1e9, 1e30])
def test_any_range_of_a_covariate_is_fitted_right(grid, factor):
    rows, law = wide(grid, factor)
    found = fit_huber(rows)
    assert found.law.exponents == pytest.approx(law.exponents, rel=1e-6)
    rows, law = wide(grid, factor, noise=3e-3)
    found, _ = assess(fit_huber(rows), rows, BY_ROW)
    assert (found.converged, found.warnings) == (True, ())
    low, high = found.evidence["intervals"]["quantities"]["exponent_params"]
    assert low < 0.3 < high


def test_one_loss_of_a_million_does_not_move_a_robust_fit(noisy):
    sound, hit = fit_huber(noisy), fit_huber(put(noisy, "loss", 1e6))
    assert hit.law.predict(noisy) == pytest.approx(sound.law.predict(noisy), rel=2e-3)


def test_repeated_rows_do_not_move_the_law(noisy):
    assert fit_huber(pd.concat([noisy] * 3)).law.exponents == pytest.approx(fit_huber(noisy).law.exponents, rel=1e-6)


@pytest.mark.parametrize("unit", [1e-300, 1e-9, 1.0, 1e9, 1e300])
def test_only_ratios_of_weights_matter(noisy, unit):
    plain, weighted = fit_huber(noisy), fit_huber(noisy.assign(w=unit), weights="w")
    assert weighted.law.exponents == pytest.approx(plain.law.exponents, rel=1e-6)
    assert weighted.objective == pytest.approx(plain.objective, rel=1e-9)
    assert weighted.converged


@pytest.mark.parametrize("scale", [1e-4, 1e-2, 1e6])
def test_losses_may_be_in_other_units(noisy, scale):
    found = fit_huber(noisy.assign(loss=noisy["loss"] * scale))
    assert found.law.exponents == pytest.approx(fit_huber(noisy).law.exponents, rel=1e-5)
    assert found.converged


def test_a_delta_beyond_all_residuals_is_not_converged_for_free(noisy):
    """The gradient is measured by how hard rows pull, which is not delta there."""
    beyond, squares = (fit_huber(noisy, huber_delta=delta) for delta in (1e6, np.inf))
    assert 0 < beyond.gradient_norm == pytest.approx(squares.gradient_norm, rel=1e-6)
    tiny = fit_huber(noisy, huber_delta=1e-12)
    assert tiny.converged or any("not converged" in warning for warning in tiny.warnings)


@pytest.mark.parametrize("flops", [0.0, "unknown", None])
def test_flops_that_say_nothing_are_unknown(noisy, flops):
    assert fit_huber(noisy.assign(flops=flops)).max_flops is None


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_few_runs_have_no_intervals_by_run(noisy, number):
    rows = runs_of(noisy, number)
    found, resamples = assess(fit_huber(rows, ("tokens",), huber_delta=0.1), rows, FEW)
    intervals = found.evidence["intervals"]
    assert resamples.empty
    assert set(intervals["quantities"].values()) == {None}
    assert intervals["warnings"] == [f"no intervals: too few runs ({number}) to resample"]
    by_row, _ = assess(fit_huber(rows, ("tokens",), huber_delta=0.1), rows, BY_ROW)
    assert any("too narrow, since rows of a run are not" in text for text in by_row.evidence["intervals"]["warnings"])
    assert ("all rows are of one run: nothing says how runs differ" in found.warnings) == (number == 1)


def test_few_runs_have_no_intervals_of_hulls_either(noisy):
    rows = runs_of(noisy, 4)
    found, _ = assess(fit_hull(rows), rows, FEW)
    assert found.evidence["intervals"]["quantities"]["slope_params"] is None
    assert found.evidence["intervals"]["warnings"] == ["no intervals: too few runs (4) to resample"]


def test_rows_that_name_no_run_are_resampled_one_by_one_and_say_so(noisy):
    rows = noisy.assign(run=noisy["run"].where(noisy.index > 0))
    found, _ = assess(fit_huber(rows), rows, FEW)
    assert (found.n_runs, found.evidence["intervals"]["unit"]) == (None, "row")
    assert any("rows name no run" in text for text in found.evidence["intervals"]["warnings"])


def test_rows_too_few_to_resample_have_no_intervals(noisy):
    rows = noisy.drop(columns="run").iloc[[0, 30, 60, 90, 115]]
    found, resamples = assess(fit_huber(rows, huber_delta=np.inf), rows, BY_ROW)
    assert resamples.empty
    assert found.evidence["intervals"]["warnings"] == ["no intervals: too few rows (5) to resample"]


def test_intervals_that_are_rough_say_so(noisy):
    found, _ = assess(fit_huber(noisy), noisy, FEW)
    assert any("20 resamples are too few for the ends" in text for text in found.evidence["intervals"]["warnings"])
    few_corners = noisy[noisy["run"].isin(list(noisy["run"].unique())[:5])].groupby("run").tail(1)
    hull, _ = assess(fit_hull(few_corners), few_corners, FEW)
    assert any("resamples have too few points on their hull" in text for text in hull.evidence["intervals"]["warnings"])
    assert set(hull.evidence["intervals"]["quantities"].values()) == {None}


def test_numbers_stay_quiet_where_nothing_fits(noisy):
    """Collinear, random and rising losses, through intervals and ranges."""
    generator = np.random.default_rng(0)
    for rows in (
        noisy.assign(tokens=20 * noisy["params"]),
        noisy.assign(loss=generator.uniform(1, 10, len(noisy))),
        noisy.assign(loss=1 + noisy["tokens"] ** 0.1),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found, _ = assess(fit_huber(rows, huber_delta=np.inf), rows, FEW)
        assert found.warnings


def test_what_a_law_does_not_need_may_be_anything(noisy):
    """Held-out tests look at params and tokens of any law, and JSON knows no not-a-number."""
    for tokens in ("unknown", None, -1.0):
        rows = noisy.assign(tokens=tokens)
        found, _ = assess(fit_huber(rows, ("width", "depth"), huber_delta=0.1), rows, Bootstrap(resamples=0))
        json.dumps(found.to_json(), allow_nan=False)
    # Here no run ends beyond the sizes that the test from small to large is fitted to.
    rows = noisy.assign(params=noisy["params"].where(noisy["step"] != 12_000, 1e12))
    found, _ = assess(fit_huber(rows, huber_delta=0.1), rows, Bootstrap(resamples=0))
    assert "final_mean_absolute_error" not in found.evidence["held_out"]["small_to_large"]
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("irreducible_loss", None, r"fit\.json: holds no fit: irreducible_loss: .*valid number"),
        ("irreducible_loss", float("nan"), "irreducible_loss: .*finite"),
        ("log_coefficients", ["1", 2.0], "log_coefficients.0: .*number"),
        ("exponents", [0.3, [0.5, True]], "exponents.1.*valid number"),
        ("exponents", [0.3, 0.5], r"1 exponents for tokens\*params; wanted: 2"),
        ("param_count", "all", "param_count: unknown value 'all'; choose one of 'params'"),
        ("max_flops", float("nan"), "max_flops: .*greater than 0"),
        ("fitted_ranges", {"params": [1.0]}, "fitted_ranges.params.1: this key is required"),
        ("patterns", None, "patterns: .*valid dictionary"),
        ("noise", {"run": -1.0}, "noise.run: .*greater than or equal to 0"),
        ("intervals", {"level": "high"}, "intervals.level: .*valid number"),
        ("warnings", "one", "warnings: .*valid list"),
    ],
)
def test_a_damaged_fit_is_refused_by_its_key(noisy, tmp_path, key, value, message):
    found = fit_huber(noisy, ("params", "tokens*params")).to_json()
    assert read_back({**found, "converged": True}, tmp_path)
    with pytest.raises(UserError, match=message):
        read_back({**found, key: value}, tmp_path)


def read_back(data, folder):
    (folder / "fit.json").write_text(json.dumps(data))
    return read(folder / "fit.json")
