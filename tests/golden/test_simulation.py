"""Simulated suites look like the authors': the residuals of laws fitted to them have the same statistics."""

import numpy as np
import pandas as pd
import pytest

from gemstones import laws
from gemstones.laws.simulation import checkpoints, law_of, statistics, suite
from gemstones.losses.released import released_losses
from gemstones.losses.selections import select
from gemstones.study import Study, load
from tests.conftest import config_of

FITS = {
    "params_tokens": "approach_3_all",
    "width_depth": "approach_3_all_width_depth",
    "interaction": "approach_3_all_width_depth_interaction",
}
SUITES = 24


@pytest.fixture(scope="module")
def simulation() -> Study:
    return load(config_of("simulation"))


@pytest.fixture(scope="module")
def rows(released, released_folder, tmp_path_factory) -> pd.DataFrame:
    losses = released_losses(released, tmp_path_factory.mktemp("downloads"))
    return select(losses, released.selections["all"], "all").sort_values(["run", "tokens"], ignore_index=True)


def residuals(fit: laws.HuberFit, rows: pd.DataFrame) -> np.ndarray:
    return (np.log(rows["loss"]) - np.log(fit.predict(rows))).to_numpy().reshape(rows["run"].nunique(), -1)


def compare(simulation: Study, rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """Statistics of the authors' residuals, and of simulated suites: tenth, middle and ninetieth percentile."""
    truth, blank = simulation.simulation.laws[name], checkpoints(simulation)
    found = []
    for number in range(SUITES):
        losses = suite(blank, truth, np.random.default_rng(number))
        found.append(statistics(residuals(laws.fit_huber(losses, truth.covariates), losses)))
    table = pd.DataFrame(found).quantile([0.1, 0.5, 0.9]).T.set_axis(["low", "middle", "high"], axis=1)
    table.insert(0, "authors", statistics(residuals(laws.fit_huber(rows, truth.covariates), rows)))
    return table


@pytest.mark.parametrize("name", FITS)
def test_true_laws_are_the_authors_converged(simulation, released, rows, name):
    fit = laws.fit(released.fits[FITS[name]], rows)
    truth = law_of(simulation.simulation.laws[name])
    assert truth.covariates == fit.law.covariates
    for ours, theirs in (
        (truth.flat_exponents, fit.law.flat_exponents),
        (truth.log_coefficients, fit.law.log_coefficients),
    ):
        assert ours == pytest.approx(theirs, abs=1e-6)
    assert truth.irreducible_loss == pytest.approx(fit.law.irreducible_loss, abs=1e-6)


def test_suites_have_the_authors_shapes_and_checkpoints(simulation, rows):
    blank = checkpoints(simulation).sort_values(["run", "tokens"], ignore_index=True)
    for column in ("run", "width", "depth", "params", "tokens", "flops"):
        assert list(blank[column]) == list(rows[column])


@pytest.mark.parametrize("name", FITS)
def test_simulated_residuals_look_like_the_authors(simulation, rows, name):
    table = compare(simulation, rows, name)
    print(name, table.to_string(), sep="\n")
    same_size = ["all", "all_robust", "runs_robust", "start", "second", "later", "lag", "noise"]
    ratio = table["middle"] / table["authors"]
    assert ((ratio[same_size] > 1 / 1.4) & (ratio[same_size] < 1.4)).all(), table
    # The authors' most distant run is one that heavy tails give in a few suites of a hundred.
    assert table.loc["runs", "authors"] < 1.5 * table.loc["runs", "high"]
    assert table.loc["spikes", "low"] <= table.loc["spikes", "authors"] <= table.loc["spikes", "high"]
    assert table.loc["kurtosis", "middle"] > 3
