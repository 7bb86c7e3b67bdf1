"""How often intervals hold the truth: many simulated suites, a law fitted to each, intervals by several methods.

`run, expanded percentile` is what the package gives, by its own code (:mod:`~gemstones.laws.resampling`,
:mod:`~gemstones.laws.uncertainty`); the other methods are here to be compared with it, and only here. `drawn` are runs that are
drawn with replacement, as a hull's always are.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from gemstones.laws.fit import HuberFit, fit_huber, laws_of, phi_of, problem_of
from gemstones.laws.hull import HullFit, fit_hull
from gemstones.laws.minimize import minimize, predict
from gemstones.laws.power_law import Allocation, PowerLaw, exponent_names, factors, has_closed_form
from gemstones.laws.resampling import FIRST_DELTA, TOLERANCE, names_of, refit, resample
from gemstones.laws.rows import read_rows
from gemstones.laws.simulation import checkpoints, law_of, suite
from gemstones.laws.uncertainty import Uncertainty
from gemstones.study import Bootstrap, Scenario, Simulation, Study
from gemstones.suite import counting
from gemstones.suite.shapes import architecture, parse

Array = NDArray[np.float64]
Ends = tuple[Array, Array]
Quantities = Callable[[pd.DataFrame], pd.DataFrame]

DEFAULT = "run, expanded percentile"
METHODS = (
    DEFAULT,
    "run, percentile",
    "run, drawn, t",
    "run, BCa",
    "run, jackknife t",
    "run, wild",
    "row, percentile",
)
# Methods that are far off with any number of resamples take this share of them.
FEWER = 4
# BCa maps levels by the share of resamples below the estimate, which is kept away from 0 and 1.
SMALLEST_SHARE = 1e-3


def part_of(study: Study, name: str, part: int) -> pd.DataFrame:
    """Intervals of one part of a scenario's suites; a suite is the same whatever the number of parts.

    Returns
    -------
    One row a suite, method and quantity: scenario, suite, quantity, method, truth, estimate, low, high.
    """
    if study.simulation is None:
        raise ValueError("the study has no section simulation")
    scenario = study.simulation.scenarios[name]
    rows = checkpoints(study, scenario.shapes)
    found = []
    for number in range(part, scenario.suites, study.simulation.parts):
        generator = np.random.default_rng([study.seed, zlib.crc32(name.encode()), number])
        found.append(_intervals(study, study.simulation, scenario, rows, generator).assign(scenario=name, suite=number))
    return pd.concat(found, ignore_index=True)


def coverage(parts: pd.DataFrame) -> pd.DataFrame:
    """Share of suites whose interval holds the truth, by scenario, quantity and method.

    Parameters
    ----------
    parts : rows of :func:`part_of`.

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


def _intervals(
    study: Study, simulation: Simulation, scenario: Scenario, rows: pd.DataFrame, generator: np.random.Generator
) -> pd.DataFrame:
    """Intervals of one suite, of the law's quantities and of its hull's lines."""
    truth = law_of(simulation.laws[scenario.law])
    losses = suite(rows, simulation.laws[scenario.law], generator)
    bootstrap = study.bootstrap.model_copy(update={"resamples": scenario.resamples})

    def of_law(laws: pd.DataFrame) -> pd.DataFrame:
        return _of_law(laws, truth.covariates, study, simulation)

    law = _methods(fit_huber(losses, truth.covariates), losses, of_law, _row(truth), bootstrap, generator)
    # A finite suite has a hull of its own without any error, and that is what its intervals are about.
    clean = rows.assign(loss=truth.predict(rows))
    hull = _methods(fit_hull(losses), losses, _of_hull, _row(fit_hull(clean)), bootstrap, generator)
    return pd.concat([law, hull], ignore_index=True)


def _row(law: PowerLaw | HullFit) -> pd.DataFrame:
    """A law as a table of resamples has it."""
    if isinstance(law, HullFit):
        return pd.DataFrame([{f"slope_{name}": line.slope for name, line in law.lines.items()}])
    coefficients = (f"log_coefficient_{term}" for term in law.covariates)
    columns = {"irreducible_loss": law.irreducible_loss}
    columns |= dict(zip(exponent_names(law.covariates), law.flat_exponents, strict=True))
    return pd.DataFrame([columns | dict(zip(coefficients, law.log_coefficients, strict=True))])


def _of_law(laws: pd.DataFrame, covariates: tuple[str, ...], study: Study, simulation: Simulation) -> pd.DataFrame:
    """Exponents, E, the log of the loss predicted ahead; where N* has a closed form also slope a and log N* (T* = C/6N*)."""
    width, depth = parse(simulation.ahead[0])
    params = counting.params(width, depth, architecture(study.suite))
    at = {"params": params, "tokens": simulation.ahead[1], "width": width, "depth": depth}
    exponents = laws[exponent_names(covariates)]
    loss, names = laws["irreducible_loss"], iter(exponents)
    for term in covariates:
        power = sum(laws[next(names)] * np.log(at[role]) for role in factors(term))
        loss = loss + np.exp(laws[f"log_coefficient_{term}"] - power)
    quantities = {name: exponents[name] for name in exponents}
    quantities |= {"irreducible_loss": laws["irreducible_loss"], "log_loss_ahead": np.log(loss)}
    if has_closed_form(covariates):
        allocation = Allocation.of_laws(laws, covariates)
        quantities["slope"] = allocation.a[:, 0]
        quantities["log_optimal_params"] = allocation.log_params(simulation.flops)[:, 0]
    return pd.DataFrame(quantities)


