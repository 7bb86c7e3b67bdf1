from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from gemstones.errors import UserError
from gemstones.laws import PowerLaw
from gemstones.laws.fit import HuberFit
from gemstones.prescriptions import budgets, prescribe
from gemstones.prescriptions.optimum import COLUMNS
from gemstones.prescriptions.page import page_table, write_page
from gemstones.prescriptions.search import Search, real_params
from gemstones.prescriptions.speeds import speeds_of
from gemstones.study import Prescriptions, Suite
from gemstones.suite import counting
from gemstones.suite.counting import Architecture
from tests.unit.prescriptions.test_bands import fit_of

COUNTS = {
    "params": counting.params,
    "params_no_input_embedding": counting.params_no_input_embedding,
    "params_no_embeddings": counting.params_no_embeddings,
}


def brute_force(law: PowerLaw, flops: float, suite: Suite, widths: range, depths: range) -> tuple[int, int, float]:
    """Loss of every shape of a range on the budget, by the integer counts."""
    architecture = Architecture(suite.head_size, suite.vocabulary_size, suite.context_length)
    width, depth = (grid.ravel() for grid in np.meshgrid(widths, depths, indexing="ij"))
    count = COUNTS[law.param_count]
    shapes = list(zip(width.tolist(), depth.tolist(), strict=True))
    table = {
        "width": width,
        "depth": depth,
        law.param_count: np.array([count(w, d, architecture) for w, d in shapes], dtype=float),
        "tokens": np.array([flops / counting.flops_per_token(w, d, architecture) for w, d in shapes]),
    }
    loss = law.predict(table)
    best = int(np.argmin(loss))
    return *shapes[best], float(loss[best])


@pytest.mark.parametrize("count", COUNTS)
@given(heads=st.integers(1, 40), depth=st.integers(1, 200), head_size=st.sampled_from([16, 64, 128]))
def test_real_counts_extend_the_integer_ones(count, heads, depth, head_size):
    architecture = Architecture(head_size, 5000, 512)
    width = 2 * heads * head_size
    assert real_params(width, depth, architecture, count) == COUNTS[count](width, depth, architecture)


@pytest.mark.parametrize(
    ("flops", "shape", "tokens", "loss"),
    [
        (1e20, (1536, 25), 1.51e10, 2.864),
        (1e21, (2560, 45), 3.35e10, 2.553),
        (1e22, (4864, 66), 6.71e10, 2.336),
        (1.19e21, (2560, 50), 3.60e10, 2.534),
    ],
)
def test_known_feasible_optima_of_the_published_law(published, suite, flops, shape, tokens, loss):
    table = prescribe(published, [flops], suite).set_index("variant")
    found = table.loc["feasible"]
    assert (found.width, found.depth) == shape
    assert found.tokens == pytest.approx(tokens, rel=2e-3)
    assert found.loss == pytest.approx(loss, abs=6e-4)
    assert found.flops == flops
    assert table.loc["relaxed"].loss <= found.loss


def test_known_relaxed_optimum_of_the_published_law(published, suite):
    found = prescribe(published, [1.19e21], suite).set_index("variant").loc["relaxed"]
    assert found.width == pytest.approx(2685, rel=2e-3)
    assert found.depth == pytest.approx(46.5, abs=0.05)


@pytest.mark.parametrize("law", ["published", "two_covariates"])
@pytest.mark.parametrize("flops", [3e18, 1e20, 2e21])
def test_no_other_feasible_shape_is_better(law, flops, suite, request):
    law = request.getfixturevalue(law)
    width, depth, loss = brute_force(law, flops, suite, range(256, 8193, 256), range(2, 201))
    found = prescribe(law, [flops], suite).set_index("variant").loc["feasible"]
    assert (found.width, found.depth) == (width, depth)
    assert found.loss == pytest.approx(loss, rel=1e-12)


def test_very_wide_feasible_shapes_are_close_to_the_relaxed_optimum(published, two_covariates, suite):
    for law in (published, two_covariates):
        table = prescribe(law, [1e30], suite).set_index("variant")
        feasible, relaxed = table.loc["feasible"], table.loc["relaxed"]
        assert (feasible.width % 256, feasible.depth % 1) == (0, 0)
        assert relaxed.loss <= feasible.loss <= relaxed.loss * (1 + 1e-9)


