"""Intervals of prescriptions, from the laws of resamples."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from gemstones.laws import HuberFit, PowerLaw, Uncertainty
from gemstones.laws.power_law import exponent_names
from gemstones.laws.uncertainty import expanded_tail
from gemstones.prescriptions.bands import QUANTITIES
from gemstones.prescriptions.optimum import prescribe

BUDGETS = [1e19, 1e21, 1e23]


def fit_of(law: PowerLaw) -> HuberFit:
    numbers = dict.fromkeys(("objective", "gradient_norm", "lowest_curvature", "share_of_starts_at_optimum"), 0.0)
    return HuberFit(law, 1e-4, n_rows=770, n_runs=22, converged=True, starts=8, **numbers)


def resamples_of(laws: list[PowerLaw]) -> pd.DataFrame:
    rows = []
    for law in laws:
        row = {"unit": "run", "irreducible_loss": law.irreducible_loss, "objective": 0.0}
        row |= dict(zip(exponent_names(law.covariates), law.flat_exponents, strict=True))
        for term, log_coefficient in zip(law.covariates, law.log_coefficients, strict=True):
            row[f"log_coefficient_{term}"] = log_coefficient
        rows.append(row)
    return pd.DataFrame(rows)


@pytest.mark.parametrize("law", ["interaction", "pair"])
def test_optima_of_products_are_those_of_the_search(suite, law):
    """One law at a time by golden sections, many at a time on grids; of two covariates also in closed form."""
    laws = {
        "interaction": PowerLaw(("width", "depth", "params", "tokens*params"), (0.18, 0.49, 0.31, (0.53, -0.21)), (1.0, -0.2, 5.3, 7.4), 1.3),
        "pair": PowerLaw(("tokens*params", "params"), ((0.54, -0.2), 0.21), (7.6, 4.2), 1.6),
    }  # fmt: skip
    found = laws[law]
    table = prescribe(found, BUDGETS, suite, uncertainty=Uncertainty(fit_of(found), resamples_of([found] * 3)))
    for name in QUANTITIES:
        rows = table[(table.variant == "relaxed") | ((table.variant == "closed_form") & table[f"{name}_low"].notna())]
        assert len(rows)
        assert rows[f"{name}_low"].to_numpy() == pytest.approx(rows[name].to_numpy(), rel=1e-3), name
    assert ("closed_form" in set(table.variant)) == (law == "pair")


def test_resamples_without_an_optimum_are_counted_as_such(suite):
    """Where more parameters make data gain faster than they do themselves, the largest model for one token would be best."""
    law = PowerLaw(("params", "tokens*params"), (0.3, (0.5, -0.1)), (6.0, 8.0), 1.6)
    falling = [replace(law, exponents=(0.3, (0.5, -0.1 - 1e-4 * i))) for i in range(200)]
    flat = replace(law, exponents=(0.3, (0.0, -0.1)))
    few, many = (Uncertainty(fit_of(law), resamples_of([*falling, *[flat] * n])) for n in (1, 50))
    assert prescribe(law, [1e21], suite, uncertainty=few)["loss_low"].notna().any()
    assert prescribe(law, [1e21], suite, uncertainty=many)["loss_low"].isna().all()


def test_resamples_that_agree_leave_no_interval_around_the_optimum(published, suite):
    uncertainty = Uncertainty(fit_of(published), resamples_of([published] * 3))
    table = prescribe(published, BUDGETS, suite, uncertainty=uncertainty)
    relaxed = table[table.variant == "relaxed"]
    for name in QUANTITIES:
        assert relaxed[f"{name}_low"].to_numpy() == pytest.approx(relaxed[name].to_numpy(), rel=5e-4)
        assert relaxed[f"{name}_high"].to_numpy() == pytest.approx(relaxed[name].to_numpy(), rel=5e-4)
    assert table.loc[table.variant == "feasible", "params_low"].isna().all()


@pytest.mark.parametrize("shape", [(0.22, 0.05), (1, 0.2)])
def test_intervals_reach_as_far_as_the_optima(published, suite, shape):
    """However wide or deep these are: no grid ends before them."""
    law = replace(published, exponents=(*shape, *published.exponents[2:]))
    table = prescribe(law, [1e21, 1e30], suite, uncertainty=Uncertainty(fit_of(law), resamples_of([law] * 3)))
    relaxed = table[table.variant == "relaxed"]
    for name in QUANTITIES:
        assert relaxed[f"{name}_high"].to_numpy() == pytest.approx(relaxed[name].to_numpy(), rel=5e-4)


def test_intervals_are_quantiles_of_the_optima_of_the_resamples(published, suite):
    generator = np.random.default_rng(0)
    laws = [
        PowerLaw(
            published.covariates,
            tuple(np.array(published.exponents) * generator.uniform(0.9, 1.1, 4)),
            tuple(np.array(published.log_coefficients) + generator.uniform(-0.1, 0.1, 4)),
            published.irreducible_loss,
        )
        for _ in range(12)
    ]
    table = prescribe(published, BUDGETS, suite, uncertainty=Uncertainty(fit_of(published), resamples_of(laws)))
    tail = expanded_tail(0.95, 22, 9)
    optima = [prescribe(law, BUDGETS, suite) for law in laws]
    for i in table.index[table.variant == "relaxed"]:
        for name in ("params", "tokens", "aspect_ratio", "loss"):
            low, high = np.quantile([optimum[name][i] for optimum in optima], [tail, 1 - tail])
            assert (table[f"{name}_low"][i], table[f"{name}_high"][i]) == pytest.approx((low, high), rel=2e-3)


def test_closed_forms_have_intervals_in_the_laws_own_count(two_covariates, suite):
    laws = [
        PowerLaw(("params", "tokens"), (0.34 + shift, 0.28), two_covariates.log_coefficients, 1.7)
        for shift in (-0.02, 0, 0.02)
    ]
    table = prescribe(
        two_covariates, BUDGETS, suite, uncertainty=Uncertainty(fit_of(two_covariates), resamples_of(laws))
    )
    closed = table[table.variant == "closed_form"]
    expected = np.quantile([law.allocation().params(BUDGETS) for law in laws], expanded_tail(0.95, 22, 5), axis=0)
    assert closed.params_low.to_numpy() == pytest.approx(expected)
    assert closed.aspect_ratio_low.isna().all()
    assert (closed.params_low < closed.params).all()
    assert (closed.params < closed.params_high).all()


def test_laws_without_an_optimum_leave_no_interval(published, suite):
    flat = PowerLaw(published.covariates, (0.2, 0.4, 0.3, 0.0), published.log_coefficients, 1.0)
    uncertainty = Uncertainty(fit_of(published), resamples_of([published] * 4 + [flat]))
    assert prescribe(published, BUDGETS, suite, uncertainty=uncertainty).params_low.isna().all()
