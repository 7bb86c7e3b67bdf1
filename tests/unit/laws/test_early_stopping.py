"""The authors' optimiser is run as they ran it, and what the lowest of n ends is follows from all ways to draw n."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.special import huber

from gemstones.laws import fit_huber
from gemstones.laws.early_stopping import (
    best_of,
    early_stopping,
    grid_starts,
    reference_ends,
    reference_objective,
    with_numerical_gradient,
)

DELTA = 1e-3


@pytest.fixture(scope="module")
def logs(noisy):
    return np.log(noisy[["params", "tokens"]].to_numpy(float)), np.log(noisy["loss"].to_numpy(float))


def test_objective_is_the_plain_sum_of_huber_losses(noisy, logs):
    law = fit_huber(noisy, huber_delta=DELTA)
    theta = np.array([*law.law.exponents, *law.law.log_coefficients, np.log(law.law.irreducible_loss)])
    assert reference_objective(theta, *logs, DELTA) == pytest.approx(law.objective, rel=1e-9)
    residuals = logs[1] - np.log(law.law.predict(noisy))
    assert reference_objective(np.stack([theta, theta]), *logs, DELTA) == pytest.approx(
        [huber(DELTA, residuals).sum()] * 2, rel=1e-9
    )


def test_ends_are_those_of_scipys_own_numerical_gradients(logs):
    for start in grid_starts(2, 3, seed=1)[0]:
        theirs = minimize(lambda theta: float(reference_objective(theta, *logs, DELTA)), start, method="L-BFGS-B")
        same = minimize(with_numerical_gradient(*logs, DELTA), start, jac=True, method="L-BFGS-B")
        assert same.fun == theirs.fun
        assert list(same.x) == list(theirs.x)


def test_the_sample_is_of_the_published_grid_and_seeded():
    starts, size = grid_starts(2, 20, seed=3)
    assert size == 4500
    assert len(np.unique(starts, axis=0)) == 20
    assert (starts[:, 4] <= 1).all()
    assert (starts == grid_starts(2, 20, seed=3)[0]).all()
    assert not (starts == grid_starts(2, 20, seed=4)[0]).all()
    assert len(grid_starts(2, 10_000)[0]) == size


@pytest.mark.parametrize("count", [1, 3, 6])
def test_the_lowest_of_n_is_over_all_ways_to_draw_n(count):
    ends = pd.DataFrame({"objective": [1.0, 2, 3, 4, 5, np.inf], "slope": [0.7, 0.2, 0.9, 0.4, 0.1, 0.3]})
    found = best_of(ends, count)
    best = [min(way, key=lambda i: ends["objective"][i]) for way in combinations(range(6), count)]
    for name in ("objective", "slope"):
        drawn = np.sort(ends[name].to_numpy()[best])
        for which, share in (("median", 0.5), ("low", 0.05), ("high", 0.95)):
            assert found[f"{name}_{which}"] == drawn[int(np.ceil(share * len(drawn) - 1e-9)) - 1]


def test_an_end_that_failed_counts_for_nothing(monkeypatch, logs):
    import gemstones.laws.early_stopping as module

    class End:
        x, fun, success = np.array([0.3, 0.6, 1.0, 1.0, 0.0]), 1e-9, False

    monkeypatch.setattr(module, "scipy_minimize", lambda *_, **__: End)
    assert list(reference_ends(np.zeros((2, 5)), *logs, DELTA)["objective"]) == [np.inf, np.inf]


def test_every_number_of_our_starts_reaches_what_theirs_do_not_go_below(noisy):
    table = early_stopping(noisy, "noisy", [1e-3, 1e-4], 12)
    fit = fit_huber(noisy, huber_delta=1e-4)
    for delta, rows in table.groupby("huber_delta"):
        theirs, ours = (rows[rows["optimizer"] == name].set_index("starts") for name in ("reference", "ours"))
        assert list(theirs.index) == [1, 2, 4, 8, 12]
        assert list(ours.index) == [1, 2, 4, 8]
        assert theirs["objective_median"].is_monotonic_decreasing
        assert (theirs["objective_low"] > ours["objective_median"].min() * (1 - 1e-9)).all()
        assert ours["objective_median"].max() == pytest.approx(ours["objective_median"].min(), rel=1e-9)
        if delta == 1e-4:
            assert ours["slope_median"].to_list() == pytest.approx([fit.law.slope] * 4, rel=1e-6)
    assert (table["grid"] == 4500).all()
    assert (table["sampled"] == 12).all()
