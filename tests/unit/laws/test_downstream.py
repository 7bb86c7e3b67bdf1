"""Laws from loss to error and accuracy: known ones are found again, and what the data do not tell is said."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from gemstones.errors import UserError
from gemstones.laws.curves import ACCURACY, ERROR
from gemstones.laws.downstream import MEAN, band, checkpoints, fit_downstream, pages
from gemstones.study import load

STUDY = load(
    {
        "study": "test",
        "losses": {"sources": ["released"], "validation_set": "v"},
        "bootstrap": {"resamples": 40},
        "holdout": {"params_at_most": 8e6},
    }
)
RUNS, STEPS = 10, 12


def losses():
    run, step = (index.ravel() for index in np.indices((RUNS, STEPS)))
    rows = pd.DataFrame(
        {"suite": "test", "run": [f"r{i}" for i in run], "step": 10 * (step + 1), "params": 1e6 * (run + 1)}
    )
    loss = 2.2 + 1.4 / (1 + 0.25 * run + 0.1 * step)
    return rows.assign(step=rows["step"].astype("Int64"), width=64, depth=2, validation_set="v", loss=loss)


def benchmarks(accuracies, noise=0.0):
    """Tables with one task a curve, by its name."""
    given, random = losses(), np.random.default_rng(1)
    parts = [
        given.drop(columns=["validation_set", "loss"]).assign(
            task=task, accuracy=curve(given["loss"]) + noise * random.standard_normal(len(given)), standard_error=0.01,
            random_chance=0.25, source="nobody",
        )
        for task, curve in accuracies.items()
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def bent(loss):
    return 0.25 + 0.4 * expit(-4 * (loss - 2.7))


def early(loss):
    return 0.3 + 0.05 * np.exp(-2 * (loss - 2.4))


def row_of(found, law, task):
    return found.laws[(found.laws["law"] == law.name) & (found.laws["task"] == task)].iloc[0]


def test_a_logistic_law_is_found_again():
    found = fit_downstream(losses(), benchmarks({"bent": bent}), STUDY)
    row = row_of(found, ACCURACY, "bent")
    assert row[["a", "k", "loss_0", "b"]].tolist() == pytest.approx([0.4, -4, 2.7, 0.25], rel=1e-5)
    assert (row["floor"], row["ceiling"]) == (pytest.approx(0.25), pytest.approx(0.65))
    assert row["leave_one_run_out_mean_absolute_error"] < 1e-7
    assert row["small_to_large_mean_absolute_error"] < 1e-7
    assert np.allclose(row[["a_low", "a_high"]].astype(float), 0.4, rtol=1e-5)


def test_an_exponential_error_is_found_again():
    found = fit_downstream(losses(), benchmarks({"early": early}), STUDY)
    row = row_of(found, ERROR, MEAN)
    assert row[["k", "gamma", "epsilon"]].tolist() == pytest.approx([0.05 * np.exp(4.8), 2, 0.7], rel=1e-5)
    assert row["floor"] == pytest.approx(0.3)
    assert np.isnan(row["ceiling"])


def test_data_before_the_bend_do_not_tell_where_the_curve_ends():
    row = row_of(fit_downstream(losses(), benchmarks({"early": early}), STUDY), ACCURACY, "early")
    assert row["ceiling"] == pytest.approx(1)
    assert row["r_squared"] > 0.999


def test_the_mean_is_of_checkpoints_with_all_tasks_and_its_error_falls_with_their_number():
    both = benchmarks({"bent": bent, "early": early})
    some = both[~((both["task"] == "early") & (both["step"] == 10))]
    points = checkpoints(losses(), some)
    mean = points[points["task"] == MEAN]
    assert len(mean) == RUNS * (STEPS - 1)
    assert np.allclose(mean["accuracy"], (bent(mean["loss"]) + early(mean["loss"])) / 2)
    assert np.allclose(mean["standard_error"], 0.01 / np.sqrt(2))


def test_an_error_that_is_not_known_is_left_out_of_the_means():
    both = benchmarks({"bent": bent, "early": early})
    both.loc[both["task"] == "early", "standard_error"] = np.nan
    laws = fit_downstream(losses(), both, STUDY).laws.query("law == 'accuracy'").set_index("task")
    assert np.isnan(laws.loc["early", "sampling_error"])
    assert laws.loc[MEAN, "sampling_error"] == pytest.approx(0.01 / 2)
    none = checkpoints(losses(), both.assign(standard_error=np.nan))
    assert none["standard_error"].isna().all()


def test_held_out_predictions_do_not_see_the_run():
    accuracies = benchmarks({"bent": bent}, noise=0.004)
    accuracies.loc[accuracies["run"] == "r4", "accuracy"] += 0.2
    found = fit_downstream(losses(), accuracies, STUDY)
    points = found.points[found.points["law"] == ACCURACY.name].query("task == 'bent' and run == 'r4'")
    assert np.allclose(points["held_out"], bent(points["loss"]), atol=0.01)
    assert (points["fitted"] > points["held_out"]).all()
    row = row_of(found, ACCURACY, "bent")
    assert row["leave_one_run_out_mean_absolute_error"] > row["mean_absolute_error"]


def test_intervals_come_from_whole_runs_and_repeat():
    accuracies = benchmarks({"bent": bent}, noise=0.004)
    shift = accuracies["run"].map({f"r{i}": 0.02 * (-1) ** i for i in range(RUNS)})
    # The same deviations, each run's own, and dealt out to rows at random.
    by_run = fit_downstream(losses(), accuracies.assign(accuracy=accuracies["accuracy"] + shift), STUDY)
    again = fit_downstream(losses(), accuracies.assign(accuracy=accuracies["accuracy"] + shift), STUDY)
    pd.testing.assert_frame_equal(by_run.laws, again.laws)
    shuffled = shift.sample(frac=1, random_state=0).to_numpy()
    by_row = fit_downstream(losses(), accuracies.assign(accuracy=accuracies["accuracy"] + shuffled), STUDY)
    widths = []
    for found in (by_run, by_row):
        resamples = found.resamples.query("law == 'accuracy' and task == 'bent'")
        assert len(resamples) == 40
        low, high = band(ACCURACY, resamples, [2.6], 0.95, RUNS)
        widths.append(float((high - low)[0]))
    assert widths[0] > 1.5 * widths[1]


def test_without_resamples_there_are_no_intervals():
    none = STUDY.model_copy(update={"bootstrap": STUDY.bootstrap.model_copy(update={"resamples": 0})})
    found = fit_downstream(losses(), benchmarks({"bent": bent}), none)
    assert np.isnan(row_of(found, ACCURACY, "bent")["a_low"])
    assert np.isnan(band(ACCURACY, found.resamples, [2.6, 2.7], 0.95, RUNS)).all()
    assert "a_low" not in found.to_json()["laws"][1]


def test_losses_on_two_sets_are_not_mixed():
    two = pd.concat([losses(), losses().assign(validation_set="w", loss=1.0)], ignore_index=True)
    accuracies = benchmarks({"bent": bent})
    on_one = fit_downstream(two, accuracies, STUDY)
    assert row_of(on_one, ACCURACY, "bent")["loss_0"] == pytest.approx(2.7)
    unnamed = STUDY.model_copy(update={"losses": STUDY.losses.model_copy(update={"validation_set": None})})
    with pytest.raises(UserError, match="several validation sets"):
        fit_downstream(two, accuracies, unnamed)


def test_too_few_checkpoints_and_two_sources_are_one_clear_message():
    accuracies = benchmarks({"bent": bent})
    with pytest.raises(UserError, match=r"benchmarks: 36 checkpoints of 3 runs .* wanted: at least 12 of 5 runs"):
        fit_downstream(losses(), accuracies[accuracies["run"].isin(["r0", "r1", "r2"])], STUDY)
    with pytest.raises(UserError, match=r"several sources \(nobody, others\)"):
        fit_downstream(losses(), pd.concat([accuracies, accuracies.assign(source="others")]), STUDY)


def test_the_page_has_a_table_a_law_with_its_own_parameters():
    tables = pages(fit_downstream(losses(), benchmarks({"bent": bent}), STUDY).laws)
    first, second = tables.values()
    assert list(tables) == [ERROR.equation, ACCURACY.equation]
    assert "epsilon" in first
    assert "loss_0" not in first
    assert list(second["task"]) == [MEAN, "bent"]
