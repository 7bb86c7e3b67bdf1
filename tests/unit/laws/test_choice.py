"""Which law prescribes: the simplest within a standard error of the best held-out error."""

import numpy as np
import pandas as pd
import pytest

from gemstones.laws.choice import above_best, candidates, choose, form, said
from gemstones.laws.comparison import compare_laws
from gemstones.laws.power_law import PowerLaw

ERROR = "leave_one_run_out"
PAIR, FOUR = "approach_3_all", "approach_3_all_width_depth"
WITH, FOUR_WITH = f"{PAIR}_interaction", f"{FOUR}_interaction"


def compared(**errors: tuple[float, float, float, int]) -> pd.DataFrame:
    """Rows of the comparison: error, distance to the best, its standard error, and parameters, by fit of `mini`."""
    laws = {
        PAIR: "params, tokens", WITH: "params, tokens*params", FOUR: "width, depth, params, tokens",
        FOUR_WITH: "width, depth, params, tokens*params", "elsewhere": "width, depth, tokens*depth",
    }  # fmt: skip
    return pd.DataFrame(
        {
            "selection": "all",
            "parameters_from": "fitted here",
            "law": [laws[name] for name in errors],
            "parameters": [each[3] for each in errors.values()],
            f"{ERROR}_mean_absolute_error": [each[0] for each in errors.values()],
            f"{ERROR}_above_best": [each[1] for each in errors.values()],
            f"{ERROR}_above_best_se": [each[2] for each in errors.values()],
        }
    )


def test_differences_are_paired_by_run():
    by_run = {"a": {"1": 0.01, "2": 0.10, "3": 0.05}, "b": {"1": 0.02, "2": 0.12, "3": 0.06}, "c": {}}
    found = above_best(by_run)
    assert found["a"] == (0, 0)
    # The runs differ by far more than the laws do.
    assert found["b"] == pytest.approx((0.04 / 3, np.std([0.01, 0.02, 0.01], ddof=1) / np.sqrt(3)))
    assert set(found) == {"a", "b"}
    assert above_best({}) == {}


def test_forms_are_alike_in_any_order():
    assert form(["params", "tokens*params"]) == form(["params*tokens", "params"])
    assert form(["params", "tokens"]) != form(["params", "tokens*params"])


def test_candidates_are_fitted_alike(mini):
    assert set(candidates(mini)) == {PAIR, FOUR, WITH, FOUR_WITH}
    assert candidates(mini.model_copy(update={"comparisons": ()})) == {}


def test_the_simplest_within_a_standard_error_prescribes(mini):
    near = compared(**{PAIR: (0.010, 0.005, 0.001, 5), FOUR: (0.0051, 1e-4, 2e-4, 9), FOUR_WITH: (0.005, 0, 0, 10)})
    found = choose(mini, near)
    assert (found["fit"], found["chosen_by"], found["best"]["fit"]) == (FOUR, "held-out error", FOUR_WITH)
    assert "; that is within a standard error, with 1 parameter fewer" in found["said"]
    far = compared(**{PAIR: (0.010, 0.005, 0.001, 5), FOUR: (0.0053, 3e-4, 2e-4, 9), FOUR_WITH: (0.005, 0, 0, 10)})
    assert choose(mini, far)["fit"] == FOUR_WITH
    assert choose(mini, far)["said"].endswith("the least of all forms that were compared")
    assert said(choose(mini, far), PAIR).endswith(
        "percentage points more than width, depth, params, tokens*params, the best form"
    )


def test_a_best_form_without_a_fit_leaves_the_best_that_there_is(mini):
    found = choose(
        mini, compared(**{PAIR: (0.010, 0.005, 1e-3, 5), FOUR: (0.008, 3e-3, 1e-3, 9), "elsewhere": (0.005, 0, 0, 8)})
    )
    assert (found["fit"], found["best"]["fit"]) == (FOUR, None)
    assert "more than width, depth, tokens*depth, the best form" in found["said"]


def test_the_config_may_name_another(mini):
    named = mini.model_copy(update={"prescriptions": mini.prescriptions.model_copy(update={"main": PAIR})})
    found = choose(named, compared(**{PAIR: (0.010, 0.005, 1e-3, 5), FOUR: (0.005, 0, 0, 9)}))
    assert (found["fit"], found["chosen_by"]) == (PAIR, "config")
    assert found["said"].startswith(f"{PAIR} is 1.00 % off a run that it has not seen: 0.500 ± 0.100 percentage points")


def test_without_held_out_errors_the_config_decides(mini):
    nothing = compared(**{PAIR: (np.nan, np.nan, np.nan, 5)})
    found = choose(mini, nothing)
    assert (found["fit"], found["best"]) == (mini.main_fit, None)
    assert found["said"].endswith("was not compared with other forms by held-out error")


def test_a_known_interaction_is_chosen_and_none_where_there_is_none(mini, grid):
    """Errors are independent by row, so that the form alone decides."""
    noise = np.exp(np.random.default_rng(3).normal(0, 1e-3, len(grid)))
    plain = PowerLaw(("params", "tokens"), (0.3, 0.4), (6.0, 8.0), 1.7)
    product = PowerLaw(("params", "tokens*params"), (0.3, (0.5, -0.15)), (6.0, 8.0), 1.7)
    for truth, expected in ((product, WITH), (plain, PAIR)):
        rows = grid.assign(loss=truth.predict(grid) * noise)
        table = compare_laws(rows, "all")
        pairs = table["law"].isin(["params, tokens", "params, tokens*params"]) | (table["parameters"] > 6)
        assert choose(mini, table[pairs])["fit"] == expected