def test_many_widths_are_searched_like_few(published, two_covariates, suite, monkeypatch):
    """In steps, so that any width takes bounded memory."""
    asked = [
        (search, flops, float(search.relaxed(flops)[0][0]))
        for search in (Search.of(published, suite), Search.of(two_covariates, suite))
        for flops in (1e19, 1e21, 1e23, 1e26)
    ]
    expected = [search.loss(*search.feasible(flops, near), flops) for search, flops, near in asked]
    monkeypatch.setattr("gemstones.prescriptions.search.MOST_WIDTHS", 64)
    found = [search.loss(*search.feasible(flops, near), flops) for search, flops, near in asked]
    assert found == pytest.approx(expected, rel=1e-6)


laws = st.builds(
    lambda covariates, exponents, shares, count: PowerLaw(
        covariates,
        tuple(exponents[: len(covariates)]),
        # Coefficients that give each term a loss of about its share at a middling shape.
        tuple(
            float(np.log(share) + alpha * np.log({"width": 100, "depth": 5, "params": 6e5, "tokens": 5e7}[role]))
            for role, alpha, share in zip(covariates, exponents, shares, strict=False)
        ),
        1.5,
        count,
    ),
    st.sampled_from([("params", "tokens"), ("width", "depth", "tokens"), ("width", "depth", "params", "tokens")]),
    st.lists(st.floats(0.1, 1.2), min_size=4, max_size=4),
    st.lists(st.floats(0.05, 1.0), min_size=4, max_size=4),
    st.sampled_from(list(COUNTS)),
)


@settings(max_examples=40, deadline=None)
@given(law=laws, log_flops=st.floats(np.log(1e12), np.log(1e15)))
def test_toy_studies_get_their_best_shape_too(law, log_flops, small_suite):
    flops = float(np.exp(log_flops))
    best = brute_force(law, flops, small_suite, range(32, 1025, 32), range(1, 101))
    table = prescribe(law, [flops], small_suite).set_index("variant")
    feasible, relaxed = table.loc["feasible"], table.loc["relaxed"]
    assert feasible.loss <= best[2] * (1 + 1e-12)
    assert feasible.width % 32 == 0
    assert feasible.depth % 1 == 0
    assert relaxed.loss <= feasible.loss * (1 + 1e-12)
    assert (relaxed.width >= 32) & (relaxed.depth >= 1)


@pytest.mark.parametrize("flops", [1e18, 1e21, 1e26])
def test_a_local_search_does_not_improve_on_the_relaxed_optimum(published, suite, flops):
    search = Search.of(published, suite)
    width, depth = search.relaxed(flops)

    def loss(log_shape):
        return float(search.loss(*np.exp(log_shape), flops))

    start = np.log([width[0], depth[0]]) + 0.01
    polished = minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-16, "maxiter": 2000})
    assert loss(np.log([width[0], depth[0]])) <= polished.fun + 1e-12
    assert np.exp(polished.x) == pytest.approx([width[0], depth[0]], rel=1e-5)


def test_budgets_hold_exactly_and_counts_are_named(published, suite):
    law = replace(published, param_count="params_no_embeddings")
    table = prescribe(law, np.geomspace(1e18, 1e26, 5), suite, fit="all")
    assert list(table.columns) == COLUMNS
    per_token = counting.flops_per_token(table.width, table.depth)
    assert (table.tokens * per_token).to_numpy() == pytest.approx(table.flops.to_numpy(), rel=1e-12)
    assert table.tokens_per_param.to_numpy() == pytest.approx((table.tokens / table.params).to_numpy())
    assert (table.params - table.law_params).to_numpy() == pytest.approx((2 * 50_304 * table.width).to_numpy())
    assert set(table.param_count) == {"params_no_embeddings"}
    assert set(table.fit) == {"all"}
    assert table.variant.tolist() == ["relaxed", "feasible"] * 5
    assert table.flops.is_monotonic_increasing


def test_closed_form_of_laws_of_params_and_tokens(two_covariates, suite):
    table = prescribe(two_covariates, [1e20, 1e22], suite)
    closed = table[table.variant == "closed_form"]
    assert closed.width.isna().all()
    assert closed.aspect_ratio.isna().all()
    assert (6 * closed.params * closed.tokens).to_numpy() == pytest.approx([1e20, 1e22])
    assert closed.params.to_numpy() == pytest.approx(two_covariates.allocation().params([1e20, 1e22]))
    other_count = prescribe(replace(two_covariates, param_count="params_no_embeddings"), [1e20], suite)
    closed = other_count[other_count.variant == "closed_form"].iloc[0]
    assert np.isnan(closed.params)
    assert closed.law_params > 0


