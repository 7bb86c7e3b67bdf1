import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from gemstones.prescriptions import overtraining
from gemstones.prescriptions.optimum import Search
from gemstones.prescriptions.overtraining import COLUMNS, FACTORS
from gemstones.suite.counting import flops_per_token


@pytest.fixture
def table(published, suite):
    return overtraining(published, [7.016e19, 4.924e21], suite, fit="all", max_flops=1e21)


def test_the_optimum_is_the_lowest_loss(table, published, suite):
    assert list(table.columns) == COLUMNS
    assert len(table) == 2 * len(FACTORS)
    for flops, rows in table.groupby("flops"):
        at_one = rows[rows.factor == 1].iloc[0]
        width, depth = Search.of(published, suite).relaxed(flops)
        assert at_one.loss_increase == pytest.approx(0, abs=1e-13)
        assert at_one.width == pytest.approx(width[0], rel=1e-5)
        assert at_one.depth == pytest.approx(depth[0], rel=1e-5)
        assert rows.loss_increase.min() >= -1e-13
        assert rows.loss_increase.iloc[[0, -1]].min() > 0.01
    assert table.groupby("flops").extrapolated.first().tolist() == [False, True]


def test_flops_hold_and_tokens_move_by_the_root_of_the_factor(table):
    spent = table.tokens * flops_per_token(table.width, table.depth)
    assert spent.to_numpy() == pytest.approx(table.flops.to_numpy(), rel=1e-9)
    for _, rows in table.groupby("flops"):
        best = rows[rows.factor == 1].iloc[0]
        assert (rows.tokens / best.tokens).to_numpy() == pytest.approx(np.sqrt(rows.factor).to_numpy())
        # Parameters move about as much the other way, so the factor is that on tokens per parameter.
        assert (rows.tokens_per_param / best.tokens_per_param).to_numpy() == pytest.approx(
            rows.factor.to_numpy(), rel=0.25
        )


def test_no_other_width_is_better(table, published, suite):
    search = Search.of(published, suite)
    for row in table.iloc[::7].itertuples():

        def loss(log_width, row=row):
            base, per_layer = search.affine_flops(np.exp(log_width))
            depth = (row.flops / row.tokens - base) / per_layer
            return float(search.predict(np.exp(log_width), depth, row.tokens))

        best = minimize_scalar(
            loss, bounds=(np.log(256), np.log(search.largest_width(row.flops / row.tokens))), method="bounded"
        )
        assert row.loss <= best.fun + 1e-12


def test_factors_that_leave_no_shape_are_null(published, suite):
    table = overtraining(published, [1e18], suite, factors=[1.0, 1e4])
    assert table.loss.isna().tolist() == [False, True]
    assert table.width.isna().tolist() == [False, True]
    assert overtraining(published, [], suite).empty
