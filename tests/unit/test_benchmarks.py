"""The benchmarks say how they are run, and that of laws compares like with like. Speed itself is not tested."""

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import approx_fprime

from gemstones.laws import fit_huber

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize("example", ["laws.py --starts", "prescriptions.py --every-row"])
def test_help_has_an_example(example):
    script = BENCHMARKS / example.split()[0]
    done = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert f"python benchmarks/{example}" in done.stdout


def test_all_methods_minimise_our_objective(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    methods = importlib.import_module("methods")
    random = np.random.default_rng(0)
    rows = pd.DataFrame({"params": random.uniform(5e7, 2e9, 60), "tokens": random.uniform(2e9, 3e11, 60)})
    rows["loss"] = (1.5 + 130 / rows["params"] ** 0.3 + 1.5e4 / rows["tokens"] ** 0.45) * random.normal(1, 0.01, 60)
    case = methods.Case("synthetic", rows, ("params", "tokens"), 1e-3)
    fit = fit_huber(rows, huber_delta=1e-3)
    law = fit.law
    theta = np.array([*law.exponents, *law.log_coefficients, np.log(law.irreducible_loss)])
    assert methods.objective(law, case) == pytest.approx(fit.objective, rel=1e-9)
    data = case.log_x, case.log_loss, case.delta
    assert methods.reference_objective(theta, *data) == pytest.approx(fit.objective, rel=1e-9)

    theta = theta * 1.01
    value, gradient = methods.objective_and_gradient(theta, *data)
    assert value == pytest.approx(methods.reference_objective(theta, *data), rel=1e-12)
    assert gradient == pytest.approx(approx_fprime(theta, methods.reference_objective, 1e-8, *data), rel=1e-4)

    # Centred covariates make another parametrisation of the same law.
    log_x, centre = case.log_x, case.log_x.mean(0)
    shifted = methods.centred(theta[None], centre)[0]
    assert methods.reference_objective(shifted, log_x - centre, *data[1:]) == pytest.approx(value, rel=1e-9)

    # L-BFGS-B from the grid ends no lower than our fit, also where the objective is scaled and covariates centred.
    result = methods.lbfgs("", case, 20, gradient=True, scaled=True, options=methods.TIGHT)
    assert (result.starts, result.grid) == (20, 4500)
    assert result.best == pytest.approx(fit.objective, rel=1e-9)


def test_the_grid_is_the_published_one(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    methods = importlib.import_module("methods")
    assert [methods.grid_starts(k, 1)[1] for k in (2, 3, 4)] == [4500, 135_000, 4_050_000]
    starts, _ = methods.grid_starts(2, 4500)
    assert len(np.unique(starts, axis=0)) == 4500
