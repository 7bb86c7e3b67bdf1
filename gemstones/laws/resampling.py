"""Fit a law again to many resamples of its rows (the bootstrap).

The unit is the run: the checkpoints of a run share its shape, its initialisation and its past, so they are not independent.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_array

from gemstones.files import write_with
from gemstones.laws.fit import STARTS, HuberFit, columns_of, phi_of, problem_of
from gemstones.laws.hull import FEWEST_POINTS, QUANTITIES, HullFit, hull_columns, line_through, lower_hull
from gemstones.laws.identifiability import DISTINCT_VALUES
from gemstones.laws.minimize import STAGE_TOLERANCE, Problem, exponents, minimize, predict
from gemstones.laws.rows import Rows, read_rows
from gemstones.laws.starts import screened_starts
from gemstones.study import Bootstrap

Array = NDArray[np.float64]
# Laws (B, parameters) fitted to rows whose units count (B, units) times; not-a-number where these do not determine one.
Refit = Callable[[Array], Array]
Watch = Callable[[Iterable[Any], int], Iterable[Any]]
DEFAULT = Bootstrap()

# Resamples that are drawn, fitted and kept together, whatever the number of cores; fewer where there are many rows.
CHUNK, CHUNK_ROWS = 500, 10_000_000
# Numbers that a batch of resamples may hold.
BATCH = 4_000_000
# Deltas, relative to the fit's, at which a resample starts (its minimum is far off in units of the fit's own), and at which laws
# are compared before they are polished.
FIRST_DELTA, PROBE_DELTA = 100.0, 10.0
# Predicted relative decrease at which a resample has converged: far below the spread of its parameters.
TOLERANCE = 1e-10
# A resample is fitted again from a law of another basin (an exponent differs by this much in log(1 + alpha)) that fits its
# rows nearly as well: up to so many times, among the ends of all resamples and of the starts of every 64th.
OTHER_BASIN, WORTH_A_TRY, OTHER_BASINS, SCOUT_EVERY = 0.3, 1.1, 2, 64
# Times that a resample is drawn until it determines the law.
DRAWS = 100
# Fewer runs are not resampled: of three, only those determine a law that hold all three, and 95 % intervals of a suite's four hold
# the truth in 67 %, of five in 97 % (60 suites of 35 checkpoints, law of params and tokens).
FEWEST_RUNS = 5


def resample(
    fit: HuberFit | HullFit,
    table: pd.DataFrame,
    bootstrap: Bootstrap = DEFAULT,
    seed: int = 0,
    jobs: int = 1,
    unfinished: Path | None = None,
    watch: Watch | None = None,
) -> pd.DataFrame:
    """Laws fitted to resamples of the rows.

    Parameters
    ----------
    fit : the law fitted to the rows of `table`.
    bootstrap : number of resamples and their unit. Rows that name no run are resampled by row.
    seed : chunks of 500 have generators of their own, so that neither `jobs` nor more resamples change the first ones.
    jobs : processes.
    unfinished : folder that keeps finished chunks until all are there, so that a killed process loses one chunk.
    watch : given the chunks to come and their number, passes them on, as progress bars do.

    Returns
    -------
    One row a resample: `unit`, `draws` (how often it was drawn until its rows determined a law), and the law:
    exponent_<role>, log_coefficient_<role>, irreducible_loss, objective; of a hull slope_<quantity>, intercept_<quantity>.
    No row at all if there are fewer than five runs, or too few rows for resamples that determine the law.
    """
    rows = _rows(fit, table)
    by_run = bootstrap.unit == "run" and rows.runs is not None
    again, number = _again(fit, rows, by_run)
    size = min(CHUNK, max(8, CHUNK_ROWS // len(rows.values)), max(1, bootstrap.resamples))
    starts = range(0, 0 if by_run and number < FEWEST_RUNS else bootstrap.resamples, size)
    watched = watch or (lambda chunks, number: chunks)
    work = partial(_chunk, again, number, size, seed, _key(fit, by_run, seed, size), unfinished)
    if jobs > 1 and len(starts) > 1:
        with ProcessPoolExecutor(min(jobs, len(starts))) as pool:
            chunks = list(watched(pool.map(work, range(len(starts))), len(starts)))
    else:
        chunks = list(watched(map(work, range(len(starts))), len(starts)))
    if any(np.isnan(chunk).any() for chunk in chunks):
        chunks = []
    found = np.concatenate([*chunks, np.empty((0, len(names_of(fit)) + 1))])[: bootstrap.resamples]
    draws = pd.DataFrame(found, columns=["draws", *names_of(fit)]).astype({"draws": int})
    draws.insert(0, "unit", "run" if by_run else "row")
    if unfinished is not None and unfinished.is_dir():
        shutil.rmtree(unfinished)
    return draws


def refit(fit: HuberFit | HullFit, table: pd.DataFrame, counts: Array) -> pd.DataFrame:
    """Laws fitted to the rows of `table` with each run counted as often as said.

    Parameters
    ----------
    counts : (B, runs) times, in the order of the runs' names; a fit that leaves one run out has a 0 there.

    Returns
    -------
    One row each: the law, as in :func:`resample`; not-a-number where its rows do not determine one.
    """
    again, _ = _again(fit, _rows(fit, table), by_run=True)
    return pd.DataFrame(again(counts), columns=names_of(fit))


def names_of(fit: HuberFit | HullFit) -> list[str]:
    """Columns of a law in the table of resamples."""
    if isinstance(fit, HullFit):
        return [f"{part}_{quantity}" for quantity in QUANTITIES for part in ("slope", "intercept")]
    roles = fit.law.covariates
    return [
        *(f"exponent_{role}" for role in roles),
        *(f"log_coefficient_{role}" for role in roles),
        "irreducible_loss",
        "objective",
    ]


def _rows(fit: HuberFit | HullFit, table: pd.DataFrame) -> Rows:
    source = f"selection '{fit.selection}'" if fit.selection else "resamples"
    if isinstance(fit, HullFit):
        return read_rows(table, hull_columns(fit.resource, fit.param_count), source)
    return read_rows(table, columns_of(fit.law.covariates, fit.law.param_count), source, fit.weights)


def _again(fit: HuberFit | HullFit, rows: Rows, by_run: bool) -> tuple[Refit, int]:
    """What fits the law again, and the number of units whose counts it takes."""
    units = rows.runs if by_run and rows.runs is not None else np.arange(len(rows.values))
    again: Refit = _HuberRefit(fit, rows, units) if isinstance(fit, HuberFit) else _HullRefit(rows, units)
    return again, int(units.max()) + 1


def _key(fit: HuberFit | HullFit, by_run: bool, seed: int, size: int) -> str:
    """What a kept chunk must agree in."""
    what = json.dumps([dict(fit.provenance), by_run, seed, size], sort_keys=True)
    return hashlib.sha256(what.encode()).hexdigest()[:16]


def _chunk(again: Refit, number: int, size: int, seed: int, key: str, unfinished: Path | None, index: int) -> Array:
    """The laws of one chunk, and before each how often it was drawn; read back where it was finished before.

    A law is not-a-number if none of many draws determined it.
    """
    path = None if unfinished is None else unfinished / f"{key}-{index}.npy"
    if path is not None and path.is_file():
        return np.asarray(np.load(path))
    generator = np.random.default_rng([seed, index])
    found: Array | None = None
    drawn = np.zeros(size)
    missing = np.arange(size)
    for _ in range(DRAWS):
        laws = again(generator.multinomial(number, np.full(number, 1 / number), len(missing)).astype(float))
        found = np.full((size, laws.shape[1]), np.nan) if found is None else found
        found[missing] = laws
        drawn[missing] += 1
        missing = missing[np.isnan(laws[:, 0])]
        if not len(missing):
            break
    result = np.c_[drawn, found]
    if path is not None:
        write_with(lambda temporary: _save(temporary, result), path)
    return result


def _save(path: Path, values: Array) -> None:
    with path.open("wb") as file:
        np.save(file, values)


@dataclass(frozen=True)
class _HuberRefit:
    fit: HuberFit
    rows: Rows
    units: NDArray[np.intp]

    def __call__(self, counts: Array) -> Array:
        laws = np.full((len(counts), 2 * len(self.fit.law.covariates) + 2), np.nan)
        determined = self._determined(counts)
        if determined.any():
            laws[determined] = self._laws(counts[determined])
        return laws

    def _determined(self, counts: Array) -> NDArray[np.bool_]:
        """Resamples with as many rows as parameters, and as many distinct values of each covariate as it takes."""
        drawn = counts > 0
        k = len(self.fit.law.covariates)
        enough = drawn @ np.bincount(self.units) >= 2 * k + 1
        for column in self.rows.values[:, :k].T:
            values, code = np.unique(column, return_inverse=True)
            if len(values) * counts.shape[1] > BATCH:
                continue  # so many values that a resample has enough
            has = np.zeros((counts.shape[1], len(values)), dtype=bool)
            has[self.units, code] = True
            enough &= (drawn.astype(np.float32) @ has.astype(np.float32) > 0).sum(1) >= min(
                DISTINCT_VALUES, len(values)
            )
        return np.asarray(enough)

    def _laws(self, counts: Array) -> Array:
        problem, centre = problem_of(self.rows, self.fit.overestimate_penalty)
        start = phi_of(self.fit.law, centre)
        phi, value = self._polish(problem, counts, np.repeat(start, len(counts), 0), FIRST_DELTA)
        # Few resamples have their lowest minimum in another basin than the fit. Some end there by themselves, and starts of
        # their own lead a few more to what basins there are.
        ends = np.concatenate([phi, *(self._scout(problem, times) for times in counts[::SCOUT_EVERY])])
        by_unit = self._objectives(problem, ends, self.fit.huber_delta * PROBE_DELTA)
        basin, own = np.log1p(exponents(ends)), np.log1p(exponents(phi))
        tried = np.zeros((len(ends), len(phi)), dtype=bool)
        for _ in range(OTHER_BASINS):
            tried |= np.abs(basin[:, None] - own[None]).max(-1) < OTHER_BASIN
            at_ends = by_unit @ counts.T
            other = np.where(tried, np.inf, at_ends)
            best = other.argmin(0)
            going = np.flatnonzero(other.min(0) < WORTH_A_TRY * at_ends[np.arange(len(phi)), np.arange(len(phi))])
            if not len(going):
                break
            second, lower = self._polish(problem, counts[going], ends[best[going]], PROBE_DELTA)
            tried |= np.abs(basin[:, None] - basin[best][None]).max(-1) < OTHER_BASIN
            better = lower < value[going]
            phi[going[better]], value[going[better]] = second[better], lower[better]
        k, alpha = len(centre), exponents(phi)
        return np.c_[alpha, np.log(phi[:, :k]) + alpha * centre, phi[:, 2 * k], value]

    def _scout(self, problem: Problem, times: Array) -> Array:
        """Minima (starts, p) of one resample from screened starts."""
        weights = times[self.units]
        drawn = np.flatnonzero(weights)
        weights = weights[drawn] if problem.weights is None else weights[drawn] * problem.weights[drawn]
        own = Problem(problem.u[:, drawn], problem.log_loss[drawn], weights, problem.overestimate_penalty)
        starts = screened_starts(own, STARTS, np.random.default_rng(0))
        found = minimize(starts, own, self.fit.huber_delta * PROBE_DELTA, tolerance=STAGE_TOLERANCE)
        return found.phi

    def _polish(self, problem: Problem, counts: Array, start: Array, first: float) -> tuple[Array, Array]:
        """Minima from one start a resample, each over the rows that it has drawn, from `first` deltas on."""
        found, values = [], []
        size = max(1, BATCH // problem.rows)
        for some in (slice(i, i + size) for i in range(0, len(counts), size)):
            times = counts[some][:, self.units]
            most = int((times > 0).sum(1).max())
            drawn = np.argsort(times == 0, axis=1, kind="stable")[:, :most]
            weights = np.take_along_axis(times, drawn, axis=1)
            if problem.weights is not None:
                weights = weights * problem.weights[drawn]
            u = np.ascontiguousarray(problem.u[:, drawn].transpose(1, 0, 2))
            own = Problem(u, problem.log_loss[drawn], weights, problem.overestimate_penalty)
            minima = minimize(start[some], own, self.fit.huber_delta, first * self.fit.huber_delta, TOLERANCE)
            found.append(minima.phi)
            values.append(minima.objective)
        return np.concatenate(found), np.concatenate(values)

    def _objectives(self, problem: Problem, phi: Array, delta: float) -> Array:
        """Objective of each phi over the rows of each unit, (B, units)."""
        total = np.zeros((len(phi), int(self.units.max()) + 1))
        size = max(1, BATCH // len(phi))
        for rows in (slice(i, i + size) for i in range(0, problem.rows, size)):
            residual = problem.log_loss[rows] - np.log(predict(phi, problem.u[:, rows]))
            inside = np.clip(residual, -delta, delta)
            huber = inside * (residual - 0.5 * inside)
            huber *= np.where(residual < 0, problem.overestimate_penalty, 1.0)
            if problem.weights is not None:
                huber *= problem.weights[rows]
            units = self.units[rows]
            total += huber @ csr_array(
                (np.ones(len(units)), (np.arange(len(units)), units)), (len(units), total.shape[1])
            )
        return total


@dataclass(frozen=True)
class _HullRefit:
    rows: Rows
    units: NDArray[np.intp]

    def __call__(self, counts: Array) -> Array:
        # A hull's corners are corners of its units' hulls: only these take part.
        kept = np.concatenate([at[lower_hull(*self.rows.values[at, :2].T)] for at in self._members()])
        resource, loss, params, tokens = self.rows.values[kept].T
        units = self.units[kept]
        laws = np.full((len(counts), 2 * len(QUANTITIES)), np.nan)
        for i, times in enumerate(counts):
            drawn = np.flatnonzero(times[units])
            corners = drawn[lower_hull(resource[drawn], loss[drawn])]
            if len(corners) >= FEWEST_POINTS:
                n, t = params[corners], tokens[corners]
                lines = [line_through(resource[corners], quantity) for quantity in (n, t, t / n)]
                laws[i] = [part for line in lines for part in (line.slope, line.intercept)]
        return laws

    def _members(self) -> list[NDArray[np.intp]]:
        order = np.argsort(self.units, kind="stable")
        return np.split(order, np.flatnonzero(np.diff(self.units[order])) + 1)