def test_budgets_beyond_the_fitted_rows_are_marked(published, suite):
    evidence = dict.fromkeys(("objective", "gradient_norm", "lowest_curvature", "share_of_starts_at_optimum"), 0.0)
    fit = HuberFit(published, 1e-4, n_rows=770, n_runs=22, converged=True, starts=8, max_flops=4.5e21, **evidence)
    assert prescribe(fit, [1e21, 1e22], suite).extrapolated.tolist() == [False, False, True, True]
    from_1e20 = replace(fit, min_flops=1e20)
    assert prescribe(from_1e20, [1e19, 1e21], suite).extrapolated.tolist() == [True, True, False, False]
    assert prescribe(fit, [1e21], suite, max_flops=1e20).extrapolated.all()
    assert prescribe(published, [1e21], suite).extrapolated.isna().all()


def test_the_smallest_depth_is_the_suites(two_covariates):
    """Such laws want the widest, flattest model, since the input embedding costs nothing."""
    for min_depth in (2, 6):
        table = prescribe(two_covariates, [1e20], Suite(depth_range=(min_depth, 255)))
        assert table.depth.dropna().tolist() == [min_depth, min_depth]


def test_a_budget_that_pays_for_nothing_is_an_error(published, suite):
    with pytest.raises(UserError, match="do not pay for one token of the smallest shape, 256x2"):
        prescribe(published, [1e6], suite)
    with pytest.raises(UserError, match="1e\\+31 FLOPs: no law reaches so far; wanted: at most 1e\\+30"):
        prescribe(published, [1e21, 1e31], suite)
    just_enough = prescribe(published, [1e9], suite)
    assert just_enough.width.tolist() == [256, 256]


def test_budgets_of_the_config():
    given = budgets(Prescriptions(flops_range=(1e18, 1e20), budgets=3))
    assert given == pytest.approx([1e18, 1e19, 1e20])


def test_the_page_has_a_row_for_each_budget_with_what_a_person_reads(published, suite, frontier, tmp_path):
    evidence = dict.fromkeys(("objective", "gradient_norm", "lowest_curvature", "share_of_starts_at_optimum"), 0.0)
    fit = HuberFit(published, 1e-4, n_rows=770, n_runs=22, converged=True, starts=8, max_flops=4.5e21, **evidence)
    table = prescribe(fit, [1e21, 1e22], suite, speeds=speeds_of(frontier), gpu_hours=[4000])
    flops = page_table(table[table.resource == "flops"], "flops", 0.95)
    assert flops["FLOPs"].tolist() == [1e21, 1e22]
    assert flops["feasible shape"].tolist() == ["2560x45", "4864x66"]
    assert flops["extrapolated"].tolist() == ["", "yes"]
    assert flops["1e9 tokens"].tolist() == pytest.approx([33.5, 67], rel=0.02)
    assert not [name for name in flops if "95 %" in name]
    write_page(table, tmp_path / "page.html", tmp_path / "page.csv", "all", 0.95)
    rows = pd.read_csv(tmp_path / "page.csv")
    assert rows["table"].tolist() == ["Budgets in FLOPs"] * 2 + ["Budgets in GPU-hours"]
    assert rows["feasible shape"].tolist()[:2] == flops["feasible shape"].tolist()
    assert rows["GPU-hours"].iloc[2] == 4000
    assert list(rows)[1:] == [*flops, "training FLOPs"]
    page = (tmp_path / "page.html").read_text()
    for text in ("Budgets in FLOPs", "Budgets in GPU-hours", "on 16 nodes", "7.7 %"):
        assert text in page


def test_what_else_lies_outside_the_fitted_rows_is_named(published, suite):
    """At 1e21 FLOPs, the published law wants 4 billion parameters, and no more tokens than were trained."""
    ranges = {"params": [1e8, 2e9], "width": [256, 3072], "tokens": [2e9, 3.5e11]}
    fit = replace(fit_of(published), evidence={"fitted_ranges": ranges})
    table = prescribe(fit, [1e18, 1e20, 1e21, 1e23], suite).query("variant == 'relaxed'")
    assert table.beyond_fitted.where(table.beyond_fitted.notna(), "").tolist() == [
        "params",
        "",
        "params",
        "params, width",
    ]
    assert prescribe(published, [1e21], suite).beyond_fitted.isna().all()
