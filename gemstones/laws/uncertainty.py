"""Intervals for laws and for anything that follows from them, out of the table of resamples.

Intervals are bias-corrected and accelerated (BCa; Efron 1987), with the levels of Student's t for the number of runs, since
a bootstrap of few units is too narrow (Hesterberg 2015, arXiv 1411.5279, section 5.4). The study `simulation` measures how
often they hold the truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from gemstones.laws.fit import HuberFit
from gemstones.laws.hull import HullFit

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Draws:
    """A law, and the laws fitted to resamples of its rows and to its rows without each run.

    Attributes
    ----------
    fit : the law.
    table : as :func:`gemstones.laws.resampling.resample` gives it, or as read from `laws/<fit>.parquet`.
    """

    fit: HuberFit | HullFit
    table: pd.DataFrame

    @property
    def unit(self) -> str:
        return str(self.table["unit"].iloc[0])

    @property
    def resamples(self) -> int:
        return int((self.table["kind"] == "resample").sum())

    @property
    def units(self) -> int:
        """Runs, or rows, that were resampled."""
        runs = self.fit.n_runs
        return self.fit.n_rows if self.unit == "row" or runs is None else runs

    def interval(self, estimate: ArrayLike, of_draws: ArrayLike, level: float = 0.95) -> tuple[Array, Array]:
        """Interval of a quantity.

        Parameters
        ----------
        estimate : (…) the quantity of the law itself.
        of_draws : (rows of the table, …) the quantity of each of its laws.

        Returns
        -------
        Low and high ends (…); not-a-number where too few of the draws have the quantity.
        """
        values = np.asarray(of_draws, dtype=float)
        resampled = (self.table["kind"] == "resample").to_numpy()
        return bca(np.asarray(estimate, dtype=float), values[resampled], values[~resampled], self.units, level)

    def quantities(self) -> pd.DataFrame:
        """What is reported of each law in the table: exponents, E and slope; of a hull, the slopes of its lines."""
        if isinstance(self.fit, HullFit):
            return self.table.filter(regex="^slope_")
        found = self.table.filter(regex="^(exponent_|irreducible_loss)")
        if self.fit.law.slope is not None:
            alpha, beta = found["exponent_params"], found["exponent_tokens"]
            total = (alpha + beta).where(alpha + beta > 0)
            found = found.assign(slope=beta / total)
        return found

    def intervals(self, level: float = 0.95) -> dict[str, Any]:
        """What a law's JSON says of its intervals: how they were made, and [low, high] by quantity."""
        quantities = self.quantities()
        low, high = self.interval([self._estimate(name) for name in quantities], quantities.to_numpy(), level)
        ends = np.stack([low, high], axis=-1).tolist()
        return {
            "level": level,
            "method": "bca",
            "unit": self.unit,
            "units": self.units,
            "resamples": self.resamples,
            "quantities": {
                name: None if np.isnan(pair).any() else pair for name, pair in zip(quantities, ends, strict=True)
            },
        }

    def _estimate(self, name: str) -> float:
        if isinstance(self.fit, HullFit):
            return self.fit.lines[name.removeprefix("slope_")].slope
        law = self.fit.law
        if name == "slope":
            return float("nan") if law.slope is None else law.slope
        if name == "irreducible_loss":
            return law.irreducible_loss
        return dict(zip(law.covariates, law.exponents, strict=True))[name.removeprefix("exponent_")]


def bca(estimate: Array, resampled: Array, left_out: Array, units: int, level: float = 0.95) -> tuple[Array, Array]:
    """BCa interval, its level widened as Student's t is wider than the normal distribution.

    Parameters
    ----------
    estimate : (…) of all rows; resampled : (B, …) of resamples; left_out : (units, …) without each unit, or (0, …).
    units : number of units that were resampled.

    Returns
    -------
    Low and high ends (…).
    """
    shape = estimate.shape
    flat = resampled.reshape(len(resampled), -1)
    known = np.isfinite(flat)
    flat = np.where(known, flat, np.nan)
    enough = known.mean(0) > 0.5 if len(flat) else np.zeros(flat.shape[1], dtype=bool)
    ends = np.full((2, flat.shape[1]), np.nan)
    # Half the draws that equal the estimate (E = 0, for one) lie below it.
    point = estimate.reshape(-1)
    below = np.sum((flat < point) + 0.5 * (flat == point), axis=0) / np.maximum(known.sum(0), 1)
    bias = stats.norm.ppf(np.clip(below, 0.5 / max(len(flat), 1), 1 - 0.5 / max(len(flat), 1)))
    influence = left_out.reshape(len(left_out), -1) if len(left_out) else np.zeros((1, flat.shape[1]))
    influence = np.nan_to_num(np.nanmean(np.where(np.isfinite(influence), influence, np.nan), axis=0) - influence)
    spread = (influence**2).sum(0) ** 1.5
    acceleration = np.divide((influence**3).sum(0), 6 * spread, out=np.zeros_like(spread), where=spread > 0)
    t = stats.t.ppf((1 + level) / 2, max(units - 1, 1)) * np.sqrt(units / max(units - 1, 1))
    for i, z in enumerate((-t, t)):
        shifted = bias + z
        share = stats.norm.cdf(bias + shifted / np.maximum(1 - acceleration * shifted, 0.1))
        for j in np.flatnonzero(enough & np.isfinite(point)):
            ends[i, j] = np.quantile(flat[known[:, j], j], share[j])
    return ends[0].reshape(shape), ends[1].reshape(shape)
