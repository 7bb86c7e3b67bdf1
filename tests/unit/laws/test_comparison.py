import math
from dataclasses import astuple

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import huber

from gemstones.errors import UserError
from gemstones.laws import fit_huber
from gemstones.laws.comparison import COLUMNS, FITTED, authors_laws, compare_laws, log_likelihood
from gemstones.laws.kaplan import KAPLAN, KaplanLaw, fit_kaplan
from gemstones.laws.power_law import CHINCHILLA

KAPLAN_LAW = KaplanLaw(0.09, 0.15, math.log(5e13), math.log(2e12))


@pytest.mark.parametrize("delta", [1e-4, 1e-2, 1.0])
def test_recovers_kaplans_law_from_perfect_losses(grid, delta):
    table = grid.assign(loss=KAPLAN_LAW.predict(grid))
    found = fit_kaplan(table, delta)
    assert astuple(found)[:4] == pytest.approx(astuple(KAPLAN_LAW)[:4], rel=1e-5)
    other = table.assign(millions=table["params"] / 1e6)
    assert fit_kaplan(other, delta, "millions").log_n == pytest.approx(KAPLAN_LAW.log_n - math.log(1e6), rel=1e-5)


def test_kaplans_law_is_fitted_to_the_lowest_sum_of_huber_losses(noisy):
    def objective(law: KaplanLaw) -> float:
        return huber(1e-4, np.log(noisy["loss"]) - np.log(law.predict(noisy))).sum()

    found = fit_kaplan(noisy)
    generator = np.random.default_rng(0)
    for scale in (1e-2, 1e-4, 1e-6):
        moved = [value * (1 + scale * generator.normal()) for value in astuple(found)[:4]]
        assert objective(KaplanLaw(*moved)) > objective(found)
    again = fit_kaplan(noisy, starts=[found])
    assert objective(again) == pytest.approx(objective(found), rel=1e-9)
    with pytest.raises(UserError, match="selection 'x': 3 rows for a law with 4 parameters"):
        fit_kaplan(noisy[:3], selection="x")


def test_published_constants():
    at = {"params": 1e9, "params_no_embeddings": 1e9, "tokens": 2e10}
    assert CHINCHILLA.predict(at) == pytest.approx(1.8172 + 482.00572 / 1e9**0.3478 + 2085.4342 / 2e10**0.3658)
    assert CHINCHILLA.allocation().a == pytest.approx(0.5126, abs=1e-4)
    assert KAPLAN.predict(at) == pytest.approx(((6.4e13 / 1e9) ** (0.076 / 0.103) + 1.8e13 / 2e10) ** 0.103)


@pytest.mark.parametrize("delta", [1e-4, 1e-2, 1.0])
def test_likelihood_is_of_a_density_at_its_most_likely_scale(delta):
    residuals = np.random.default_rng(0).standard_t(3, size=200) * 0.01
    total = huber(delta, residuals).sum()
    by_scale = []
    for log_s in np.linspace(-1, 1, 401) + math.log(total / len(residuals)):
        s = math.exp(log_s)
        ends = 60 * s / delta + 20 * math.sqrt(s)
        z = 2 * quad(lambda r, s=s: math.exp(-huber(delta, r) / s), 0, ends, points=[min(delta, ends)], limit=200)[0]
        by_scale.append(-total / s - len(residuals) * math.log(z))
    assert log_likelihood(residuals, delta) == pytest.approx(max(by_scale), abs=2e-3)
    assert log_likelihood(residuals, delta) > max(by_scale) - 1e-9


def test_likelihood_has_the_known_limits():
    residuals = np.random.default_rng(0).normal(size=500) * 0.01
    normal = -250 * (math.log(2 * math.pi * np.mean(residuals**2)) + 1)
    assert log_likelihood(residuals, 10.0) == pytest.approx(normal)
    laplace = -500 * (math.log(2 * np.mean(np.abs(residuals))) + 1)
    assert log_likelihood(residuals, 1e-9) == pytest.approx(laplace, rel=1e-5)


