"""The authors' search: the same rows as by predicting the loss of every row and sorting them into buckets with pandas."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from gemstones.errors import UserError
from gemstones.laws import HuberFit, PowerLaw
from gemstones.prescriptions import prescribe
from gemstones.prescriptions.reference import BUCKETS, FLOPS_RANGE, Grid, grid, reference, whole_params
from gemstones.suite import counting

COUNTS = {
    "params": counting.params,
    "params_no_input_embedding": counting.params_no_input_embedding,
    "params_no_embeddings": counting.params_no_embeddings,
}


def brute_force(law: PowerLaw, rows: Grid) -> pd.DataFrame:
    """Row by row: width by width, then depth by depth, then by tokens."""
    shapes = pd.DataFrame({"width": rows.width.astype(int), "depth": rows.depth.astype(int)})
    table = shapes.merge(pd.DataFrame({"tokens": rows.tokens.astype(int)}), how="cross")
    table["flops"] = counting.flops_per_token(table.width.astype(float), table.depth.astype(float)) * table.tokens
    pairs = list(zip(table.width.tolist(), table.depth.tolist(), strict=True))
    table["params"] = [float(counting.params(*pair)) for pair in pairs]
    table["law_params"] = [float(COUNTS[law.param_count](*pair)) for pair in pairs]
    table["loss"] = law.predict({**table, law.param_count: table.law_params})
    edges = 10 ** np.linspace(*np.log10(FLOPS_RANGE), BUCKETS + 1)
    bucket = pd.cut(table.flops, bins=edges, include_lowest=True)
    best = table.loc[table.groupby(bucket, observed=True).loss.idxmin()]
    right = np.searchsorted(edges, best.flops)
    return best.assign(budget=edges[right], bucket_from=edges[right - 1])


def assert_same(law: PowerLaw, rows: Grid) -> None:
    expected, found = brute_force(law, rows), reference(law, rows)
    for name in ("budget", "bucket_from", "width", "depth", "tokens", "params", "law_params"):
        assert found[name].tolist() == expected[name].tolist(), name
    assert found.flops.to_numpy() == pytest.approx(expected.flops.to_numpy(), rel=1e-12)
    assert found.loss.to_numpy() == pytest.approx(expected.loss.to_numpy(), rel=1e-12)


@pytest.mark.parametrize("count", COUNTS)
def test_rows_are_those_of_every_row_looked_at(published, count):
    assert_same(replace(published, param_count=count), grid(widths=40, depths=30, tokens=60))


@pytest.mark.parametrize("covariates", [("width", "depth", "tokens"), ("params", "tokens"), ("tokens", "depth")])
def test_laws_of_other_covariates(published, covariates):
    terms = dict(
        zip(published.covariates, zip(published.exponents, published.log_coefficients, strict=True), strict=True)
    )
    law = PowerLaw(covariates, *zip(*(terms[role] for role in covariates), strict=True), 1.5)
    assert_same(law, grid(8.5, widths=25, depths=20, tokens=50))


@pytest.mark.parametrize("data", ["tokens*params", "tokens*width*depth"])
def test_laws_of_products(published, data):
    """The shapes that can pay for a number of tokens no longer rank alike for all of them."""
    exponents = (*published.exponents[:3], (0.5, *[-0.1] * data.count("*")))
    law = PowerLaw((*published.covariates[:3], data), exponents, published.log_coefficients, 1.5)
    assert_same(law, grid(widths=40, depths=30, tokens=60))


def test_of_equal_losses_the_first_row_counts():
    # Every shape has the same loss, so the lowest one is that of the most tokens that some shape can pay for.
    law = PowerLaw(("width", "tokens"), (0.0, 0.3), (0.0, 5.0), 1.5)
    rows = grid(widths=25, depths=20, tokens=9)
    assert_same(law, rows)
    assert_same(law, Grid(rows.width[::-1], rows.depth[::-1], rows.tokens))


def test_empty_buckets_have_no_row(published):
    rows = Grid(np.array([1024.0]), np.array([28.0]), np.array([1e9, 3e9, 1e12]))
    assert_same(published, rows)
    assert len(reference(published, rows)) == 3


def test_the_grid_is_the_authors():
    rows = grid()
    assert len(rows) == 318_866_500
    assert (rows.width.min(), rows.width.max(), len(np.unique(rows.width))) == (256, 131_072, 1025)
    # Ends 4096 and 64 of the authors' ranges are rounded down, as are all depths.
    assert rows.depth[rows.width == 256].max() == 4095
    assert rows.depth[rows.width == 131_072].min() == 63
    assert (rows.tokens[0], rows.tokens[-1], len(rows.tokens)) == (10**9, int(10**13.5), 500)
    assert grid(8.5).tokens[0] == int(10**8.5)


def test_odd_widths_are_counted_as_the_authors_do():
    # 1000 // 128 = 7 heads of 128, and 3 groups.
    attention = 1000 * (7 + 2 * 3) * 128 + 128 * 7 * 1000
    expected = 2 * 50_304 * 1000 + 1000 + 3 * (attention + 3 * 1000 * 4000 + 2 * 1000)
    assert whole_params(np.array([1000.0]), np.array([3.0])).tolist() == [expected]


def test_laws_that_do_not_fall_with_tokens_are_refused(published):
    with pytest.raises(UserError, match="must fall with tokens"):
        reference(replace(published, exponents=(0.2, 0.4, 0.3, 0.0)))
    with pytest.raises(UserError, match="must fall with tokens"):
        reference(PowerLaw(("params",), (0.3,), (5.0,), 1.5))


def test_the_law_of_over_120b_is_searched_from_fewer_tokens(published):
    numbers = dict.fromkeys(("objective", "gradient_norm", "lowest_curvature", "share_of_starts_at_optimum"), 0.0)
    fit = HuberFit(published, 1e-4, n_rows=770, n_runs=22, converged=True, starts=8, **numbers)
    few, usual = reference(replace(fit, selection="over_120b")), reference(replace(fit, selection="all"))
    pd.testing.assert_frame_equal(few, reference(published, grid(8.5)))
    pd.testing.assert_frame_equal(usual, reference(published))


def test_prescriptions_have_it_as_a_variant(published, suite):
    table = prescribe(published, [1e20], suite, "all", max_flops=1e21, with_reference=True)
    found, rows = table[table.variant == "reference"], reference(published)
    assert len(table) == 2 + BUCKETS
    for name in rows.columns:
        assert found[name].tolist() == rows[name].tolist()
    assert found.aspect_ratio.tolist() == (rows.width / rows.depth).tolist()
    assert found.tokens_per_param.tolist() == (rows.tokens / rows.params).tolist()
    assert found.extrapolated.tolist() == (rows.flops > 1e21).tolist()
    assert table.bucket_from[table.variant != "reference"].isna().all()
    # A bucket's row spends nearly its right end, far from where the authors draw it.
    assert (found.budget / found.flops).between(1, 1.01).all()
    assert (found.flops / found.bucket_from).min() > 4
