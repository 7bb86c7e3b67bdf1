"""Intervals for laws, and for anything that follows from them, out of the table of resamples.

An interval holds the middle of the resamples, a little more of it than its level says: a law with p parameters follows the
errors of its n runs, so that what is left of them, and of the resamples' spread, is too small by sqrt((n − p)/n) (as in the
degrees-of-freedom correction of standard errors, with runs for rows; put into percentiles as Hesterberg 2015, arXiv 1411.5279,
section 5.4, does for a mean). With no more than p runs there is no such factor; that of p + 1 is taken, and a warning given. The
study `simulation` measures how often such intervals hold the truth, and how often others do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import special

from gemstones.laws.fit import HuberFit
from gemstones.laws.hull import HullFit
from gemstones.laws.power_law import Allocation

Array = NDArray[np.float64]


# Share of an interval's width by which an end may be unsure, for want of resamples, without a warning.
ENDS_ERROR = 0.1


@dataclass(frozen=True)
class Uncertainty:
    """A law and the laws fitted to resamples of its rows.

    Attributes
    ----------
    fit : the law.
    resamples : as :func:`gemstones.laws.resampling.resample` gives them, or as read from `laws/<fit>.parquet`.
    level : share of suites whose interval should hold the truth.
    """

    fit: HuberFit | HullFit
    resamples: pd.DataFrame
    level: float = 0.95

    @property
    def unit(self) -> str:
        """What was resampled: run or row."""
        if self.resamples.empty:
            return "row" if self.fit.n_runs is None else "run"
        return str(self.resamples["unit"].iloc[0])

    @property
    def units(self) -> int:
        """How many there are."""
        runs = self.fit.n_runs
        return self.fit.n_rows if self.unit == "row" or runs is None else runs

    @property
    def tail(self) -> float:
        """Share of the resamples below an interval, and above it."""
        return expanded_tail(self.level, self.units, self.fit.n_parameters)

    def interval(self, of_resamples: ArrayLike) -> tuple[Array, Array]:
        """Ends (…) of a quantity's interval.

        Parameters
        ----------
        of_resamples : (resamples, …) the quantity of each resample's law; not-a-number where it has none. The ends are
            not-a-number where more of them have none than may lie beyond an end.
        """
        values = np.asarray(of_resamples, dtype=float)
        flat = values.reshape(len(values), math.prod(values.shape[1:]))
        tail = self.tail
        ends = np.full((2, flat.shape[1]), np.nan)
        for j, column in enumerate(flat.T):
            known = np.isfinite(column)
            # What a resample does not have may lie beyond either end: as long as so few have none, the ends are where they are.
            if known.any() and (~known).mean() < tail:
                ends[0, j] = np.quantile(np.where(known, column, -np.inf), tail, method="higher")
                ends[1, j] = np.quantile(np.where(known, column, np.inf), 1 - tail, method="lower")
            if known.all() and len(known):
                ends[:, j] = np.quantile(column, [tail, 1 - tail])
        low, high = ends.reshape(2, *values.shape[1:])
        return low, high

    def ends_error(self, of_resamples: ArrayLike) -> tuple[Array, Array]:
        """Standard errors (…) of the ends, from there being so many resamples and no more: the next ends by chance.

        A share p of R resamples lies below an end, give or take sqrt(p(1 − p)/R) (Wilks 1948, order statistics); half of what the
        end moves between these shares. Not-a-number where there is no interval.
        """
        values = np.asarray(of_resamples, dtype=float)
        tail = self.tail
        reach = np.sqrt(tail * (1 - tail) / len(values)) if len(values) else np.nan
        missing = ~np.isfinite(values)
        known = missing.mean(axis=0) < tail if len(values) else np.zeros(values.shape[1:], dtype=bool)
        ends = []
        for middle in (tail, 1 - tail):
            near = np.clip([middle - reach, middle + reach], 0, 1) if len(values) else [np.nan, np.nan]
            low, high = (
                np.nanquantile(np.where(missing, np.nan, values), near, axis=0) if len(values) else (np.nan, np.nan)
            )
            ends.append(np.where(known, (high - low) / 2, np.nan))
        return ends[0], ends[1]

    @property
    def name(self) -> str:
        """What to call the intervals: those of a hull hold the truth far less often than their level says (docs/intervals.md)."""
        return interval_name(self.fit, self.level)

    def quantities(self) -> pd.DataFrame:
        """What is reported of every resample: exponents, E and slope; of a hull, the slopes of its lines."""
        if isinstance(self.fit, HullFit):
            return self.resamples.filter(regex="^slope_")
        found = self.resamples.filter(regex="^(exponent_|irreducible_loss)")
        if self.fit.law.slope is None:
            return found
        return found.assign(slope=Allocation.of_laws(self.resamples, self.fit.law.covariates).a[:, 0])

    def warnings(self) -> list[str]:
        """Why there are no intervals, or why they are narrower than they should be, one sentence each."""
        if self.resamples.empty:
            return [f"no intervals: too few {self.unit}s ({self.units}) to resample"]
        found = []
        if self.unit == "row" and self.fit.n_runs is None:
            found.append(
                "rows name no run, so each was resampled for itself: if several are of one run, the intervals are too narrow"
            )
        elif self.unit == "row" and self.units != self.fit.n_runs:
            found.append(
                "rows were resampled, not runs: the intervals are too narrow, since rows of a run are not independent"
            )
        if self.units <= self.fit.n_parameters:
            found.append(
                f"{self.units} {self.unit}s for {self.fit.n_parameters} parameters: the intervals are too narrow"
            )
        if len(self.resamples) * self.tail < 1:
            found.append(
                f"{len(self.resamples)} resamples are too few for the ends of {100 * self.level:g} % intervals, which may lie "
                "further out"
            )
        quantities = self.quantities()
        low, high = self.interval(quantities)
        unsure = np.maximum(*self.ends_error(quantities)) > ENDS_ERROR * (high - low)
        if unsure.any():
            names = ", ".join(quantities.columns[unsure])
            found.append(
                f"{len(self.resamples)} resamples leave an end of the interval of {names} unsure by more than a tenth of its width"
            )
        for name in self.quantities().columns[low == high]:
            found.append(
                f"{name} has an interval without a width: it is at its bound, and so are those of the resamples"
            )
        without = int(self.quantities().isna().any(axis=1).sum())
        if without > self.tail * len(self.resamples):
            what = (
                "too few points on their hull for a line"
                if isinstance(self.fit, HullFit)
                else "no slope, with an exponent at 0"
            )
            found.append(f"{without} of {len(self.resamples)} resamples have {what}")
        return found

    def to_json(self) -> dict[str, Any]:
        """What a law's JSON says of its intervals: how they were made, and [low, high] by quantity."""
        quantities = self.quantities()
        ends = np.stack(self.interval(quantities), axis=-1)
        errors = np.stack(self.ends_error(quantities), axis=-1)
        return {
            "level": self.level,
            "name": self.name,
            "method": "expanded percentile",
            "resampling": "drawn with replacement" if isinstance(self.fit, HullFit) else "random weights",
            "unit": self.unit,
            "units": self.units,
            "resamples": len(self.resamples),
            "warnings": self.warnings(),
            "quantities": {
                name: None if np.isnan(pair).any() else pair.tolist()
                for name, pair in zip(quantities, ends, strict=True)
            },
            "ends_standard_error": {
                name: None if np.isnan(pair).any() else pair.tolist()
                for name, pair in zip(quantities, errors, strict=True)
            },
        }


def interval_name(fit: HuberFit | HullFit, level: float) -> str:
    """What to call intervals of a level: "95 % interval", or for a hull the "middle 95 %" of its resamples, which is none."""
    return f"middle {100 * level:g} %" if isinstance(fit, HullFit) else f"{100 * level:g} % interval"


def expanded_tail(level: float, units: int, parameters: int) -> float:
    """Share of the resamples below an interval, and above it, of a law with so many parameters fitted to so many units."""
    expansion = np.sqrt(units / (units - parameters) if units > parameters else parameters + 1)
    return float(special.ndtr(special.ndtri((1 - level) / 2) * expansion))
