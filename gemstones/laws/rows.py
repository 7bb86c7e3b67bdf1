"""What a fit records about the rows it has seen."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd


def number_of_runs(table: pd.DataFrame) -> int | None:
    """Distinct runs of the rows; None where some row names none."""
    if "run" not in table or table["run"].isna().any():
        return None
    return int(table["run"].nunique())


def rows_sha256(values: NDArray[np.float64], columns: Sequence[str]) -> str:
    """Hash of the numbers that a fit has seen, whatever their order: column names and sorted (n, k) float64."""
    digest = hashlib.sha256(",".join(columns).encode())
    digest.update(np.ascontiguousarray(in_canonical_order(values), dtype="<f8").tobytes())
    return digest.hexdigest()


def in_canonical_order(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of (n, k) sorted by their first column, then the second, and so on."""
    return values[np.lexsort(values.T[::-1])]
