"""The rows that a law is fitted to, as numbers, and what a fit records about them."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy
from numpy.typing import NDArray

from gemstones import __version__
from gemstones.laws.power_law import positive_columns

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Rows:
    """Rows of a table in one canonical order, so that sums, and with them fits, do not depend on the table's.

    Attributes
    ----------
    values : (n, m) the columns asked for, all positive and finite.
    weights : (n,) weight of each row, 1 on average; None for ones.
    runs : (n,) number of the run that a row belongs to; None where some row names none.
    order : (n,) position of each row in the table.
    """

    values: Array
    weights: Array | None
    runs: NDArray[np.intp] | None
    order: NDArray[np.intp]

    @property
    def n_runs(self) -> int | None:
        return None if self.runs is None else int(self.runs.max()) + 1


def read_rows(table: pd.DataFrame, columns: Sequence[str], source: str, weights: str | None = None) -> Rows:
    """Columns of a table as numbers.

    A cooldown counts with the run that it branches from: it shares that run's past, so the two are not independent.

    Raises
    ------
    UserError
        If a column is missing or holds what has no logarithm, naming the source, the row and the column.
    """
    values = positive_columns(table, columns, source)
    weight = positive_columns(table, (weights,), source)[:, 0] if weights else None
    if weight is not None and len(weight):
        weight = weight / weight.max()
        weight = weight / weight.mean()
    order = np.lexsort(values.T[::-1])
    runs = None
    names = run_names(table)
    if names is not None:
        runs = np.unique(names, return_inverse=True)[1].astype(np.intp)[order]
    return Rows(values[order], None if weight is None else weight[order], runs, order)


def run_names(table: pd.DataFrame) -> NDArray[np.str_] | None:
    """The run of each row, a cooldown's being its parent; None where some row names none."""
    if "run" not in table or not len(table) or table["run"].isna().any():
        return None
    names = table["parent"].fillna(table["run"]) if {"parent", "phase"} <= set(table) else table["run"]
    return names.to_numpy(dtype=str)


def shape_families(table: pd.DataFrame) -> NDArray[np.str_] | None:
    """As :func:`run_names`, but replicates of a shape go with its main run: what is held out must leave nothing of its shape behind."""
    names = run_names(table)
    if names is None or "phase" not in table:
        return names
    replicate = (table["phase"] == "replicate").fillna(False).to_numpy(dtype=bool)
    return np.where(replicate, np.char.partition(names, "-seed_")[:, 0], names)


def rows_sha256(values: Array, columns: Sequence[str]) -> str:
    """Hash of the numbers that a fit has seen, whatever their order: column names and sorted (n, k) float64."""
    digest = hashlib.sha256(",".join(columns).encode())
    values = values[np.lexsort(values.T[::-1])]
    digest.update(np.ascontiguousarray(values, dtype="<f8").tobytes())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """What a fit was computed with."""
    return {
        "gemstones": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }
