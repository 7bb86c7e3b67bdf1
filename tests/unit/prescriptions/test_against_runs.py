"""Prescriptions held against the runs: right laws are usable, laws that miss the best runs are not to be planned by."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from gemstones.laws import PowerLaw, Uncertainty
from gemstones.laws.noise import RunNoise
from gemstones.prescriptions import against_runs as module
from gemstones.prescriptions import prescribe
from gemstones.prescriptions.against_runs import LOWEST, with_verdicts
from gemstones.prescriptions.run_curves import Curves, checkpoints_of
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


def against_runs(law, rows, resource, budget, *more):
    columns = (law if isinstance(law, PowerLaw) else law.law).columns
    return module.against_runs(law, Curves.of(rows, resource, columns), budget, *more)


def runs_at(rows, resource, budget):
    return Curves.of(rows, resource).at(budget)


# A shape between those of the runs, and one beside which no run has been.
NEAR, FAR = (1536, 20), (4096, 40)


def optimum(loss: float, shape: tuple[int, int] = NEAR) -> dict[str, float]:
    """What a law might prescribe."""
    return {"loss": loss, "width": shape[0], "depth": shape[1], "params": counting.params(*shape)}


def promised(law: PowerLaw, suite, budget: float) -> dict[str, float]:
    """What it does prescribe."""
    search = Search.of(law, suite)
    width, depth = search.relaxed(budget)
    found = {"width": width, "depth": depth, "params": real_params(width, depth, search.architecture)}
    return {name: float(values[0]) for name, values in {**found, "loss": search.loss(width, depth, budget)}.items()}


def missing(rows: pd.DataFrame, by: float, *shapes: str) -> pd.DataFrame:
    """Rows whose losses of some shapes lie above the law by a share."""
    return rows.assign(loss=np.where(rows["run"].isin(shapes), (1 + by) * rows["loss"], rows["loss"]))


def test_a_right_law_is_usable_and_interpolates_losses(rows, suite):
    found = against_runs(LAW, rows, "flops", 2e20, promised(LAW, suite, 2e20))
    assert found.verdict == "usable"
    assert found.off < 5e-4  # between checkpoints, log-log lines bend a little
    assert found.runs["loss"].is_monotonic_increasing
    per_token = [counting.flops_per_token(*map(int, run.split("x"))) for run in found.runs["run"]]
    assert found.runs["tokens"].to_numpy() == pytest.approx(2e20 / np.array(per_token))
    assert -0.02 < found.above_lowest < 1e-3  # the best of all shapes, so hardly above the best of some
    assert found.said().startswith(
        f"usable: the law misses the 5 lowest of {len(found.runs)} runs that have spent 2e+20 FLOPs"
    )


def test_a_law_that_promises_what_no_run_reached_is_not_to_be_planned_by(rows, suite):
    low = replace(LAW, irreducible_loss=LAW.irreducible_loss - 0.08)
    found = against_runs(low, rows, "flops", 2e20, promised(low, suite, 2e20))
    assert found.verdict == "do not plan by this"
    assert found.lowest["deviation"].max() < -0.02
    assert "% below the lowest loss of a run there, " in found.said()


def test_a_low_promise_is_wrong_only_where_runs_like_it_are_missed(rows):
    """Where the law is right of runs like the prescription, a better shape or fewer nodes may well reach less than any of them."""
    low = 0.985 * against_runs(LAW, rows, "flops", 2e20, optimum(1.0)).runs["loss"].min()
    right = against_runs(LAW, rows, "flops", 2e20, optimum(low))
    elsewhere = against_runs(LAW, rows, "flops", 2e20, optimum(low, FAR))
    wrong = against_runs(LAW, missing(rows, 0.015, "1792x18", "1280x15"), "flops", 2e20, optimum(low))
    assert [found.verdict for found in (right, elsewhere, wrong)] == ["usable", "unproven", "do not plan by this"]
    assert [len(found.alike) > 0 for found in (right, elsewhere, wrong)] == [True, False, True]
    assert "no run like the prescribed is known there" in elsewhere.said()
    assert "no run like" not in right.said()


def test_runs_like_the_prescription_are_asked_whatever_they_reached(rows):
    """A law that prescribes a bad shape must not be judged by the good ones alone."""
    wide = optimum(2.85, (768, 45))
    assert not against_runs(LAW, rows, "flops", 2e20, wide).lowest["run"].isin(["768x45"]).all()
    bad = missing(rows, 0.1, "768x45")
    found = against_runs(LAW, bad, "flops", 2e20, wide)
    assert "768x45" not in set(found.lowest["run"])
    assert found.verdict == "do not plan by this"
    assert ", and 1 more like the prescribed, by " in found.said()
    assert len(found.asked) == LOWEST + 1


def test_shapes_of_a_law_without_shapes_do_not_count(rows):
    law = PowerLaw(("params", "tokens"), (0.34, 0.28), (6.0, 6.4), 1.7)
    extreme = {**optimum(2.85), "width": 1e5, "depth": 2.0}
    assert len(against_runs(law, rows, "flops", 2e20, extreme).alike)
    assert against_runs(LAW, rows, "flops", 2e20, extreme).alike.empty


def test_log_losses_are_interpolated_in_log_flops(rows):
    """Exact for a power of tokens, whatever the checkpoints."""
    law = PowerLaw(("tokens",), (0.1,), (4.0,), 0.0)
    found = runs_at(rows.assign(loss=law.predict(rows)), "flops", 2.34e20)
    assert found["loss"].to_numpy() == pytest.approx(law.predict(found), rel=1e-12)


def test_runs_have_the_interval_of_a_run_by_the_law(rows):
    """It holds those that are off by noise, and not those that are off by far more than noise and resamples."""
    noise = RunNoise(0.002, 0.001, None, "residuals", 22, 12)
    fit = replace(fit_of(LAW), evidence={"noise": noise.to_json()})
    laws = [replace(LAW, irreducible_loss=LAW.irreducible_loss + 0.002 * i) for i in range(-2, 3)]
    known = Uncertainty(fit, resamples_of(laws))
    held = against_runs(fit, missing(rows, 0.015, "1280x36"), "flops", 2e20, optimum(2.85), known)
    runs = held.runs.set_index("run")
    assert ((runs["run_loss_low"] < runs["predicted"]) & (runs["predicted"] < runs["run_loss_high"])).all()
    assert np.log(runs["run_loss_high"] / runs["predicted"]).min() > noise.half_width(0.95)
    assert held.in_interval == len(held.asked) - 1
    assert f"({held.in_interval} of {len(held.asked)} lie in its interval for a run)" in held.said()
    unknown = against_runs(fit, rows, "flops", 2e20, optimum(2.85))
    assert unknown.in_interval is None
    assert "interval" not in unknown.said()


def test_what_is_unknown_is_null_in_json(rows):
    found = against_runs(LAW, rows, "flops", 2e20, optimum(2.85)).to_json()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["runs"][0]["run_loss_low"] is None


def test_checkpoints_that_the_fit_left_out_count(rows):
    """A selection of later checkpoints knows less of where its runs were than the table does."""
    table = rows.assign(suite="mine", phase="main", validation_set="one")
    thin = table[table["tokens"] >= 1e11]
    assert len(checkpoints_of(thin, table)) == len(table)
    other = table.assign(phase="lr_ablation")
    assert len(checkpoints_of(thin, pd.concat([table, other]))) == len(table)
    few, all_of_them = (
        against_runs(LAW, some, "flops", 2e20, optimum(2.85)).runs for some in (thin, checkpoints_of(thin, table))
    )
    assert len(few) < len(all_of_them)


def test_a_law_that_is_known_to_miss_by_size_proves_nothing(rows, suite):
    loss = against_runs(LAW, rows, "flops", 2e20, optimum(1.0)).runs["loss"].min()
    early = {"runs": 8, "params": {"correlation": 0.97, "p": 0.0005, "low": -0.02, "high": 0.02}}
    fit = replace(fit_of(LAW), evidence={"patterns": {"early": early, "warnings": []}})
    found = against_runs(fit, rows, "flops", 2e20, optimum(0.985 * loss, FAR))
    assert found.verdict == "do not plan by this"
    assert "Early losses of small or large runs lie up to 2 % off the law" in found.said()


def test_between_one_and_two_percent_it_is_rough(rows, suite):
    some = replace(LAW, irreducible_loss=LAW.irreducible_loss + 0.04)
    found = against_runs(some, rows, "flops", 2e20, promised(some, suite, 2e20))
    assert 0.01 < found.off < 0.02
    assert found.verdict == "rough"


def test_only_the_lowest_runs_count(rows):
    """A run that is no candidate for the budget may lie anywhere."""
    found = against_runs(LAW, missing(rows, 0.1, "768x12"), "flops", 2e20, optimum(2.85))
    assert (len(found.runs) > LOWEST, found.verdict) == (True, "usable")
    assert found.runs["deviation"].min() < -0.05


def test_budgets_of_gpu_hours(rows):
    by_hours, by_flops = (
        against_runs(LAW, rows, "gpu_hours", 2e3, optimum(2.85)),
        against_runs(LAW, rows, "flops", 2e20, optimum(2.85)),
    )
    pd.testing.assert_frame_equal(by_hours.runs, by_flops.runs)
    assert "2e+03 GPU-hours" in by_hours.said()


def test_where_no_run_has_been_nothing_is_claimed(rows):
    for budget, some in ((1e23, rows), (2e20, rows.drop(columns=["run"])), (2e20, rows.drop(columns=["flops"]))):
        found = against_runs(LAW, some, "flops", budget, optimum(2.85))
        assert (found.verdict, len(found.runs)) == ("no runs", 0)
        assert found.said().startswith("no run has spent")
        assert found.to_json()["promised_above_lowest"] is None


def test_a_table_of_prescriptions_says_what_the_runs_say_of_each_optimum(rows, suite):
    known = Uncertainty(fit_of(LAW), resamples_of([LAW]))
    table = with_verdicts(prescribe(fit_of(LAW), [2e20, 1e23], suite), known, rows)
    assert table.set_index(["budget", "variant"])["verdict"].dropna().to_dict() == {(2e20, "relaxed"): "usable"}
    (told,) = table[table["verdict"].notna()].to_dict("records")
    found = against_runs(LAW, rows, "flops", 2e20, told)
    assert (told["lowest_run"], told["lowest_loss"]) == tuple(found.runs[["run", "loss"]].iloc[0])
    assert told["above_lowest"] == told["loss"] / told["lowest_loss"] - 1
    assert max(-told["deviation_low"], told["deviation_high"]) == found.off
    assert (told["runs"], told["asked"], told["alike"]) == (len(found.runs), len(found.asked), len(found.alike))


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


def test_starts_and_ends_of_cooldowns_are_never_one_curve(rows):
    """Of cooldowns, the selection's own rows count: a start has not cooled down, an end has."""
    starts = rows.assign(
        suite="mine", phase="cooldown", validation_set="one", parent=rows["run"], step=np.arange(len(rows))
    )
    starts["anchor"] = starts["step"]
    ends = starts.assign(step=starts["step"] + 1, loss=0.97 * starts["loss"])
    both = pd.concat([starts, ends], ignore_index=True)
    assert len(checkpoints_of(ends, both)) == len(ends)
    found = runs_at(checkpoints_of(ends, both), "flops", 2e20)
    assert found["loss"].to_numpy() == pytest.approx(0.97 * runs_at(rows, "flops", 2e20)["loss"].to_numpy())
    assert runs_at(both, "flops", 2e20).empty


def test_checkpoints_without_a_width_or_a_loss_are_passed_over(rows):
    gaps = rows.copy()
    gaps.loc[gaps.index[::3], "width"] = np.nan
    gaps.loc[gaps.index[1::3], "loss"] = 0.0
    found = runs_at(gaps, "flops", 2e20)
    assert np.isfinite(found.drop(columns="run").to_numpy(float)).all()
    assert len(found) > 5
    whole = runs_at(rows, "flops", 2e20).set_index("run")["loss"][found["run"]]
    assert found["loss"].to_numpy() == pytest.approx(whole.to_numpy(), rel=0.02)
