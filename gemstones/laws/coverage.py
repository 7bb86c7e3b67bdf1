"""How often intervals hold the truth: many simulated suites, a law fitted to each, intervals by several methods.

`run, expanded percentile` is what the package gives, by its own code (:mod:`~gemstones.laws.resampling`,
:mod:`~gemstones.laws.uncertainty`); the other methods are here to be compared with it, and only here.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from gemstones.laws.fit import HuberFit
from gemstones.laws.hull import HullFit
from gemstones.laws.resampling import refit, resample
from gemstones.laws.uncertainty import Uncertainty
from gemstones.study import Bootstrap

Array = NDArray[np.float64]
Ends = tuple[Array, Array]
Quantities = Callable[[pd.DataFrame], pd.DataFrame]

DEFAULT = "run, expanded percentile"
METHODS = (
    DEFAULT,
    "run, percentile",
    "row, percentile",
)
# Resamples by row are far off, however many there are: one in so many does.
FEWER = 4


def coverage(parts: pd.DataFrame) -> pd.DataFrame:
    """Share of suites whose interval holds the truth, by scenario, quantity and method.

    Parameters
    ----------
    parts : rows of :func:`gemstones.prescriptions.coverage.part_of`.

    Returns
    -------
    scenario, quantity, method, truth, suites, coverage, coverage_low and coverage_high (95 % Wilson interval of a share of so many
    suites), too_low and too_high (shares of intervals that lie below, above the truth), without_interval (share, counted as not
    holding it), median_width, median_estimate.
    """
    held = (parts["low"] <= parts["truth"]) & (parts["truth"] <= parts["high"])
    columns = {
        "held": held,
        "too_low": parts["high"] < parts["truth"],
        "too_high": parts["low"] > parts["truth"],
        "without": parts["low"].isna(),
        "width": parts["high"] - parts["low"],
    }
    groups = parts.assign(**columns).groupby(["scenario", "quantity", "method"], sort=False)
    table = groups.agg(
        truth=("truth", "first"),
        suites=("suite", "size"),
        coverage=("held", "mean"),
        too_low=("too_low", "mean"),
        too_high=("too_high", "mean"),
        without_interval=("without", "mean"),
        median_width=("width", "median"),
        median_estimate=("estimate", "median"),
    ).reset_index()
    low, high = _wilson(table["coverage"].to_numpy(), table["suites"].to_numpy())
    after = table.columns.get_loc("coverage") + 1
    table.insert(after, "coverage_low", low)
    table.insert(after + 1, "coverage_high", high)
    return table


def _wilson(share: Array, number: Array) -> Ends:
    """Binomial 95 % interval of a share of `number` trials (Wilson 1927), which does not vanish at 0 and 1."""
    z2 = stats.norm.ppf(0.975) ** 2
    middle = (share + z2 / (2 * number)) / (1 + z2 / number)
    half = np.sqrt(z2 * (share * (1 - share) + z2 / (4 * number)) / number) / (1 + z2 / number)
    # Rounding must not put an end past the share.
    return np.minimum(middle - half, share), np.maximum(middle + half, share)


def side_by_side(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """For reading: by title, coverage in percent with its binomial interval, and median widths, one column a method."""
    columns = zip(table["coverage"], table["coverage_low"], table["coverage_high"], strict=True)
    percent = [f"{100 * share:.0f} ({100 * low:.0f}–{100 * high:.0f})" for share, low, high in columns]
    table = table.assign(percent=percent)
    found = {}
    for scenario, rows in table.groupby("scenario", sort=False):
        for title, column in ((f"{scenario}: coverage, %", "percent"), (f"{scenario}: median width", "median_width")):
            wide = rows.pivot(index="quantity", columns="method", values=column)
            wide = wide.loc[rows["quantity"].unique(), rows["method"].unique()]
            found[title] = wide.rename_axis(columns=None).reset_index()
    return found


def intervals(
    fit: HuberFit | HullFit,
    rows: pd.DataFrame,
    quantities: Quantities,
    truth: pd.Series[float],
    bootstrap: Bootstrap,
    generator: np.random.Generator,
) -> pd.DataFrame:
    """Intervals of the quantities of one fit by every method.

    Parameters
    ----------
    quantities : of each law of a table, as :func:`~gemstones.laws.resampling.resample` gives it.
    truth : what they are; those that the law has not are left out.

    Returns
    -------
    One row a method and quantity: quantity, method, truth, estimate, low, high.
    """
    seed, runs, tail = int(generator.integers(2**31)), int(fit.n_runs or 0), (1 - bootstrap.level) / 2
    uncertainty = Uncertainty(fit, resample(fit, rows, bootstrap, seed), bootstrap.level)
    of_runs = quantities(uncertainty.resamples).to_numpy()
    own = quantities(refit(fit, rows, np.ones((1, runs))))
    estimate = own.iloc[0].to_numpy(float)
    fewer = bootstrap.model_copy(update={"unit": "row", "resamples": max(1, bootstrap.resamples // FEWER)})
    ends: dict[str, Ends] = {
        DEFAULT: uncertainty.interval(of_runs),
        "run, percentile": _percentile(of_runs, tail),
        "row, percentile": _percentile(quantities(resample(fit, rows, fewer, seed)).to_numpy(), tail),
    }
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "quantity": own.columns,
                    "method": method,
                    "truth": truth.reindex(own.columns).to_numpy(float),
                    "estimate": estimate,
                    "low": ends[method][0],
                    "high": ends[method][1],
                }
            )
            for method in METHODS
        ],
        ignore_index=True,
    )


def _percentile(values: Array, tail: float) -> Ends:
    if not len(values):  # too few runs to resample
        return np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    low, high = np.nanquantile(np.where(np.isfinite(values), values, np.nan), [tail, 1 - tail], axis=0)
    return low, high
