import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemstones.errors import UserError
from gemstones.laws import PowerLaw
from gemstones.laws.power_law import positive_columns

exponents = st.floats(0.05, 1.5)
log_coefficients = st.floats(-2, 12)


def test_predicts_the_formula_for_tables_and_mappings(law):
    table = pd.DataFrame({"params": [5e7, 2e9], "tokens": [1e9, 3e11]})
    expected = 1.7 + np.exp(6.0) / table.params**0.34 + np.exp(6.4) / table.tokens**0.28
    assert law.predict(table) == pytest.approx(expected.to_numpy(), rel=1e-14)
    assert law.predict({"params": 5e7, "tokens": 1e9}) == pytest.approx(expected[0], rel=1e-14)
    assert law.predict({"params": np.array([[5e7], [2e9]]), "tokens": np.array([1e9, 3e11])}).shape == (2, 2)


def test_reads_the_parameter_count_that_it_was_fitted_to():
    law = PowerLaw(("params",), (0.5,), (1.0,), 0.0, "params_no_embeddings")
    table = pd.DataFrame({"params": [4.0], "params_no_embeddings": [16.0]})
    assert law.predict(table) == pytest.approx([np.e / 4])


@given(alpha=exponents, beta=exponents, log_a=log_coefficients, log_b=log_coefficients, log_c=st.floats(40, 62))
def test_the_allocation_is_the_minimum_on_its_budget(alpha, beta, log_a, log_b, log_c):
    law = PowerLaw(("params", "tokens"), (alpha, beta), (log_a, log_b), 1.0)
    flops = np.exp(log_c)
    optimum = law.allocation()
    params, tokens = optimum.params(flops), optimum.tokens(flops)
    assert 6 * params * tokens == pytest.approx(flops, rel=1e-9)
    best = law.predict({"params": params, "tokens": tokens})
    for factor in (0.9, 1.1):
        assert law.predict({"params": params * factor, "tokens": tokens / factor}) >= best * (1 - 1e-14)
    swapped = PowerLaw(("tokens", "params"), (beta, alpha), (log_b, log_a), 1.0)
    assert swapped.allocation().params(flops) == pytest.approx(params)
    assert law.slope == pytest.approx(beta / (alpha + beta))


def test_other_laws_have_no_closed_form(wide_law):
    assert wide_law.slope is None
    with pytest.raises(UserError, match="needs params and tokens"):
        wide_law.allocation()


@pytest.mark.parametrize(
    "covariates", [(), ("",), ("width", "width"), ("tokens*",), ("tokens*tokens",), ("tokens*params", "params*tokens")]
)
def test_refuses_terms_without_factors_or_of_the_same(covariates):
    with pytest.raises(UserError, match="covariate"):
        PowerLaw(covariates, (0.1,) * len(covariates), (0.1,) * len(covariates), 0.0)


def test_a_product_wants_an_exponent_for_each_factor():
    with pytest.raises(UserError, match=r"1 exponents for tokens\*params; wanted: 2"):
        PowerLaw(("params", "tokens*params"), (0.3, 0.5), (1.0, 2.0), 1.5)


def test_a_product_of_powers():
    """D·N^kappa / T^zeta: the exponent of a factor is of 1/x, so kappa stands with a minus."""
    law = PowerLaw(("params", "tokens * params"), (0.3, (0.5, -0.2)), (5.0, 9.0), 1.5)
    assert law.covariates == ("params", "tokens*params")
    assert (law.n_parameters, law.roles, law.columns) == (6, ("params", "tokens"), ("params", "tokens"))
    n, t = np.array([1e8, 2e9]), np.array([3e9, 4e11])
    expected = 1.5 + np.exp(5) / n**0.3 + np.exp(9) * n**0.2 / t**0.5
    assert law.predict({"params": n, "tokens": t}) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("kappa", [-0.1, 0.0, 0.2])
def test_closed_form_with_an_interaction_is_the_lowest_loss_on_a_budget(kappa):
    law = PowerLaw(("tokens*params", "params"), ((0.5, -kappa), 0.3), (9.0, 5.0), 1.5)
    flops = np.array([1e18, 1e22, 1e26])
    params = law.allocation().params(flops)
    assert law.allocation().tokens(flops) == pytest.approx(flops / (6 * params), rel=1e-12)
    best = law.predict({"params": params, "tokens": flops / (6 * params)})
    for factor in (0.98, 1.02):
        off = params * factor
        assert (law.predict({"params": off, "tokens": flops / (6 * off)}) > best).all()
    assert law.slope == pytest.approx(0.5 / (0.3 + 0.5 + kappa))


def test_an_interaction_may_leave_no_optimum():
    """Where data gain with size faster than they do by themselves, one token for the largest model would be best."""
    law = PowerLaw(("params", "tokens*params"), (0.3, (0.5, 0.7)), (5.0, 9.0), 1.5)
    assert law.slope is None
    with pytest.raises(UserError, match="closed form"):
        law.allocation()


@pytest.mark.parametrize(
    ("law", "why"),
    [
        (PowerLaw(("params", "tokens*batch"), (0.3, (0.5, 0.1)), (5.0, 9.0), 1.5), "do not give batch"),
        (PowerLaw(("params", "tokens"), (0.3, 0.0), (5.0, 9.0), 1.5), "must fall with tokens"),
        (PowerLaw(("tokens",), (0.3,), (5.0,), 1.5), "must fall with tokens"),
        (PowerLaw(("params", "params*tokens"), (0.3, (0.1, -0.2)), (5.0, 9.0), 1.5), "must fall with tokens"),
        (PowerLaw(("width", "tokens*depth"), (0.0, (0.4, 0.1)), (5.0, 9.0), 1.5), None),
    ],
)
def test_laws_say_why_they_prescribe_nothing(law, why):
    assert law.no_optimum() is None if why is None else why in law.no_optimum()


@pytest.mark.parametrize("value", [None, 0.0, -1.0, np.inf])
def test_names_the_row_and_column_without_a_logarithm(value):
    table = pd.DataFrame({"run": ["256x23", "512x12"], "step": [5, 7], "tokens": [1.0, value]})
    with pytest.raises(UserError, match=r"selection 'hot': row 1 \(run 512x12, step 7\): column 'tokens' is"):
        positive_columns(table, ("tokens",), "selection 'hot'")


def test_names_a_missing_column():
    with pytest.raises(UserError, match="no column 'width'; it has tokens"):
        positive_columns(pd.DataFrame({"tokens": [1.0]}), ("width",), "selection 'hot'")


def test_nullable_columns_are_read_as_numbers():
    table = pd.DataFrame({"width": pd.array([256, 512], dtype="Int64")})
    assert positive_columns(table, ("width",), "table").tolist() == [[256.0], [512.0]]
    table = pd.DataFrame({"width": pd.array([256, None], dtype="Int64")})
    with pytest.raises(UserError, match="row 1: column 'width' is empty"):
        positive_columns(table, ("width",), "table")
