"""Losses that follow a known law."""

import numpy as np
import pandas as pd
import pytest

from gemstones.laws import PowerLaw
from gemstones.suite import counting

SHAPES = [
    (256, 23),
    (256, 71),
    (512, 12),
    (768, 3),
    (768, 45),
    (1280, 15),
    (1024, 28),
    (2560, 8),
    (1536, 50),
    (3072, 12),
]


@pytest.fixture(scope="session")
def law() -> PowerLaw:
    return PowerLaw(("params", "tokens"), (0.34, 0.28), (6.0, 6.4), 1.7)


@pytest.fixture(scope="session")
def wide_law() -> PowerLaw:
    return PowerLaw(("width", "depth", "params", "tokens"), (0.4, 0.5, 0.35, 0.5), (1.8, 0.2, 5.5, 10.5), 1.2)


@pytest.fixture(scope="session")
def grid() -> pd.DataFrame:
    """Ten shapes at twelve numbers of tokens, without losses."""
    rows = [
        {
            "run": f"{width}x{depth}",
            "step": step,
            "width": width,
            "depth": depth,
            "params": float(counting.params(width, depth)),
            "params_no_embeddings": float(counting.params_no_embeddings(width, depth)),
            "tokens": step * 4_194_304.0,
            "flops": counting.flops_per_token(width, depth) * step * 4_194_304.0,
        }
        for width, depth in SHAPES
        for step in range(2000, 26_000, 2000)
    ]
    return pd.DataFrame(rows)


@pytest.fixture(scope="session")
def noisy(grid: pd.DataFrame, law: PowerLaw) -> pd.DataFrame:
    """The law with 0.3 % noise, and every tenth loss 5 % too high."""
    generator = np.random.default_rng(1)
    log_noise = generator.normal(0, 3e-3, len(grid))
    log_noise[::10] += 0.05
    return grid.assign(loss=law.predict(grid) * np.exp(log_noise))
