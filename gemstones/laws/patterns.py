"""Patterns that a law leaves in its residuals: what a minimum, however certain, does not show.

Residuals are log observed − log predicted losses. Two things are asked of each run: how its early losses lie beside its later ones,
and where it lies as a whole. Both are held against what the run is: parameters, width, depth, width/depth. Runs, not rows, are
permuted, since the rows of a run are not independent; the largest correlation of each permutation is compared, so that asking for
several variables finds no more by chance.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gemstones.laws.power_law import factors
from gemstones.laws.rows import shape_families

if TYPE_CHECKING:
    from gemstones.laws.fit import HuberFit

Array = NDArray[np.float64]

# Early are the rows in the first third of a run in log tokens.
EARLY = 1 / 3
# Fewer runs, or rows of a run, tell no pattern.
FEWEST_RUNS, FEWEST_ROWS = 6, 3
PERMUTATIONS = 2000
# A pattern is told where chance makes it this rarely, and it is this large, as a share of the loss: about the noise of runs.
LEVEL, SMALLEST = 0.01, 0.002
VARIABLES = ("params", "width", "depth", "width/depth")


def patterns(fit: HuberFit, rows: pd.DataFrame, seed: int = 0) -> dict[str, Any]:
    """Test the residuals of a fit.

    Parameters
    ----------
    rows : that it was fitted to; reads `run`, `tokens`, `loss`, the law's columns and, where present, params, width and depth.
    seed : of the permutations.

    Returns
    -------
    Plain data: `early` (early minus later residuals of each run) and `run` (run medians), each with `runs` and, by variable,
    `correlation` with its log, `p` (of the largest correlation of all variables, by permutation), and `low`, `high`: mean of what is
    tested, as a share of the loss, over the third of the runs with the smallest and the largest values. `early_mean` and
    `early_mean_p` say whether early losses lie off on the whole (signs of runs flipped at random). `warnings`, a sentence each;
    `not_tested`, why something was not.
    """
    names = shape_families(rows)
    if names is None or np.isnan(_numbers(rows, "tokens")).any():
        return {"warnings": [], "not_tested": "not every row names a run and its tokens"}
    residual = np.log(rows["loss"].to_numpy(float)) - np.log(fit.predict(rows))
    table = _by_run(rows, names, residual)
    found: dict[str, Any] = {"warnings": []}
    generator = np.random.default_rng(seed)
    for what in ("early", "run"):
        known = table[table[what].notna()]
        if len(known) < FEWEST_RUNS:
            found["not_tested"] = f"{len(known)} runs have enough rows; wanted: {FEWEST_RUNS}"
            continue
        found[what] = {"runs": len(known), **_correlations(known, what, generator)}
    if "early" in found:
        early = table["early"].dropna().to_numpy()
        flipped = np.abs((generator.choice([-1.0, 1.0], (PERMUTATIONS, len(early))) * early).mean(1))
        found["early_mean"] = float(early.mean())
        found["early_mean_p"] = float((1 + (flipped >= abs(early.mean())).sum()) / (1 + PERMUTATIONS))
    found["warnings"] = _warnings(found, fit)
    return found


def early_and_run(rows: pd.DataFrame, residual: Array) -> pd.DataFrame:
    """What is tested, a row for each run: `run` (median of its log residuals), `early` (mean of its early ones minus the median of the
    others), and the medians of params, width, depth and width/depth; index: the run's name.
    """
    names = shape_families(rows)
    assert names is not None
    return _by_run(rows, names, residual)


def _by_run(rows: pd.DataFrame, names: NDArray[np.str_], residual: Array) -> pd.DataFrame:
    log_tokens = np.log(_numbers(rows, "tokens"))
    columns = {name: _numbers(rows, name) for name in ("params", "width", "depth")}
    columns["width/depth"] = columns["width"] / columns["depth"]
    found = {}
    for run in np.unique(names):
        own = names == run
        at, off = log_tokens[own], residual[own]
        first = at <= at.min() + EARLY * (at.max() - at.min())
        told = own.sum() >= FEWEST_ROWS and first.any() and not first.all()
        early = off[first].mean() - np.median(off[~first]) if told else np.nan
        found[str(run)] = {
            "run": float(np.median(off)),
            "early": float(early),
            **{name: float(np.median(values[own])) for name, values in columns.items()},
        }
    return pd.DataFrame.from_dict(found, orient="index")


def _numbers(rows: pd.DataFrame, name: str) -> Array:
    """A column that the law itself may not need: not-a-number where it holds no number greater than 0."""
    if name not in rows:
        return np.full(len(rows), np.nan)
    values = pd.to_numeric(rows[name], errors="coerce").to_numpy(float, na_value=np.nan)
    return np.where(values > 0, values, np.nan)


def _correlations(table: pd.DataFrame, what: str, generator: np.random.Generator) -> dict[str, Any]:
    y = table[what].to_numpy()
    x = {}
    for name in VARIABLES:
        if table[name].notna().all() and table[name].nunique() > 2:
            x[name] = np.log(table[name].to_numpy())
    if not x or np.ptp(y) == 0:
        return {}
    unit = np.stack([(each - each.mean()) / np.linalg.norm(each - each.mean()) for each in x.values()])
    centred = y - y.mean()
    correlation = unit @ centred / np.linalg.norm(centred)
    shuffled = generator.permuted(np.tile(centred, (PERMUTATIONS, 1)), axis=1)
    largest = np.abs(shuffled @ unit.T).max(1) / np.linalg.norm(centred)
    third = max(1, len(y) // 3)
    found = {}
    for name, value, r in zip(x, x.values(), correlation.tolist(), strict=True):
        order = np.argsort(value, kind="stable")
        found[name] = {
            "correlation": r,
            "p": float((1 + (largest >= abs(r)).sum()) / (1 + PERMUTATIONS)),
            "low": float(y[order[:third]].mean()),
            "high": float(y[order[-third:]].mean()),
        }
    return found


def _warnings(found: Mapping[str, Any], fit: HuberFit) -> list[str]:
    warnings = []
    if strongest := _strongest(found.get("early")):
        name, told = strongest
        end = "high" if abs(told["high"]) >= abs(told["low"]) else "low"
        which = f"the {'largest' if end == 'high' else 'smallest'} {name}"
        warnings.append(
            f"early losses of runs with {which} lie {_off(told[end])} the law, beside their later ones: correlation "
            f"{told['correlation']:.2f} with {name} over {found['early']['runs']} runs; {_remedy(fit, name)}"
        )
    if strongest := _strongest(found.get("run")):
        name, told = strongest
        mend = "the form misses it" if {"width", "depth"} <= set(fit.law.roles) else "try width and depth"
        warnings.append(
            f"whole runs lie off the law by their shape: {_off(told['low'])} it for the smallest {name}, {_off(told['high'])} it for the "
            f"largest, correlation {told['correlation']:.2f} over {found['run']['runs']} runs; {mend}"
        )
    if found.get("early_mean_p", 1) < LEVEL and abs(found["early_mean"]) > SMALLEST:
        warnings.append(
            f"early losses of all runs lie {_off(found['early_mean'])} the law, beside their later ones: the term of tokens misses "
            "how losses fall along a run"
        )
    return warnings


def _strongest(tested: Mapping[str, Any] | None) -> tuple[str, Mapping[str, float]] | None:
    """The variable of the strongest correlation, where it is no chance and its ends differ enough."""
    by_name = {name: told for name, told in (tested or {}).items() if name in VARIABLES}
    if not by_name:
        return None
    name = max(by_name, key=lambda each: abs(by_name[each]["correlation"]))
    told = by_name[name]
    large = abs(told["high"] - told["low"]) > SMALLEST
    return (name, told) if told["p"] < LEVEL and large else None


def _off(share: float) -> str:
    return f"{100 * abs(share):.2g} % {'above' if share > 0 else 'below'}"


def _remedy(fit: HuberFit, name: str) -> str:
    """The product of tokens to try, of a law that has none; of others it is not known what would help."""
    data = next((term for term in fit.law.covariates if "tokens" in factors(term)), "tokens")
    return (
        "the form misses it" if len(factors(data)) > 1 else f"try tokens*{'width' if name == 'width/depth' else name}"
    )
