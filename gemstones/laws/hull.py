"""Approach 1: the lower convex hull of the losses, and straight lines in log-log over its points.

Source: Gemstones (arXiv 2502.06857), section 4.1; the binning that it is compared with is Hoffmann et al., section 3.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gemstones.errors import UserError
from gemstones.laws.power_law import positive_columns
from gemstones.laws.rows import rows_sha256, run_names, versions

if TYPE_CHECKING:
    import pandas as pd

RESOURCES = ("flops", "gpu_hours")
QUANTITIES = ("params", "tokens", "tokens_per_param")
EVIDENCE = ("intervals", "held_out", "card")
# Fewer hull points leave no line to fit.
FEWEST_POINTS = 3
# Bins of FLOPs in Hoffmann et al., section 3.1, spread over the resource's range.
HOFFMANN_BINS = 750


@dataclass(frozen=True)
class Line:
    """log y = slope · log resource + intercept (natural logs)."""

    slope: float
    intercept: float

    def predict(self, resource: ArrayLike) -> NDArray[np.float64]:
        """y at values of the resource."""
        return np.exp(self.slope * np.log(np.asarray(resource, dtype=float)) + self.intercept)


@dataclass(frozen=True)
class HullPoint:
    """A row on the hull: resource used, loss in nats, parameters in the fit's count, tokens, and where it comes from."""

    resource: float
    loss: float
    params: float
    tokens: float
    run: str | None
    step: int | None


