"""Laws fitted to the losses table: Approach 1 (convex hull) and Approach 3 (power laws), and how they are read back.

>>> write_json(fit(study.fits["hot"], rows, seed=study.seed).to_json(), "laws/hot.json")
>>> read("laws/hot.json").predict(rows)
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemstones.errors import UserError
from gemstones.laws.certificate import open_ends, ranges
from gemstones.laws.fit import HuberFit, fit_huber
from gemstones.laws.holdout import held_out
from gemstones.laws.hull import HullFit, Line, best_per_bin, fit_hull, lower_hull
from gemstones.laws.power_law import Allocation, PowerLaw

if TYPE_CHECKING:
    import pandas as pd

    from gemstones.laws.noise import RunNoise
    from gemstones.laws.resampling import Watch, resample
    from gemstones.laws.uncertainty import Uncertainty
    from gemstones.study import Approach1, Approach3, Bootstrap, Holdout

__all__ = [
    "Allocation",
    "HuberFit",
    "HullFit",
    "Line",
    "PowerLaw",
    "Uncertainty",
    "assess",
    "best_per_bin",
    "fit",
    "fit_huber",
    "fit_hull",
    "lower_hull",
    "read",
    "resample",
    "with_patterns",
]


def assess(
    found: HuberFit | HullFit,
    rows: pd.DataFrame,
    bootstrap: Bootstrap | None = None,
    holdout: Holdout | None = None,
    seed: int = 0,
    jobs: int = 1,
    unfinished: Path | None = None,
    watch: Watch | None = None,
) -> tuple[HuberFit | HullFit, pd.DataFrame]:
    """How sure a fit is: itself with its evidence (ranges, intervals, held-out errors), and the laws fitted to resamples of its rows.

    Parameters
    ----------
    rows : the rows that it was fitted to.
    bootstrap : 2000 resamples by run, and 95 % intervals, unless told otherwise.
    holdout : see :func:`gemstones.laws.holdout.held_out`.
    seed, jobs, unfinished, watch : see :func:`gemstones.laws.resampling.resample`.
    """
    from gemstones.laws import resampling
    from gemstones.laws.uncertainty import Uncertainty

    bootstrap = bootstrap or resampling.DEFAULT
    evidence = dict(found.evidence)
    if isinstance(found, HuberFit):
        evidence["ranges"] = ranges(found, rows)
        evidence["fitted_ranges"] = _fitted_ranges(rows)
        found = replace(found, warnings=(*found.warnings, *open_ends(found, evidence["ranges"])))
        found = with_patterns(replace(found, evidence=evidence), rows, seed)
        evidence = dict(found.evidence)
    resamples = resampling.resample(found, rows, bootstrap, seed, jobs, unfinished, watch)
    if bootstrap.resamples:
        evidence["intervals"] = Uncertainty(found, resamples, bootstrap.level).to_json()
    evidence["held_out"] = held_out(found, rows, holdout)
    if isinstance(found, HuberFit) and (noise := _noise(found, rows)):
        evidence["noise"] = noise.to_json()
    return replace(found, evidence=evidence), resamples


def with_patterns(fit: HuberFit, rows: pd.DataFrame, seed: int = 0) -> HuberFit:
    """A fit with what its residuals still show (:mod:`gemstones.laws.patterns`), as evidence and as warnings."""
    from gemstones.laws.patterns import patterns

    found = patterns(fit, rows, seed)
    return replace(fit, evidence={**fit.evidence, "patterns": found}, warnings=(*fit.warnings, *found["warnings"]))


def _noise(fit: HuberFit, rows: pd.DataFrame) -> RunNoise | None:
    from gemstones.laws.noise import run_noise

    return run_noise(fit, rows)


def _fitted_ranges(rows: pd.DataFrame) -> dict[str, list[float]]:
    """Least and greatest of what rows may have; a column that the law does not need may hold anything."""
    import pandas as pd

    found = {}
    for name in {"params", "width", "depth", "tokens"} & set(rows):
        values = pd.to_numeric(rows[name], errors="coerce").dropna()
        if len(values):
            found[name] = [float(values.min()), float(values.max())]
    return dict(sorted(found.items()))


def __getattr__(name: str) -> Any:
    """What needs scipy is loaded when it is asked for: a fit alone does not."""
    if name == "resample":
        from gemstones.laws.resampling import resample

        return resample
    if name == "Uncertainty":
        from gemstones.laws.uncertainty import Uncertainty

        return Uncertainty
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# The function takes the name over from its module, which is complete by now: `from gemstones.laws import fit`.
def fit(spec: Approach1 | Approach3, rows: pd.DataFrame, seed: int = 0, query: str | None = None) -> HuberFit | HullFit:
    """Fit the law that a config entry asks for to the rows of its selection; `query` is what selected them, for the record.

    Raises
    ------
    UserError
        Where the rows do not determine the law; see :func:`fit_huber` and :func:`fit_hull`.
    """
    found: HuberFit | HullFit
    if spec.approach == 1:
        found = fit_hull(rows, spec.resource, spec.param_count, spec.selection)
    else:
        found = fit_huber(rows, seed=seed, **spec.model_dump(exclude={"approach", "resamples"}))
    return replace(found, provenance={**found.provenance, "query": query}) if query else found


def read(path: str | Path) -> HuberFit | HullFit:
    """Read a fit that :func:`gemstones.files.write_json` wrote from its `to_json`.

    Raises
    ------
    UserError
        If there is no such file, or it holds no fit.
    """
    from gemstones.laws.stored import check

    try:
        data = json.loads(Path(path).read_text())
        if "lines" in data:
            return HullFit.from_json(data)
        check(data)
        return HuberFit.from_json(data)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; wanted: a fit's JSON") from None
    except UserError as error:
        raise UserError(f"{path}: holds no fit: {error}") from None
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: holds no fit ({type(error).__name__}: {error})") from None
