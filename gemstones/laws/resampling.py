"""Fit a law again to many resamples of its rows (the bootstrap).

The unit is the run: the checkpoints of a run share its shape, its initialisation and its past, so they are not independent. A
resample weighs the runs at random (Dirichlet weights, mean 1: the bootstrap of Rubin 1981) rather than drawing some of them and
leaving others out: of two dozen runs only a few have the shapes that tell width from depth, and no resample loses them. A
hull knows no weights; its runs are drawn with replacement.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_array

from gemstones.files import write_with
from gemstones.laws.fit import HuberFit, columns_of, laws_of, phi_of, problem_of
from gemstones.laws.hull import FEWEST_POINTS, QUANTITIES, HullFit, hull_columns, line_through, lower_hull
from gemstones.laws.minima import STARTS
from gemstones.laws.minimize import STAGE_TOLERANCE, minimize
from gemstones.laws.objective import Problem, exponents, predict
from gemstones.laws.power_law import exponent_names
from gemstones.laws.rows import Rows, read_rows
from gemstones.laws.starts import screened_starts
from gemstones.study import Bootstrap

Array = NDArray[np.float64]
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
# A resample is fitted again from a law of another basin (an exponent differs by this much in arsinh(alpha)) that fits its
# rows nearly as well, among the ends of its chunk, and of the starts of every 64th of it.
OTHER_BASIN, WORTH_A_TRY, SCOUT_EVERY = 0.3, 1.03, 64
# Fewer runs are not resampled: their intervals are too narrow (docs/intervals.md).
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
    seed : chunks of 500 have generators of their own, so that `jobs` changes nothing, and more than 500 resamples not the first ones.
    jobs : processes.
    unfinished : folder that keeps finished chunks until all are there, so that a killed process loses one chunk.
    watch : given the chunks to come and their number, passes them on, as progress bars do.

    Returns
    -------
    One row a resample: `unit`, and the law: its exponents (:func:`~gemstones.laws.power_law.exponent_names`),
    log_coefficient_<term>, irreducible_loss, objective; of a hull
    slope_<quantity>, intercept_<quantity>, not-a-number where a resample's hull has too few points for a line. No row at all if
    there are fewer than five runs, or no more rows than the law has parameters.
    """
    rows = _rows(fit, table)
    by_run = bootstrap.unit == "run" and rows.runs is not None
    again, number = _again(fit, rows, by_run)
    size = min(CHUNK, max(8, CHUNK_ROWS // len(rows.values)), max(1, bootstrap.resamples))
    fewest = FEWEST_RUNS if by_run else fit.n_parameters + 1
    starts = range(0, bootstrap.resamples if number >= fewest else 0, size)
    watched = watch or (lambda chunks, number: chunks)
    work = partial(_chunk, again, number, size, seed, _key(fit, rows, by_run, seed, size), unfinished)
    if jobs > 1 and len(starts) > 1:
        with ProcessPoolExecutor(min(jobs, len(starts))) as pool:
            chunks = list(watched(pool.map(work, range(len(starts))), len(starts)))
    else:
        chunks = list(watched(map(work, range(len(starts))), len(starts)))
    found = np.concatenate([*chunks, np.empty((0, len(names_of(fit))))])[: bootstrap.resamples]
    laws = pd.DataFrame(found, columns=names_of(fit))
    laws.insert(0, "unit", "run" if by_run else "row")
    if unfinished is not None and unfinished.is_dir():
        shutil.rmtree(unfinished)
        with suppress(OSError):  # others may be at work beside it
            unfinished.parent.rmdir()
    return laws


def refit(fit: HuberFit | HullFit, table: pd.DataFrame, weights: Array) -> pd.DataFrame:
    """Laws fitted to the rows of `table` with each run weighed as said.

    Parameters
    ----------
    weights : (B, runs), in the order of the runs' names; a fit that leaves one run out has a 0 there.

    Returns
    -------
    One row each: the law, as in :func:`resample`.
    """
    again, _ = _again(fit, _rows(fit, table), by_run=True)
    return pd.DataFrame(again(weights), columns=names_of(fit))


def names_of(fit: HuberFit | HullFit) -> list[str]:
    """Columns of a law in the table of resamples."""
    if isinstance(fit, HullFit):
        return [f"{part}_{quantity}" for quantity in QUANTITIES for part in ("slope", "intercept")]
    terms = fit.law.covariates
    return [
        *exponent_names(terms),
        *(f"log_coefficient_{term}" for term in terms),
        "irreducible_loss",
        "objective",
    ]


def _rows(fit: HuberFit | HullFit, table: pd.DataFrame) -> Rows:
    source = f"selection '{fit.selection}'" if fit.selection else "resamples"
    if isinstance(fit, HullFit):
        return read_rows(table, hull_columns(fit.resource, fit.param_count), source)
    return read_rows(table, columns_of(fit.law.covariates, fit.law.param_count), source, fit.weights)


def _again(fit: HuberFit | HullFit, rows: Rows, by_run: bool) -> tuple[Refit, int]:
    """What fits the law again, and the number of units whose weights it takes."""
    units = rows.runs if by_run and rows.runs is not None else np.arange(len(rows.values))
    number = int(units.max()) + 1
    if isinstance(fit, HuberFit):
        return _HuberRefit(fit, rows, units), number
    return _HullRefit(rows, units), number


def _key(fit: HuberFit | HullFit, rows: Rows, by_run: bool, seed: int, size: int) -> str:
    """What a kept chunk must agree in: the fit, its rows' runs and weights, the draws, and the code of this folder."""
    found = hashlib.sha256(json.dumps([dict(fit.provenance), by_run, seed, size], sort_keys=True).encode())
    for values in (rows.runs, rows.weights):
        found.update(b"-" if values is None else values.tobytes())
    for module in sorted(Path(__file__).parent.glob("*.py")):
        found.update(module.read_bytes())
    return found.hexdigest()[:16]


def _chunk(again: Refit, number: int, size: int, seed: int, key: str, unfinished: Path | None, index: int) -> Array:
    """The laws of one chunk, read back where it was finished before."""
    path = None if unfinished is None else unfinished / f"{key}-{index}.npy"
    if path is not None and path.is_file():
        return np.asarray(np.load(path))
    laws = again(again.draw(np.random.default_rng([seed, index]), number, size))
    if path is not None:
        write_with(lambda temporary: _save(temporary, laws), path)
    return laws


def _save(path: Path, values: Array) -> None:
    with path.open("wb") as file:
        np.save(file, values)


class Refit(Protocol):
    """A law fitted again."""

    def draw(self, generator: np.random.Generator, number: int, size: int) -> Array:
        """Weights (size, number) of the units of resamples."""

    def __call__(self, weights: Array) -> Array:
        """Laws (B, parameters) fitted to rows whose units weigh (B, units); not-a-number for a hull of too few points."""


@dataclass(frozen=True)
class _HuberRefit:
    fit: HuberFit
    rows: Rows
    units: NDArray[np.intp]

    def draw(self, generator: np.random.Generator, number: int, size: int) -> Array:
        return number * generator.dirichlet(np.ones(number), size)

    def __call__(self, weights: Array) -> Array:
        problem, centre = problem_of(self.rows, self.fit.law.covariates, self.fit.overestimate_penalty)
        start = phi_of(self.fit.law, centre)
        phi, value = self._polish(problem, weights, np.repeat(start, len(weights), 0), FIRST_DELTA)
        # Few resamples have their lowest minimum in another basin than the fit. Some end there by themselves, and starts of
        # their own lead a few more to what basins there are.
        ends = np.concatenate([phi, *(self._scout(problem, some) for some in weights[::SCOUT_EVERY])])
        at_ends = self._objectives(problem, ends, self.fit.huber_delta * PROBE_DELTA) @ weights.T
        own = at_ends[np.arange(len(phi)), np.arange(len(phi))]
        basins, basin = (np.arcsinh(exponents(each, problem.of_term)) for each in (ends, phi))
        at_ends[np.abs(basins[:, None] - basin[None]).max(-1) < OTHER_BASIN] = np.inf
        going = np.flatnonzero(at_ends.min(0) < WORTH_A_TRY * own)
        second, lower = self._polish(problem, weights[going], ends[at_ends.argmin(0)[going]], PROBE_DELTA)
        better = lower < value[going]
        phi[going[better]], value[going[better]] = second[better], lower[better]
        return np.c_[laws_of(phi, centre, problem.of_term), value]

    def _scout(self, problem: Problem, weights: Array) -> Array:
        """Minima (starts, p) of one resample from screened starts."""
        own = replace(problem, weights=self._of_rows(problem, weights))
        starts = screened_starts(own, STARTS, np.random.default_rng(0))
        found = minimize(starts, own, self.fit.huber_delta * PROBE_DELTA, tolerance=STAGE_TOLERANCE)
        return found.phi

    def _polish(self, problem: Problem, weights: Array, start: Array, first: float) -> tuple[Array, Array]:
        """Minima (B, p) and their objectives (B,) from one start a resample, from `first` deltas on."""
        phi, value = np.empty_like(start), np.empty(len(start))
        size = max(1, BATCH // problem.rows)
        for some in (slice(i, i + size) for i in range(0, len(start), size)):
            own = replace(problem, weights=self._of_rows(problem, weights[some]))
            minima = minimize(start[some], own, self.fit.huber_delta, first * self.fit.huber_delta, TOLERANCE)
            phi[some], value[some] = minima.phi, minima.objective
        return phi, value

    def _of_rows(self, problem: Problem, weights: Array) -> Array:
        """Weights (…, n) of the rows, of those of their units (…, units) and their own."""
        of_rows = weights[..., self.units]
        return of_rows if problem.weights is None else of_rows * problem.weights

    def _objectives(self, problem: Problem, phi: Array, delta: float) -> Array:
        """Objective of each phi over the rows of each unit, (B, units)."""
        total = np.zeros((len(phi), int(self.units.max()) + 1))
        size = max(1, BATCH // len(phi))
        for rows in (slice(i, i + size) for i in range(0, problem.rows, size)):
            residual = problem.log_loss[rows] - np.log(predict(phi, problem.u[:, rows], problem.of_term))
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

    def draw(self, generator: np.random.Generator, number: int, size: int) -> Array:
        return generator.multinomial(number, np.full(number, 1 / number), size).astype(float)

    def __call__(self, weights: Array) -> Array:
        kept = self._corners()
        resource, loss, params, tokens = self.rows.values[kept].T
        units = self.units[kept]
        laws = np.full((len(weights), 2 * len(QUANTITIES)), np.nan)
        for i, times in enumerate(weights):
            drawn = np.flatnonzero(times[units])
            corners = drawn[lower_hull(resource[drawn], loss[drawn])]
            if len(corners) >= FEWEST_POINTS:
                n, t = params[corners], tokens[corners]
                lines = [line_through(resource[corners], quantity) for quantity in (n, t, t / n)]
                laws[i] = [part for line in lines for part in (line.slope, line.intercept)]
        return laws

    def _corners(self) -> NDArray[np.intp]:
        """A hull's corners are corners of its units' hulls: only these rows take part."""
        if int(self.units.max()) + 1 == len(self.units):
            return np.arange(len(self.units))
        order = np.argsort(self.units, kind="stable")
        members = np.split(order, np.flatnonzero(np.diff(self.units[order])) + 1)
        return np.concatenate([at[lower_hull(*self.rows.values[at, :2].T)] for at in members])