@pytest.fixture(scope="module")
def shaped(grid, wide_law):
    """Losses that width and depth determine too."""
    return grid.assign(loss=wide_law.predict(grid) * np.exp(np.random.default_rng(2).normal(0, 1e-3, len(grid))))


def test_the_law_behind_the_losses_is_best(shaped, noisy):
    table = compare_laws(shaped, "shaped")
    assert tuple(table.columns) == COLUMNS
    assert list(table["law"]) == [*map(", ".join, FITTED), "Kaplan's form", "Chinchilla", "Kaplan"]
    assert list(table["parameters"]) == [5, 6, 7, 8, 8, 9, 9, 10, 10, 10, 11, 4, 0, 0]
    table = table.set_index("law")
    assert table.loc["params, tokens", "objective"] == pytest.approx(fit_huber(shaped).objective)
    own = "width, depth, params, tokens"
    assert table["bic"].idxmin() == own
    assert table.loc[own, "aic_above_lowest"] < 4  # as many more parameters win two each, by chance
    for test in ("leave_one_run_out", "short_to_long"):
        assert (table[f"{test}_above_best"].dropna() >= 0).all()
        above, error = table[f"{test}_above_best"], table[f"{test}_above_best_se"]
        assert above[own] < above["params, tokens"] / 5
        assert above["params, tokens"] > 2 * error["params, tokens"]
    difference = table["bic"] - table["aic"]
    assert difference["params, tokens"] == pytest.approx(6 * (math.log(120) - 2))
    assert difference["Kaplan"] == pytest.approx(math.log(120) - 2)  # a scale, though no parameter of the law
    without_shapes = compare_laws(noisy.drop(columns=["width", "depth"])).set_index("law")
    assert without_shapes["bic"].idxmin() == "params, tokens"


def test_laws_as_published_meet_the_same_rows_unchanged(shaped, law):
    table = compare_laws(shaped, "shaped", [law]).set_index("parameters_from")
    theirs = table.loc["Gemstones authors"]
    error = law.predict(shaped) / shaped["loss"] - 1
    assert theirs["law"] == "params, tokens"
    assert theirs["parameters"] == 5
    for name in ("mean_absolute_error", "leave_one_run_out_mean_absolute_error"):
        assert theirs[name] == pytest.approx(error.abs().mean())
    beyond = shaped["tokens"] > theirs["tokens_at_most"]
    assert theirs["short_to_long_mean_error"] == pytest.approx(error[beyond].mean())
    assert (table["short_to_long_rows"] == beyond.sum()).all()


def test_a_law_whose_column_is_missing_says_so(noisy):
    table = compare_laws(noisy.drop(columns=["depth", "params_no_embeddings"]), "noisy").set_index("law")
    with_depth = [law for law in table.index if "depth" in law]
    assert table.index[table["note"].notna()].tolist() == [*with_depth, "Kaplan"]
    assert "no column 'depth'" in table.loc["width, depth, tokens", "note"]
    assert table.index[table["objective"].isna()].tolist() == [*with_depth, "Kaplan"]


def test_tests_that_could_not_be_made_are_noted(noisy):
    few = noisy[noisy["run"].isin(["256x23", "256x71", "768x45"])].drop(columns=["width", "depth"])
    table = compare_laws(few).set_index("law")
    assert table.loc["params, tokens", "note"].startswith(
        "without run 256x23: params has 2 values in the rows that are"
    )
    assert table.loc[["params, tokens", "Kaplan's form"], "leave_one_run_out_mean_absolute_error"].isna().all()
    assert table.loc["Chinchilla", "leave_one_run_out_mean_absolute_error"] > 0


def test_only_the_authors_rows_have_laws_of_the_authors(mini, tmp_path):
    assert authors_laws(mini, "all", tmp_path) == []
    assert list(tmp_path.iterdir()) == []
