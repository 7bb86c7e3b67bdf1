"""Laws from the validation loss to benchmarks: error and accuracy of checkpoints, fitted by least squares.

The error of Gadre et al. (2024, arXiv 2403.08540), err = ε − k·exp(−γL), of the mean accuracy over all tasks; and the accuracy of
Bhagia et al. (2024, arXiv 2412.04403), acc = a / (1 + exp(−k(L − L₀))) + b, of each task and of the mean. Bhagia et al. take for
L the loss on the task's own answers, which the Gemstones authors did not release: here it is the validation loss for both laws.

The logistic curve ends at a + b for low losses, and no accuracy exceeds 1: where the data lie before the bend, so that they do not
tell its end, a + b is 1. Intervals are those of the other laws: runs weighed at random, percentiles expanded
(:mod:`gemstones.laws.uncertainty`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares
from scipy.special import expit

from gemstones.errors import UserError
from gemstones.laws.rows import versions
from gemstones.laws.uncertainty import expanded_tail
from gemstones.losses.columns import KEY
from gemstones.losses.selections import check_one_set

if TYPE_CHECKING:
    from gemstones.study import Study

Array = NDArray[np.float64]
MEAN = "mean"  # of all tasks: stands where a task's name does
CHECKPOINT = [name for name in KEY if name != "validation_set"]
# Fewer runs, or rows for each parameter, make no law.
FEWEST_RUNS, FEWEST_ROWS = 5, 4
STEEPNESS = (1.0, 2.5, 6.0)  # of starts, per nat


class Law(NamedTuple):
    """A curve over the loss.

    Attributes
    ----------
    predict : from losses (…) and parameters (p,), or (p, 1) for several laws, to values.
    fit : from losses, values and weights (n,) and starts, each (p,), to parameters (p,).
    starts : from losses and values to starts.
    """

    name: str
    equation: str
    parameters: tuple[str, ...]
    predict: Callable[[Array, Array], Array]
    fit: Callable[[Array, Array, Array, Sequence[Array]], Array]
    starts: Callable[[Array, Array], list[Array]]


@dataclass(frozen=True)
class Downstream:
    """Fitted laws, and what they were fitted to.

    Attributes
    ----------
    laws : one row a law and task: parameters with their intervals, fit and held-out errors (in accuracy, as a share).
    points : one row a law, task and checkpoint: loss, value, standard_error, fitted, and held_out, as predicted by the law of
        all other runs.
    resamples : one row a law, task and resample: its parameters.
    """

    laws: pd.DataFrame
    points: pd.DataFrame
    resamples: pd.DataFrame

    def to_json(self) -> dict[str, Any]:
        """The laws as plain data, with their equations."""
        known = [
            {key: value for key, value in row.items() if not (isinstance(value, float) and math.isnan(value))}
            for row in self.laws.to_dict("records")
        ]
        return {"equations": {law.name: law.equation for law in LAWS}, "laws": known, "versions": versions()}


def _predict_error(loss: Array, p: Array) -> Array:
    k, gamma, epsilon = p
    return np.asarray(epsilon - k * np.exp(-gamma * loss))


def _fit_error(loss: Array, value: Array, weights: Array, starts: Sequence[Array]) -> Array:
    """Parameters with log k at the middle of the losses, so that the three are of one size and hardly correlated."""
    middle = loss.mean()

    def inner(p: Array) -> Array:
        return np.array([math.log(p[0]) - p[1] * middle, p[1], p[2]])

    def curve(q: Array) -> tuple[Array, Array]:
        term = np.exp(q[0] - q[1] * (loss - middle))
        return q[2] - term, np.stack([-term, (loss - middle) * term, np.ones_like(loss)], axis=1)

    q = _least(curve, value, weights, [inner(start) for start in starts])
    return np.array([math.exp(q[0] + q[1] * middle), q[1], q[2]])


def _error_starts(loss: Array, value: Array) -> list[Array]:
    level, middle = value.max() + 0.1 * np.ptp(value), loss.mean()
    return [np.array([(level - value.mean()) * math.exp(gamma * middle), gamma, level]) for gamma in STEEPNESS]


def _predict_accuracy(loss: Array, p: Array) -> Array:
    a, k, middle, b = p
    return np.asarray(a * expit(k * (loss - middle)) + b)


def _fit_accuracy(loss: Array, value: Array, weights: Array, starts: Sequence[Array]) -> Array:
    """First with a + b = 1; where a lower end fits better, with all four parameters."""

    def curve(p: Array) -> tuple[Array, Array]:
        a, k, middle, b = p
        share = expit(k * (loss - middle))
        slope = a * share * (1 - share)
        derivatives = [share, slope * (loss - middle), -slope * k, np.ones_like(loss)]
        return a * share + b, np.stack(derivatives, axis=1)

    def up_to_one(q: Array) -> tuple[Array, Array]:
        predicted, derivatives = curve(np.array([1 - q[2], *q]))
        derivatives[:, 3] -= derivatives[:, 0]  # a = 1 - b
        return predicted, derivatives[:, 1:]

    k, middle, b = _least(up_to_one, value, weights, [start[1:] for start in starts])
    bounded = np.array([1 - b, k, middle, b])
    predicted, derivatives = curve(bounded)
    if float(np.sum(weights * (value - predicted) * derivatives[:, 0])) >= 0:
        return bounded
    below = [start for start in starts if start[0] + start[3] < 1]
    free = _least(curve, value, weights, below or [bounded])
    return free if 0 < free[0] <= 1 - free[3] and free[1] < 0 else bounded


def _accuracy_starts(loss: Array, value: Array) -> list[Array]:
    low, high = value.min(), value.max()
    middles = (loss.min() - 1, loss.min(), np.median(loss))
    return [np.array([1.2 * (high - low), -k, middle, low]) for k in STEEPNESS for middle in middles]


ERROR = Law(
    "error", "error = epsilon - k exp(-gamma L)", ("k", "gamma", "epsilon"), _predict_error, _fit_error, _error_starts
)
ACCURACY = Law(
    "accuracy",
    "accuracy = a / (1 + exp(-k (L - loss_0))) + b",
    ("a", "k", "loss_0", "b"),
    _predict_accuracy,
    _fit_accuracy,
    _accuracy_starts,
)
LAWS = (ERROR, ACCURACY)


def _least(
    curve: Callable[[Array], tuple[Array, Array]], value: Array, weights: Array, starts: Sequence[Array]
) -> Array:
    """The best minimum of the weighted squares that the starts lead to."""
    root = np.sqrt(weights)
    found = [
        least_squares(
            lambda p: root * (curve(p)[0] - value),
            start,
            lambda p: root[:, None] * curve(p)[1],
            method="lm",
            x_scale="jac",
            max_nfev=200,
        )
        for start in starts
    ]
    return np.asarray(min(found, key=lambda result: float(result.cost)).x)


def fit_downstream(losses: pd.DataFrame, benchmarks: pd.DataFrame, study: Study) -> Downstream:
    """Fit both laws: the error to the mean of all tasks, the accuracy to each task and to the mean.

    Parameters
    ----------
    losses : the losses table; of its rows, those on `losses.validation_set`.
    benchmarks : as :data:`gemstones.losses.benchmarks.COLUMNS` says, of one source.
    study : gives the number of resamples and level of the intervals, whose unit is the run; the seed; and which models are
        large, to be predicted from the others, besides each run from all others.

    Raises
    ------
    UserError
        If too few checkpoints have both a loss and accuracies, or some have several.
    """
    if main := study.losses.validation_set:
        losses = losses[losses["validation_set"] == main]
    check_one_set(losses, "laws from loss to accuracy")
    points = checkpoints(losses, benchmarks)
    tasks = [MEAN, *sorted(set(points["task"]) - {MEAN})]
    parts = [
        _fit(law, task, points[points["task"] == task], study)
        for law in LAWS
        for task in (tasks if law is ACCURACY else [MEAN])
    ]
    laws, of_points, resamples = zip(*parts, strict=True)
    return Downstream(pd.DataFrame(laws), *(pd.concat(part, ignore_index=True) for part in (of_points, resamples)))


def checkpoints(losses: pd.DataFrame, benchmarks: pd.DataFrame) -> pd.DataFrame:
    """Checkpoints with a loss and accuracies: one row a task, and one for the mean where all tasks are there.

    Returns
    -------
    DataFrame with suite, run, step, params, width, depth, loss, task, accuracy, standard_error, random_chance.
    """
    if benchmarks["source"].nunique() > 1:
        raise UserError(f"benchmarks: accuracies of several sources ({', '.join(sorted(set(benchmarks['source'])))})")
    shape = ["params", "width", "depth"]
    known = losses.loc[losses["run"].notna(), [*CHECKPOINT, *shape, "loss"]]
    rows = known.merge(benchmarks.drop(columns=shape), on=CHECKPOINT)
    columns = [*CHECKPOINT, *shape, "loss", "task", "accuracy", "standard_error", "random_chance"]
    tasks = rows.groupby([*CHECKPOINT, *shape, "loss"], as_index=False)
    n = benchmarks["task"].nunique()
    mean = tasks.agg(
        tasks=("task", "nunique"),
        accuracy=("accuracy", "mean"),
        standard_error=("standard_error", lambda errors: math.sqrt(float(np.sum(errors**2))) / len(errors)),
        random_chance=("random_chance", "mean"),
    )
    return pd.concat([rows[columns], mean[mean["tasks"] == n].assign(task=MEAN)[columns]], ignore_index=True)


def pages(laws: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The laws as tables for a page, each with its equation and its own parameters."""
    return {
        law.equation: laws[laws["law"] == law.name].drop(columns="law").dropna(axis="columns", how="all")
        for law in LAWS
    }


