"""Benchmarks that the authors released, and the laws from loss to error and accuracy."""

import numpy as np
import pandas as pd
import pytest

from gemstones.laws.downstream import fit_downstream
from gemstones.losses.benchmarks import RANDOM_CHANCE, released_benchmarks
from gemstones.losses.released import released_losses


@pytest.fixture(scope="module")
def losses(released_folder, released, tmp_path_factory):
    return released_losses(released, tmp_path_factory.mktemp("downloads"))


@pytest.fixture(scope="module")
def benchmarks(losses, tmp_path_factory):
    return released_benchmarks(losses, tmp_path_factory.mktemp("downloads"))


@pytest.fixture(scope="module")
def found(losses, benchmarks, released):
    without_intervals = released.bootstrap.model_copy(update={"resamples": 0})
    return fit_downstream(losses, benchmarks, released.model_copy(update={"bootstrap": without_intervals}))


def test_every_accuracy_of_the_authors_is_there(benchmarks, released_folder):
    assert len(benchmarks) == 22 * 35 * 9
    assert set(benchmarks["task"]) == set(RANDOM_CHANCE)
    theirs = pd.read_parquet(released_folder / "benchmarks/light_eval_df.parquet")
    errors = pd.read_parquet(released_folder / "benchmarks/light_eval_df_err.parquet")
    for name, step in (("1024x28-main", 83_475), ("256x23-step_00002385", 2385)):
        run = name.split("-")[0]
        ours = benchmarks[(benchmarks["run"] == run) & (benchmarks["step"] == step)].set_index("task")
        assert ours["accuracy"].to_dict() == theirs.loc[f"Gemstone-{name}"].to_dict()
        known = ours["standard_error"].drop("mmlu")
        assert known.to_dict() == errors.loc[f"Gemstone-{name}"].drop("mmlu").to_dict()
        assert ours["tokens"].iloc[0] == step * 2048 * 2048


def test_the_error_that_was_released_for_mmlu_is_not_that_of_the_task(benchmarks, found, released_folder):
    errors = pd.read_parquet(released_folder / "benchmarks/light_eval_df_err.parquet")
    accuracies = pd.read_parquet(released_folder / "benchmarks/light_eval_df.parquet")
    questions = (accuracies * (1 - accuracies) / errors**2).mean()
    assert questions["mmlu"] == pytest.approx(180, abs=1)
    assert questions.drop("mmlu").between(490, 1240).all()
    assert benchmarks.loc[benchmarks["task"] == "mmlu", "standard_error"].isna().all()
    assert benchmarks.loc[benchmarks["task"] != "mmlu", "standard_error"].between(0.0127, 0.0218).all()
    sampling = found.laws[found.laws["law"] == "accuracy"].set_index("task")["sampling_error"]
    assert np.isnan(sampling["mmlu"])
    assert sampling["mean"] == pytest.approx(0.00497, abs=1e-5)


def test_the_error_law_has_the_authors_constants(found):
    law = found.laws[found.laws["law"] == "error"].iloc[0]
    assert law["rows"] == 770
    assert round(law["k"], 3) == 14.927
    assert round(law["gamma"], 5) == 1.81632
    assert round(law["epsilon"], 5) == 0.67568


def test_a_law_predicts_the_mean_accuracy_of_a_model_that_it_has_not_seen_to_a_third_of_a_point(found):
    errors = found.laws.set_index(["law", "task"])["leave_one_run_out_mean_absolute_error"]
    assert errors["error", "mean"] == pytest.approx(0.0029, abs=1e-4)
    assert errors["accuracy", "mean"] == pytest.approx(0.0029, abs=1e-4)
    assert errors["accuracy"].max() == errors["accuracy", "arc:easy"] == pytest.approx(0.0128, abs=1e-4)


def test_the_logistic_laws_are_at_their_minimum(found):
    """scipy's general minimiser, from the law and from beside it, finds nothing lower with an end of at most 1."""
    from scipy.optimize import least_squares

    from gemstones.laws.curves import ACCURACY

    for task, points in found.points[found.points["law"] == "accuracy"].groupby("task"):
        law = found.laws[(found.laws["law"] == "accuracy") & (found.laws["task"] == task)].iloc[0]
        loss, value = points["loss"].to_numpy(float), points["value"].to_numpy(float)
        ours = np.sum((points["fitted"] - value) ** 2)

        def residuals(p, loss=loss, value=value):
            end, k, middle, b = p
            return ACCURACY.predict(loss, np.array([end - b, k, middle, b])) - value

        best = law[["ceiling", "k", "loss_0", "b"]].to_numpy(float)
        for start in (best * [0.99, 1.1, 0.98, 1.02], [0.8, -3, 2.5, 0.3]):
            theirs = least_squares(residuals, start, bounds=([0, -30, -3, 0], [1, 0, 5, 0.6]), x_scale=[0.1, 1, 1, 0.1])
            assert ours <= 2 * theirs.cost * (1 + 1e-6), task