def _of_hull(laws: pd.DataFrame) -> pd.DataFrame:
    return laws.filter(regex="^slope_").add_prefix("hull_")


def _methods(
    fit: HuberFit | HullFit,
    rows: pd.DataFrame,
    quantities: Quantities,
    truth: pd.DataFrame,
    bootstrap: Bootstrap,
    generator: np.random.Generator,
) -> pd.DataFrame:
    """Intervals of the quantities of one fit by every method; a hull has no weights and no residuals to draw."""
    seed, runs, tail = int(generator.integers(2**31)), int(fit.n_runs or 0), (1 - bootstrap.level) / 2
    uncertainty = Uncertainty(fit, resample(fit, rows, bootstrap, seed), bootstrap.level)
    weighted = drawn = quantities(uncertainty.resamples).to_numpy()
    if isinstance(fit, HuberFit):
        counts = generator.multinomial(runs, np.full(runs, 1 / runs), bootstrap.resamples).astype(float)
        drawn = quantities(refit(fit, rows, counts)).to_numpy()
    t_tail = _t_tail(bootstrap.level, runs)
    # The first is the fit itself.
    left_out = quantities(refit(fit, rows, np.r_[np.ones((1, runs)), 1 - np.eye(runs)])).to_numpy()
    estimate, left_out = left_out[0], left_out[1:]
    fewer = bootstrap.model_copy(update={"unit": "row", "resamples": max(1, bootstrap.resamples // FEWER)})
    ends: dict[str, Ends] = {
        DEFAULT: uncertainty.interval(weighted),
        "run, percentile": _percentile(weighted, tail),
        "run, drawn, t": _percentile(drawn, t_tail),
        "run, BCa": _bca(weighted, estimate, left_out, t_tail),
        "run, jackknife t": _jackknife_t(estimate, left_out, tail),
        "row, percentile": _percentile(quantities(resample(fit, rows, fewer, seed)).to_numpy(), tail),
    }
    if isinstance(fit, HuberFit):
        ends["run, wild"] = _percentile(quantities(_wild(fit, rows, fewer.resamples, generator)).to_numpy(), tail)
    expected = quantities(truth)
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "quantity": expected.columns,
                    "method": method,
                    "truth": expected.iloc[0].to_numpy(),
                    "estimate": estimate,
                    "low": ends[method][0],
                    "high": ends[method][1],
                }
            )
            for method in METHODS
            if method in ends
        ],
        ignore_index=True,
    )


def _t_tail(level: float, runs: int) -> float:
    """Share of resamples below an interval that is expanded for few runs alone (Hesterberg 2015, section 5.4)."""
    return float(stats.norm.cdf(-stats.t.ppf((1 + level) / 2, runs - 1) * np.sqrt(runs / (runs - 1))))


def _percentile(values: Array, tail: float) -> Ends:
    if not len(values):  # too few runs to resample
        return np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    low, high = np.nanquantile(np.where(np.isfinite(values), values, np.nan), [tail, 1 - tail], axis=0)
    return low, high


def _bca(values: Array, estimate: Array, left_out: Array, tail: float) -> Ends:
    """Bias-corrected and accelerated percentiles (Efron 1987), of as many resamples as the default's."""
    if not len(values):
        return _percentile(values, tail)
    below = np.clip(
        np.mean(values < estimate, 0) + np.mean(values == estimate, 0) / 2, SMALLEST_SHARE, 1 - SMALLEST_SHARE
    )
    bias = stats.norm.ppf(below)
    influence = np.nanmean(left_out, 0) - left_out
    squares = np.nansum(influence**2, 0)
    acceleration = np.nansum(influence**3, 0) / (6 * np.where(squares > 0, squares, 1) ** 1.5)
    ends = []
    for z in stats.norm.ppf([tail, 1 - tail]):
        shares = stats.norm.cdf(bias + (bias + z) / (1 - acceleration * (bias + z)))
        ends.append(np.array([np.nanquantile(column, share) for column, share in zip(values.T, shares, strict=True)]))
    return ends[0], ends[1]


def _jackknife_t(estimate: Array, left_out: Array, tail: float) -> Ends:
    """The estimate and Student's t times the jackknife's standard error, with runs − 1 degrees of freedom."""
    runs = len(left_out)
    error = np.sqrt((runs - 1) * np.nanvar(left_out, axis=0))
    reach = -stats.t.ppf(tail, runs - 1) * error
    return estimate - reach, estimate + reach


def _wild(fit: HuberFit, rows: pd.DataFrame, resamples: int, generator: np.random.Generator) -> pd.DataFrame:
    """Laws fitted to the fitted losses and the residuals of each run, all with their signs or all with the opposite."""
    read = read_rows(rows, (*fit.law.columns, "loss"), "suite")
    problem, centre = problem_of(read, fit.law.covariates)
    start = phi_of(fit.law, centre)
    expected = np.log(predict(start, problem.u, problem.of_term)[0])
    signs = generator.choice([-1.0, 1.0], (resamples, int(read.n_runs or 0)))[:, read.runs]
    losses = replace(problem, log_loss=expected + signs * (problem.log_loss - expected))
    first = FIRST_DELTA * fit.huber_delta
    minima = minimize(np.repeat(start, resamples, 0), losses, fit.huber_delta, first, TOLERANCE)
    return pd.DataFrame(np.c_[laws_of(minima.phi, centre, problem.of_term), minima.objective], columns=names_of(fit))
