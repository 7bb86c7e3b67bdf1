"""How depth grows with width along the optimum: as a power of it, or with its logarithm, as Levine et al. (2020) propose.

Source of the second form: Levine et al., "The Depth-to-Width Interplay in Self-Attention" (arXiv 2006.12467): log width = a + b·depth.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gemstones.laws.fit import HuberFit
from gemstones.laws.uncertainty import Uncertainty
from gemstones.prescriptions.bands import Laws, relaxed_optima
from gemstones.prescriptions.search import Search
from gemstones.study import Suite

Array = NDArray[np.float64]

BUDGETS = 9
# Exponents of depth ∝ width^b that are called a straight line of the one against the other.
NAMES = {"exponent": "b of depth ∝ width^b", "log_width_per_layer": "b of log width = a + b·depth"}


def depth_width(uncertainty: Uncertainty, suite: Suite, ranges: dict[str, tuple[float, float]]) -> pd.DataFrame:
    """Growth of the optimal depth with the optimal width, by a fit and by its resamples.

    Parameters
    ----------
    uncertainty : of a law of width and depth.
    ranges : of budgets in FLOPs, by name.

    Returns
    -------
    A row a range: name, `from` and `to` (FLOPs), and for each of both forms its coefficient with the ends of its interval and what it
    leaves of log depth (root mean square, of the fit itself, %). Empty for laws that know no shape or have no optimum.
    """
    law = uncertainty.fit.law if isinstance(uncertainty.fit, HuberFit) else None
    if law is None or not {"width", "depth"} <= set(law.roles) or law.no_optimum():
        return pd.DataFrame()
    search, rows = Search.of(law, suite), []
    for name, (low, high) in ranges.items():
        budgets = np.geomspace(low, high, BUDGETS)
        width, depth = (np.log(each)[None] for each in search.relaxed(budgets))
        row: dict[str, object] = {"budgets": name, "FLOPs from": low, "to": high}
        of_resamples = None
        if not uncertainty.resamples.empty:
            optima = relaxed_optima(Laws(law, uncertainty.resamples), search, budgets)
            of_resamples = np.log(optima["width"]), np.log(optima["depth"])
        for form, label in NAMES.items():
            row[label] = float(_slope(form, width, depth)[0])
            row[f"{label}, from"], row[f"{label}, to"] = np.nan, np.nan
            if of_resamples is not None:
                ends = uncertainty.interval(_slope(form, *of_resamples))
                row[f"{label}, from"], row[f"{label}, to"] = (float(end) for end in ends)
            row[f"{label}: off by, %"] = 100 * _left(form, width[0], depth[0])
        rows.append(row)
    return pd.DataFrame(rows)


def _slope(form: str, log_width: Array, log_depth: Array) -> Array:
    """Least-squares coefficient (R,) of each law's optima (R, m)."""
    x, y = (log_width, log_depth) if form == "exponent" else (np.exp(log_depth), log_width)
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((x * y).sum(1) / (x * x).sum(1))


def _left(form: str, log_width: Array, log_depth: Array) -> float:
    """Root mean square of what the form leaves of log depth (m,)."""
    x, y = (log_width, log_depth) if form == "exponent" else (log_width, np.exp(log_depth))
    expected = np.polyval(np.polyfit(x, y, 1), x)
    left = log_depth - (expected if form == "exponent" else np.log(np.maximum(expected, 1e-9)))
    return float(np.sqrt(np.mean(left**2)))
