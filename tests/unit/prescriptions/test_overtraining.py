from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize_scalar

from gemstones.cluster.throughput import SpeedModel
from gemstones.laws import HuberFit, PowerLaw, Uncertainty
from gemstones.laws.uncertainty import expanded_tail
from gemstones.prescriptions import overtraining
from gemstones.prescriptions.overtraining import COLUMNS, FACTORS
from gemstones.prescriptions.search import Search
from gemstones.prescriptions.speeds import Speeds
from gemstones.suite.counting import Architecture, flops_per_token


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
            base, per_layer = search.affine_cost(np.exp(log_width))
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
    assert overtraining(published, [], suite).loss_low.empty


def uncertainty_of(law: PowerLaw, laws: list[PowerLaw]) -> Uncertainty:
    numbers = dict.fromkeys(("objective", "gradient_norm", "lowest_curvature", "share_of_starts_at_optimum"), 0.0)
    fit = HuberFit(law, 1e-4, n_rows=770, n_runs=22, converged=True, starts=8, **numbers)
    rows = []
    for each in laws:
        row = {"unit": "run", "irreducible_loss": each.irreducible_loss}
        for role, exponent, log_coefficient in zip(each.covariates, each.exponents, each.log_coefficients, strict=True):
            row |= {f"exponent_{role}": exponent, f"log_coefficient_{role}": log_coefficient}
        rows.append(row)
    return Uncertainty(fit, pd.DataFrame(rows))


def other_laws(law: PowerLaw, count: int) -> list[PowerLaw]:
    generator = np.random.default_rng(0)
    return [
        PowerLaw(
            law.covariates,
            tuple(np.array(law.exponents) * generator.uniform(0.95, 1.05, len(law.exponents))),
            tuple(np.array(law.log_coefficients) + generator.uniform(-0.05, 0.05, len(law.exponents))),
            law.irreducible_loss + generator.uniform(-0.1, 0.1),
        )
        for _ in range(count)
    ]


def test_intervals_are_of_every_law_with_its_own_best_shape_for_the_fits_tokens(published, suite):
    laws = other_laws(published, 9)
    table = overtraining(published, [1e21], suite, factors=[1 / 8, 1, 8], uncertainty=uncertainty_of(published, laws))
    losses, increases = [], []
    for law in laws:
        search = Search.of(law, suite)
        width, depth = search.relaxed(1e21)
        best = float(search.loss(width, depth, 1e21)[0])
        # Of many widths, each with the depth that spends the budget on the given tokens.
        widths = np.geomspace(256, 60_000, 40_000)
        base, per_layer = search.affine_cost(widths)
        depths = (1e21 / table.tokens.to_numpy()[:, None] - base) / per_layer
        possible = depths >= 2
        loss = search.predict(widths, np.where(possible, depths, 2), table.tokens.to_numpy()[:, None])
        losses.append(np.where(possible, loss, np.inf).min(1))
        increases.append(losses[-1] - best)
    tail = expanded_tail(0.95, 22, 9)
    for name, values in (("loss", losses), ("loss_increase", increases)):
        low, high = np.quantile(values, [tail, 1 - tail], axis=0)
        assert table[f"{name}_low"].to_numpy() == pytest.approx(low, abs=2e-7)
        assert table[f"{name}_high"].to_numpy() == pytest.approx(high, abs=2e-7)


def test_what_all_losses_of_a_law_share_is_not_in_the_interval_of_the_increase(published, suite):
    laws = [replace(published, irreducible_loss=published.irreducible_loss + shift) for shift in (-0.1, 0, 0.1)]
    table = overtraining(published, [1e21], suite, uncertainty=uncertainty_of(published, laws))
    assert (table.loss_high - table.loss_low).min() > 0.15
    for end in ("low", "high"):
        assert table[f"loss_increase_{end}"].to_numpy() == pytest.approx(table.loss_increase.to_numpy(), abs=1e-6)


def test_many_resamples_are_worked_on_in_parts(published, suite, monkeypatch):
    from gemstones.prescriptions import bands

    uncertainty = uncertainty_of(published, other_laws(published, 7))
    whole = overtraining(published, [1e20, 1e22], suite, factors=[0.5, 2], uncertainty=uncertainty)
    monkeypatch.setattr(bands, "BATCH", 600)
    pd.testing.assert_frame_equal(
        overtraining(published, [1e20, 1e22], suite, factors=[0.5, 2], uncertainty=uncertainty), whole
    )


def test_factors_that_leave_no_shape_have_no_interval(published, suite):
    uncertainty = uncertainty_of(published, [published] * 3)
    table = overtraining(published, [1e18], suite, factors=[1.0, 1e4], uncertainty=uncertainty)
    assert table.loss_high.isna().tolist() == [False, True]
    assert table.loss_increase_high[0] == pytest.approx(0, abs=1e-7)


def test_budgets_of_gpu_hours_hold(published, suite):
    model = SpeedModel((2.9e-14, 2.2e-12, 4.4e-10), 0.08, (8, 64), 22, Architecture(), 2048 * 2048, 8)
    speeds = Speeds(model, nodes=16, flops_per_gpu_hour=1.3e17, max_gpu_hours=800.0)
    table = overtraining(
        published, [1e20], suite, factors=[0.25, 1, 4], max_flops=1e22, speeds=speeds, gpu_hours=[500, 1000]
    )
    assert table.resource.tolist() == ["flops"] * 3 + ["gpu_hours"] * 6
    search = Search.of(published, suite, speeds, "gpu_hours")
    spent = table.tokens * search.gpu_hours_per_token(table.width, table.depth)
    assert spent.to_numpy() == pytest.approx(table.gpu_hours.to_numpy())
    assert (table.tokens * flops_per_token(table.width, table.depth)).to_numpy() == pytest.approx(
        table.flops.to_numpy()
    )
    hours = table[table.resource == "gpu_hours"]
    assert hours.gpu_hours.tolist() == hours.budget.tolist() == [500] * 3 + [1000] * 3
    assert hours.extrapolated.tolist() == [False] * 3 + [True] * 3
    for _, rows in hours.groupby("budget"):
        assert rows.loss.idxmin() == rows.index[1]
        assert (rows.tokens / rows.tokens.iloc[1]).to_numpy() == pytest.approx([0.5, 1, 2])
    width, depth = search.relaxed(500.0)
    assert hours.loss.iloc[1] == pytest.approx(float(search.loss(width, depth, 500.0)[0]), rel=1e-9)
