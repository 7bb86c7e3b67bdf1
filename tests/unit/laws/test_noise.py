"""The noise of runs: between seeds of a shape where there are several, around the law elsewhere."""

import numpy as np
import pandas as pd
import pytest

from gemstones.laws import fit_huber
from gemstones.laws.noise import RunNoise, run_noise
from gemstones.laws.power_law import PowerLaw


def suite(
    law: PowerLaw, runs: int, seeds: int, sd: float, of_shape: float, generator: np.random.Generator
) -> pd.DataFrame:
    """Runs of shapes whose losses lie off a law by what the shape has, and by what each seed has."""
    rows = []
    for i in range(runs):
        shape = of_shape * generator.standard_normal()
        for seed in range(seeds):
            off = shape + sd * generator.standard_normal()
            for step in range(1, 9):
                noise = 1e-4 * generator.standard_normal()
                params, tokens = 1e7 * 1.4**i, 1e8 * step
                loss = float(law.predict({"params": params, "tokens": tokens})) * np.exp(off + noise)
                rows.append((f"{i}-{seed}", "replicate" if seed else "main", i, 1, seed, step, params, tokens, loss))
    return pd.DataFrame(rows, columns=["run", "phase", "width", "depth", "seed", "step", "params", "tokens", "loss"])


def test_seeds_of_a_shape_say_it_whatever_the_law_misses(law):
    rows = suite(law, 20, 3, 0.004, 0.03, np.random.default_rng(0))
    noise = run_noise(fit_huber(rows), rows)
    assert noise.seeds == pytest.approx(0.004, rel=0.3)
    # A shape that is not trained yet lies off by what the law misses, too.
    assert noise.source == "residuals"
    assert noise.run > 0.015
    assert 5e-5 < noise.within < 2e-4  # what the fit misses along runs is in it


@pytest.mark.parametrize("dropped", ["seed", "phase"])
def test_without_seeds_it_is_that_of_runs_around_the_law(law, dropped):
    rows = suite(law, 24, 1, 0.004, 0.0, np.random.default_rng(1)).drop(columns=[dropped])
    noise = run_noise(fit_huber(rows), rows)
    assert (noise.source, noise.runs, noise.degrees_of_freedom) == ("residuals", 24, 19)
    assert noise.run == pytest.approx(0.004, rel=0.4)
    assert noise.seeds is None


def test_rows_without_runs_have_none(law):
    rows = suite(law, 8, 1, 0.004, 0.0, np.random.default_rng(2))
    fit = fit_huber(rows)
    assert run_noise(fit, rows.drop(columns=["run"])) is None
    assert run_noise(fit, rows[rows["run"] == "0-0"]) is None


def test_few_degrees_of_freedom_widen_the_interval():
    few, many = (RunNoise(0.003, 0.0, "residuals", 22, freedom) for freedom in (2, 1000))
    assert many.half_width(0.95) == pytest.approx(1.96 * 0.003, rel=1e-2)
    assert few.half_width(0.95) > 2 * many.half_width(0.95)
    assert RunNoise.from_json(few.to_json()) == few