def _fit(law: Law, task: str, points: pd.DataFrame, study: Study) -> tuple[dict[str, Any], pd.DataFrame, pd.DataFrame]:
    points = points.sort_values(CHECKPOINT, ignore_index=True)
    names, run = np.unique((points["suite"] + "/" + points["run"]).to_numpy(dtype=str), return_inverse=True)
    n, n_runs, n_parameters = len(points), len(names), len(law.parameters)
    if n < FEWEST_ROWS * n_parameters or n_runs < FEWEST_RUNS:
        raise UserError(
            f"benchmarks: {n} checkpoints of {n_runs} runs have a loss and an accuracy on {task}; wanted: at least "
            f"{FEWEST_ROWS * n_parameters} of {FEWEST_RUNS} runs"
        )
    accuracy = points["accuracy"].to_numpy(float)
    loss, value = points["loss"].to_numpy(float), 1 - accuracy if law is ERROR else accuracy
    best = law.fit(loss, value, np.ones(n), law.starts(loss, value))
    fitted = law.predict(loss, best)

    def again(weights: Array) -> Array:
        return law.fit(loss, value, weights, [best])

    left_out = np.empty(n)
    for i in range(n_runs):
        left_out[run == i] = law.predict(loss[run == i], again((run != i).astype(float)))
    # The same weights for all tasks.
    draws = np.random.default_rng(study.seed).dirichlet(np.ones(n_runs), study.bootstrap.resamples) * n_runs
    resampled = np.array([again(weights[run]) for weights in draws]).reshape(-1, n_parameters)
    tail = expanded_tail(study.bootstrap.level, n_runs, n_parameters)
    ends = np.quantile(resampled, [tail, 1 - tail], axis=0) if len(resampled) else np.full((2, n_parameters), np.nan)
    small = points["params"].to_numpy(float) <= (study.holdout.params_at_most or np.inf)
    large = np.nan
    if not small.all() and len(set(run[small])) >= FEWEST_RUNS:
        large = float(np.abs(law.predict(loss[~small], again(small.astype(float))) - value[~small]).mean())
    row: dict[str, Any] = {"law": law.name, "task": task, "rows": n, "runs": n_runs}
    for name, estimate, low, high in zip(law.parameters, best, *ends, strict=True):
        row |= {name: float(estimate), f"{name}_low": float(low), f"{name}_high": float(high)}
    row |= {
        "random_chance": float(points["random_chance"].iloc[0]),
        # The accuracy that the curve goes to at high losses and, where it has an end, at low ones; at 1 the data do not tell it.
        "floor": float(1 - best[2] if law is ERROR else best[3]),
        "ceiling": np.nan if law is ERROR else float(best[0] + best[3]),
        "r_squared": float(1 - np.sum((value - fitted) ** 2) / np.sum((value - value.mean()) ** 2)),
        "root_mean_square_error": float(np.sqrt(np.mean((value - fitted) ** 2))),
        "mean_absolute_error": float(np.abs(value - fitted).mean()),
        "leave_one_run_out_mean_absolute_error": float(np.abs(value - left_out).mean()),
        "small_to_large_mean_absolute_error": large,
        "sampling_error": float(np.sqrt(np.mean(points["standard_error"].to_numpy(float) ** 2))),
    }
    drawn = points[[*CHECKPOINT, "params", "width", "depth", "loss", "standard_error"]].assign(
        law=law.name, task=task, value=value, fitted=fitted, held_out=left_out
    )
    table = pd.DataFrame(resampled, columns=list(law.parameters)).assign(law=law.name, task=task)
    return row, drawn, table


def band(law: Law, resamples: pd.DataFrame, loss: ArrayLike, level: float, runs: int) -> tuple[Array, Array]:
    """Ends (n,) of the interval of a law's curve at losses (n,).

    Parameters
    ----------
    resamples : of this law and one task.
    runs : how many there were to resample.
    """
    values = law.predict(np.asarray(loss, dtype=float), resamples[list(law.parameters)].to_numpy(float).T[:, :, None])
    tail = expanded_tail(level, runs, len(law.parameters))
    low, high = np.quantile(values, [tail, 1 - tail], axis=0)
    return low, high
