"""Laws from the validation loss to benchmarks, at checkpoints that have both: mean error, and accuracy of each task.

Their forms are those of Gadre et al. and of Bhagia et al. (:mod:`gemstones.laws.curves`). The latter take for L the loss on the task's own
answers, which the Gemstones authors did not release: here it is the validation loss for both. Intervals are those of the other laws:
runs weighed at random, percentiles expanded (:mod:`gemstones.laws.uncertainty`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from gemstones.errors import UserError
from gemstones.files import write_csv, write_json, write_parquet
from gemstones.laws.curves import ACCURACY, ERROR, LAWS, Law
from gemstones.laws.rows import versions
from gemstones.laws.uncertainty import expanded_tail
from gemstones.losses.benchmarks import error_of_mean
from gemstones.losses.columns import KEY
from gemstones.losses.selections import check_one_set
from gemstones.report import write_html_table

if TYPE_CHECKING:
    from gemstones.study import Study

Array = NDArray[np.float64]
MEAN = "mean"  # of all tasks: stands where a task's name does
CHECKPOINT = [name for name in KEY if name != "validation_set"]
# Fewer runs, or rows for each parameter, make no law.
FEWEST_RUNS, FEWEST_ROWS = 5, 4


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

    def write(self, json: str, csv: str, points: str, resamples: str, html: str) -> None:
        """Write each part to its file, and the laws as JSON and as a page too."""
        write_json(self.to_json(), json)
        write_csv(self.laws, csv)
        write_parquet(self.points, points)
        write_parquet(self.resamples, resamples)
        write_html_table(pages(self.laws), html, "From loss to error and accuracy")


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
    DataFrame with suite, run, step, params, width, depth, loss, task, accuracy, standard_error (null where it is not known),
    random_chance.
    """
    if benchmarks["source"].nunique() > 1:
        raise UserError(f"benchmarks: accuracies of several sources ({', '.join(sorted(set(benchmarks['source'])))})")
    of_task = ["task", "accuracy", "standard_error", "random_chance"]
    of_checkpoint = [*CHECKPOINT, "params", "width", "depth", "loss"]
    known = losses.loc[losses["run"].notna(), of_checkpoint]
    rows = known.merge(benchmarks[[*CHECKPOINT, *of_task]], on=CHECKPOINT)[[*of_checkpoint, *of_task]]
    mean = rows.groupby(of_checkpoint, as_index=False).agg(
        tasks=("task", "nunique"),
        accuracy=("accuracy", "mean"),
        standard_error=("standard_error", error_of_mean),
        random_chance=("random_chance", "mean"),
    )
    mean = mean[mean["tasks"] == benchmarks["task"].nunique()].drop(columns="tasks").assign(task=MEAN)
    return pd.concat([rows, mean], ignore_index=True)


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
    ends = _ends(resampled, study.bootstrap.level, n_runs, n_parameters)
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
    """Ends (n,) of the interval of a law's curve at losses (n,); not-a-number without resamples.

    Parameters
    ----------
    resamples : of this law and one task.
    runs : how many there were to resample.
    """
    values = law.predict(np.asarray(loss, dtype=float), resamples[list(law.parameters)].to_numpy(float).T[:, :, None])
    low, high = _ends(values, level, runs, len(law.parameters))
    return low, high


def _ends(values: Array, level: float, runs: int, parameters: int) -> Array:
    """Both ends (2, …) of the intervals of what resamples say, (resamples, …)."""
    if not len(values):
        return np.full((2, *values.shape[1:]), np.nan)
    tail = expanded_tail(level, runs, parameters)
    return np.asarray(np.quantile(values, [tail, 1 - tail], axis=0))
