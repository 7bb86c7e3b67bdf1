"""A permutation of any length that is computed element by element, so that no process has to hold it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

ROUNDS = 8


def permuted(places: NDArray[np.int64], length: int, seed: Sequence[int]) -> NDArray[np.int64]:
    """What a random permutation of range(`length`) has at `places`; the seed decides the permutation.

    A Feistel network over a grid just larger than the range; what falls outside is sent through it again until it is
    inside (Black & Rogaway, "Ciphers with Arbitrary Finite Domains", 2002). So it is a permutation exactly, in memory
    proportional to `places`. Its numbers are fixed by this file and numpy's SeedSequence, which is stable by contract.

    Parameters
    ----------
    places : (n,) ints in range(`length`).
    """
    rows = math.isqrt(length - 1) + 1
    columns = -(-length // rows)
    keys = np.random.SeedSequence(list(seed)).generate_state(ROUNDS, np.uint64)
    found = places.astype(np.uint64)
    outside = np.arange(len(found))
    while len(outside):
        row, column = np.divmod(found[outside], np.uint64(columns))
        for number, key in enumerate(keys):
            if number % 2:
                column = (column + _mixed(row, key) % np.uint64(columns)) % np.uint64(columns)
            else:
                row = (row + _mixed(column, key) % np.uint64(rows)) % np.uint64(rows)
        found[outside] = row * np.uint64(columns) + column
        outside = outside[found[outside] >= length]
    return found.astype(np.int64)


def _mixed(values: NDArray[np.uint64], key: np.uint64) -> NDArray[np.uint64]:
    """A hash of 64 bits (the finaliser of SplitMix64); sums and products wrap on purpose."""
    mixed = values * np.uint64(0x9E3779B97F4A7C15) + key
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
