"""One budget's answer: what it says of rounding, and budgets that are found from tokens or parameters."""

import pytest

from gemstones.errors import UserError
from gemstones.laws import PowerLaw
from gemstones.prescriptions.answer import answer, budget_for
from gemstones.prescriptions.search import Search
from tests.unit.prescriptions.test_bands import fit_of

STEP = 4_194_304


def test_the_extra_budget_brings_a_shape_to_the_loss_of_the_optimum(published, suite):
    found = answer(fit_of(published), suite, "flops", 1e21, STEP)
    search, relaxed = Search.of(published, suite), found["relaxed"]
    assert (found["feasible"]["width"], found["feasible"]["depth"]) == (2560, 45)
    assert [shape["width"] for shape in found["nearest"]] == [1792, 2048, 2304, 2560, 2816, 3072]
    for shape in found["nearest"]:
        at = (shape["width"], shape["depth"])
        assert shape["loss"] == pytest.approx(float(search.loss(*at, 1e21)))
        assert shape["loss_above_relaxed"] == pytest.approx(shape["loss"] - relaxed["loss"])
        again = float(search.loss(*at, 1e21 * (1 + shape["extra_budget"])))
        assert again == pytest.approx(relaxed["loss"], rel=1e-12)
        for deeper in (-1, 1):
            assert float(search.loss(at[0], at[1] + deeper, 1e21)) > shape["loss"]


def test_steps_are_whole_and_unknown_numbers_are_none(published, suite):
    found = answer(fit_of(published), suite, "flops", 1e20, STEP)
    assert found["feasible"]["steps"] - 1 < found["feasible"]["tokens"] / STEP <= found["feasible"]["steps"]
    assert found["extrapolated"] is found["speed"] is found["relaxed"]["gpu_hours"] is None
    assert set(found["relaxed"]["intervals"].values()) == {None}


def test_shapes_that_never_reach_the_optimum_say_so(suite):
    """This law falls so steeply with width that tokens cannot make up for it."""
    law = PowerLaw(("width", "depth", "tokens"), (3.0, 0.5, 2.0), (18.0, 1.0, 30.0), 1.0)
    found = answer(fit_of(law), suite, "flops", 1e18, STEP)
    search, narrow = Search.of(law, suite), found["nearest"][0]
    assert [shape["extra_budget"] is None for shape in found["nearest"]] == [True, True, False, False, False, False]
    assert search.predict(narrow["width"], narrow["depth"], 1e30) > found["relaxed"]["loss"]


@pytest.mark.parametrize(("quantity", "value"), [("tokens", 2e10), ("params", 1e9), ("params", 1e12)])
def test_budgets_are_found_from_what_their_optimum_has(published, suite, quantity, value):
    budget = budget_for(Search.of(published, suite), quantity, value)
    assert answer(fit_of(published), suite, "flops", budget, STEP)["relaxed"][quantity] == pytest.approx(
        value, rel=1e-5
    )


@pytest.mark.parametrize(("quantity", "value"), [("tokens", 0.5), ("params", 1e6), ("tokens", 1e30)])
def test_what_no_budget_has_is_an_error_with_what_there_is(published, suite, quantity, value):
    with pytest.raises(
        UserError,
        match=r"no budget has an optimum of .*: by this law it has .* FLOPs, the least that trains anything, and .* at 1e.30",
    ):
        budget_for(Search.of(published, suite), quantity, value)