@dataclass(frozen=True)
class HullFit:
    """Lines through the frontier of a selection.

    Attributes
    ----------
    resource : flops or gpu_hours.
    param_count : column that stands for parameters.
    lines : a :class:`Line` for params, tokens and tokens_per_param.
    hull : the frontier, by increasing resource and strictly decreasing loss.
    n_rows, n_runs : rows, and distinct runs among them (None where rows name no run).
    selection : name of the selection the rows come from.
    provenance : versions of package and libraries, SHA-256 of the rows used, specification.
    evidence : what was found out about the fit afterwards: `intervals` (:mod:`~gemstones.laws.uncertainty`), `held_out`
        (:mod:`~gemstones.laws.holdout`), `card` (:mod:`~gemstones.laws.card`).
    """

    resource: str
    param_count: str
    lines: Mapping[str, Line]
    hull: tuple[HullPoint, ...]
    n_rows: int
    n_runs: int | None
    selection: str | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n_parameters(self) -> int:
        """Fitted numbers of each line."""
        return 2

    @property
    def hull_size(self) -> int:
        return len(self.hull)

    def predict(self, resource: ArrayLike) -> dict[str, NDArray[np.float64]]:
        """Optimal params, tokens and tokens_per_param at values of the resource."""
        return {name: line.predict(resource) for name, line in self.lines.items()}

    def to_json(self) -> dict[str, Any]:
        """The fit as plain data."""
        return {
            "selection": self.selection,
            "resource": self.resource,
            "param_count": self.param_count,
            "hull_size": self.hull_size,
            "lines": {name: vars(line).copy() for name, line in self.lines.items()},
            "n_rows": self.n_rows,
            "n_runs": self.n_runs,
            "hull": [vars(point).copy() for point in self.hull],
            **self.evidence,
            "provenance": dict(self.provenance),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> HullFit:
        """Inverse of :meth:`to_json`; raises KeyError where a key is missing."""
        same = ("resource", "param_count", "n_rows", "n_runs", "selection", "provenance")
        return cls(
            lines={name: Line(**line) for name, line in data["lines"].items()},
            hull=tuple(HullPoint(**point) for point in data["hull"]),
            evidence={key: data[key] for key in EVIDENCE if key in data},
            **{key: data[key] for key in same},
        )


def fit_hull(
    table: pd.DataFrame, resource: str = "flops", param_count: str = "params", selection: str | None = None
) -> HullFit:
    """Least squares of log params, log tokens and log tokens per parameter on log resource over the hull's points.

    Parameters
    ----------
    table : rows of the losses table; reads `loss`, `tokens`, the resource, `param_count` and, where present, `run` and
        `step`.
    resource : flops or gpu_hours.
    param_count : column that stands for parameters.
    selection : name of the rows, for messages and the result.

    Raises
    ------
    UserError
        A missing column, a value without a logarithm, equal losses, or fewer than three hull points.
    """
    if resource not in RESOURCES:
        raise UserError(f"unknown resource '{resource}'; choose one of {', '.join(RESOURCES)}")
    source = f"selection '{selection}'" if selection else "fit"
    columns = hull_columns(resource, param_count)
    names = run_names(table)
    n_runs = None if names is None else len(np.unique(names))
    values = positive_columns(table, columns, source)
    if len(values) and np.ptp(values[:, 1]) == 0:
        raise UserError(f"{source}: column 'loss' is {values[0, 1]:g} in every row; a hull needs it to vary")
    at = lower_hull(values[:, 0], values[:, 1])
    if len(at) < FEWEST_POINTS:
        raise UserError(
            f"{source}: the convex hull of {len(values)} rows has {len(at)} points; wanted: at least {FEWEST_POINTS}"
        )
    points = values[at]
    used, params, tokens = points[:, 0], points[:, 2], points[:, 3]
    quantities = dict(zip(QUANTITIES, (params, tokens, tokens / params), strict=True))
    return HullFit(
        resource=resource,
        param_count=param_count,
        lines={name: line_through(used, quantity) for name, quantity in quantities.items()},
        hull=_points(table, points, at),
        n_rows=len(values),
        n_runs=n_runs,
        selection=selection,
        provenance={
            **versions(),
            "rows_sha256": rows_sha256(values, columns),
            "specification": {
                "approach": 1,
                "selection": selection,
                "resource": resource,
                "param_count": param_count,
            },
        },
    )


def hull_columns(resource: str, param_count: str) -> tuple[str, str, str, str]:
    """Columns that a fit reads, in this order."""
    return resource, "loss", param_count, "tokens"


def lower_hull(resource: ArrayLike, loss: ArrayLike) -> NDArray[np.intp]:
    """The frontier: points of the lower convex hull in (log resource, log loss) along which the loss falls strictly.

    This is the part of the convex hull that remains when a point above and to the right of all others is added, the
    hull taken, and that point dropped (the authors' way). Of points with the same resource only the lowest counts, of
    duplicates the first.

    Parameters
    ----------
    resource, loss : (n,) positive.

    Returns
    -------
    (m,) indices by increasing resource; empty for no points.
    """
    x, y = np.log(np.asarray(resource, dtype=float)), np.log(np.asarray(loss, dtype=float))
    order = np.lexsort((y, x))
    return order[_corners(x[order].tolist(), y[order].tolist())]


def _corners(x: list[float], y: list[float]) -> list[int]:
    """Positions of the frontier's corners among points sorted by x, then y."""
    chain: list[int] = []
    for i, (here, height) in enumerate(zip(x, y, strict=True)):
        if chain and height >= y[chain[-1]]:
            # Later points use more and, so far, reach no lower loss; this also skips equal resources and duplicates.
            continue
        while len(chain) > 1:
            a, b = chain[-2], chain[-1]
            # A point above or on the segment between its neighbours is no corner of the hull.
            if (x[b] - x[a]) * (height - y[a]) - (y[b] - y[a]) * (here - x[a]) > 0:
                break
            chain.pop()
        chain.append(i)
    return chain


def best_per_bin(table: pd.DataFrame, resource: str = "flops", bins: int = HOFFMANN_BINS) -> pd.DataFrame:
    """The row with the lowest loss in each logarithmic bin of the resource (Hoffmann et al., section 3.1).

    Returns
    -------
    Rows of the table by increasing resource, at most one a bin; of equal losses the one that uses less.

    Raises
    ------
    UserError
        A missing column, or a value without a logarithm.
    """
    values = positive_columns(table, (resource, "loss"), "bins")
    if not len(values):
        return table
    x = np.log(values[:, 0])
    width = np.ptp(x) / bins or 1.0
    bin_of = np.minimum(((x - x.min()) / width).astype(int), bins - 1)
    order = np.lexsort((x, values[:, 1], bin_of))
    first = np.unique(bin_of[order], return_index=True)[1]
    return table.iloc[order[first]].reset_index(drop=True)


def line_through(resource: NDArray[np.float64], quantity: NDArray[np.float64]) -> Line:
    """Least squares of log quantity on log resource."""
    x = np.log(resource)
    slope, intercept = np.linalg.lstsq(np.stack([x, np.ones_like(x)], axis=-1), np.log(quantity), rcond=None)[0]
    return Line(float(slope), float(intercept))


def _points(table: pd.DataFrame, numbers: NDArray[np.float64], at: NDArray[np.intp]) -> tuple[HullPoint, ...]:
    runs, steps = _labels(table, "run", at), _labels(table, "step", at)
    return tuple(
        HullPoint(
            resource, loss, params, tokens, None if run is None else str(run), None if step is None else int(step)
        )
        for (resource, loss, params, tokens), run, step in zip(numbers.tolist(), runs, steps, strict=True)
    )


def _labels(table: pd.DataFrame, column: str, at: NDArray[np.intp]) -> list[Any]:
    if column not in table:
        return [None] * len(at)
    labels = table[column].iloc[at]
    return [None if missing else label for label, missing in zip(labels, labels.isna(), strict=True)]
