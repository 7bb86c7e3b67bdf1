"""Anomalies of a losses table: spikes, gaps and unusual speeds, each with a sentence that says why. Nothing is changed."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import least_squares

# A row is compared with up to this many rows before it and after it, so that a bump of several rows stands out too.
WINDOW = 8
# Rows that lie further apart in tokens are not compared: over a factor of two, a loss curve is nearly straight in log-log.
SPAN = np.log(2)
# Noise is never taken to be less (in log loss), so that smooth or rounded losses raise no alarm.
LEAST_NOISE = 1e-4
# From so many comparisons on, a run's noise is its own; with fewer, that of its phase counts too (a geometric mean).
ENOUGH_ROWS = 30
# Robust standard deviations from what is expected. Of the authors' 4,850 main and ablation rows, nine lie above 9, all in
# bumps that the eye sees in the curve, and no other above 6.9; normal noise would exceed 8 once in 1e15 rows.
SIGMAS = 8.0
# Siblings: same width, and FLOPs per token within this factor. Two or more of them say how many nodes are usual.
SIBLING_FLOPS = 1.5
# Speeds follow width and depth within a factor of 1.3 in the authors' runs; less than this is never unusual.
SPEED_FACTOR = 1.5
# Fewer runs leave the dependence of speed on width and depth open.
FEWEST_RUNS = 8
# A median absolute deviation of normal noise, times this, is its standard deviation.
MAD_TO_SIGMA = 1.4826


class Anomaly(NamedTuple):
    """One line of the table of anomalies.

    Attributes
    ----------
    step : of the row; the first missing one of a gap; none for what concerns the whole run.
    kind : spike, gap or throughput.
    quantity, value, expected : what is unusual, with its unit: loss_nats, evaluations, cooldowns, rows_with_time,
        num_nodes, flops_per_second_per_gpu.
    """

    suite: str
    run: str
    step: int | None
    validation_set: str | None
    kind: str
    quantity: str
    value: float
    expected: float
    reason: str


DTYPES = {
    **dict.fromkeys(["suite", "run", "validation_set"], "string"),
    "step": "Int64",
    **dict.fromkeys(["value", "expected"], "float64"),
}


def find_anomalies(losses: pd.DataFrame, excluded: pd.DataFrame | None = None) -> pd.DataFrame:
    """Rows and runs of a losses table that a person should look at.

    Parameters
    ----------
    losses : the losses table; rows that name no run are passed over.
    excluded : rows that were taken out of it, which are no gaps.

    Returns
    -------
    DataFrame with the fields of :class:`Anomaly` and `deviation` (value − expected), by kind, suite, run and step.
    """
    everything = losses
    if excluded is not None and len(excluded):
        everything = pd.concat([losses, excluded[[*losses]]], ignore_index=True)
    rows, everything = (table[table["run"].notna() & table["step"].notna()] for table in (losses, everything))
    found = [*_spikes(rows), *_gaps(everything), *_missing_cooldowns(everything), *_untimed(rows), *_throughput(rows)]
    table = pd.DataFrame(found, columns=list(Anomaly._fields)).astype(DTYPES)
    table.insert(len(table.columns) - 1, "deviation", table["value"] - table["expected"])
    table["kind"] = pd.Categorical(table["kind"], ["spike", "gap", "throughput"])
    order = ["kind", "suite", "run", "step", "validation_set"]
    return table.sort_values(order, ignore_index=True).astype({"kind": str})


def read(path: str | Path) -> pd.DataFrame:
    """Read a table of anomalies that was written as CSV."""
    return pd.read_csv(path, dtype=DTYPES)


def expected_log_loss(log_tokens: NDArray[np.float64], log_loss: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a run's other rows say of each row's log loss.

    The median of the straight lines through pairs of near rows: one before and one after or, for the last row, both before.
    NaN where there is no such pair, as for the first row.

    Parameters
    ----------
    log_tokens, log_loss : (n,), by increasing tokens.
    """
    n = len(log_loss)
    here, offsets = np.arange(n)[:, None], np.arange(1, WINDOW + 1)
    nearer, farther = offsets[np.stack(np.triu_indices(WINDOW, 1))]

    def median_of_lines(here: NDArray[np.int_], a: NDArray[np.int_], b: NDArray[np.int_]) -> NDArray[np.float64]:
        inside = (a >= 0) & (b < n)
        a, b = np.clip(a, 0, n - 1), np.clip(b, 0, n - 1)  # (rows, pairs)
        near = inside & (log_tokens[np.maximum(b, here)] - log_tokens[a] <= SPAN + 1e-9)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.filterwarnings("ignore", "All-NaN slice")
            share = (log_tokens[here] - log_tokens[a]) / (log_tokens[b] - log_tokens[a])
            return np.nanmedian(np.where(near, (1 - share) * log_loss[a] + share * log_loss[b], np.nan), axis=1)

    before, after = (pairs.ravel() for pairs in np.meshgrid(offsets, offsets))
    expected = median_of_lines(here, here - before, here + after)
    expected[-1:] = median_of_lines(here[-1:], here[-1:] - farther, here[-1:] - nearer)
    return expected


def _spikes(rows: pd.DataFrame) -> Iterator[Anomaly]:
    """Losses far above the lines through the rows around them, and above a row before them.

    Only above: where a loss curve is steep, it bends upwards, and every row lies below such lines. Where it bends the
    other way, as in warm-up, it still falls, and no row lies above those before it.
    """
    for _, phase in rows.groupby(["suite", "phase", "validation_set"], dropna=False):
        curves = []
        for _, curve in phase.groupby("run"):
            curve = curve.sort_values("step")
            x, y = (np.log(curve[name].to_numpy(float)) for name in ("tokens", "loss"))
            curves.append((curve, y, expected_log_loss(x, y)))
        pooled = _sigma(np.concatenate([y - expected for _, y, expected in curves]))
        for curve, y, expected in curves:
            residuals = y - expected
            own = min(1, np.isfinite(residuals).sum() / ENOUGH_ROWS)
            noise = max(_sigma(residuals) ** own * pooled ** (1 - own), LEAST_NOISE)
            rises = np.array([(y[max(0, i - WINDOW) : i] < y[i]).any() for i in range(len(y))])
            for i in np.flatnonzero((residuals > SIGMAS * noise) & rises):
                row, usual = curve.iloc[i], float(np.exp(expected[i]))
                reason = (
                    f"the loss is {row['loss'] - usual:.3f} nats above what the rows around it say, "
                    f"{residuals[i] / noise:.0f} times their noise"
                )
                yield Anomaly(*_key(row), "spike", "loss_nats", float(row["loss"]), usual, reason)


def _sigma(residuals: NDArray[np.float64]) -> float:
    """Robust standard deviation about 0; 0 where nothing is known."""
    known = np.abs(residuals[np.isfinite(residuals)])
    return MAD_TO_SIGMA * float(np.median(known)) if len(known) else 0.0


def _gaps(rows: pd.DataFrame) -> Iterator[Anomaly]:
    """Evaluations missing in a run's own stride, or before or after those of most runs of its phase."""
    for _, phase in rows.groupby(["suite", "phase", "anchor", "validation_set"], dropna=False):
        runs = {run: np.sort(curve["step"].to_numpy(int)) for run, curve in phase.groupby("run")}
        common = _in_most(list(runs.values()))
        for run, steps in runs.items():
            key = phase[phase["run"] == run].iloc[0]
            strides, counts = np.unique(np.diff(steps), return_counts=True)
            # A stride that is not most of the distances is no stride, as in evaluations spaced evenly in log.
            stride = int(strides[counts.argmax()]) if len(steps) > 2 and 2 * counts.max() > counts.sum() else None
            grid = np.arange(steps[0], steps[-1], stride) if stride else np.array([], dtype=int)
            missing = np.setdiff1d(grid, steps)
            for at in np.unique(np.searchsorted(steps, missing)):
                hole = missing[(missing > steps[at - 1]) & (missing < steps[at])]
                reason = f"no evaluation between steps {steps[at - 1]} and {steps[at]}, though the run has one every {stride}"
                yield _gap(key, hole, reason)
            late, early = common[common > steps[-1]], common[common < steps[0]]
            others = f"most of the {len(runs)} runs of its phase"
            if len(late):
                yield _gap(key, late, f"ends at step {steps[-1]}, though {others} go on to {late[-1]}")
            if len(early):
                yield _gap(key, early, f"begins at step {steps[0]}, though {others} begin at {early[0]}")


def _gap(key: pd.Series[Any], missing: NDArray[np.int_], reason: str) -> Anomaly:
    suite, run, _, validation_set = _key(key)
    return Anomaly(suite, run, int(missing[0]), validation_set, "gap", "evaluations", 0, len(missing), reason)


def _missing_cooldowns(rows: pd.DataFrame) -> Iterator[Anomaly]:
    """Cooldowns that most shapes have; a shape without any is taken to have none by design."""
    for suite, cooldowns in rows[rows["phase"] == "cooldown"].groupby("suite"):
        anchors = {parent: runs["anchor"].unique().astype(int) for parent, runs in cooldowns.groupby("parent")}
        for parent, own in anchors.items():
            for anchor in np.setdiff1d(_in_most(list(anchors.values())), own):
                has = sum(anchor in others for others in anchors.values())
                reason = f"no cooldown branches from step {anchor}, though {has} of {len(anchors)} shapes have one"
                yield Anomaly(suite, parent, int(anchor), None, "gap", "cooldowns", 0, 1, reason)


def _in_most(steps: list[NDArray[np.int_]]) -> NDArray[np.int_]:
    """Steps that more than half of the runs have, in order."""
    values, counts = np.unique(np.concatenate(steps), return_counts=True)
    return values[2 * counts > len(steps)]


def _untimed(rows: pd.DataFrame) -> Iterator[Anomaly]:
    """Runs with rows that lack a time, in a suite that has times."""
    timed = rows["seconds_per_step"].notna()
    for (suite, run), known in timed[rows["suite"].isin(rows["suite"][timed])].groupby([rows["suite"], rows["run"]]):
        if not known.all():
            reason = f"{(~known).sum()} of {len(known)} rows have no seconds_per_step, and so no GPU-hours"
            yield Anomaly(suite, run, None, None, "gap", "rows_with_time", int(known.sum()), len(known), reason)


def _throughput(rows: pd.DataFrame) -> Iterator[Anomaly]:
    """Runs on another number of nodes than their siblings, or far from the speed that their shape suggests."""
    needed = ["width", "depth", "flops_per_token", "num_nodes", "gpus", "seconds_per_step"]
    rows = rows.dropna(subset=needed)
    keys = ["suite", "phase", "anchor", "run"]
    runs = rows.groupby(keys, dropna=False)[[*needed, "tokens", "step"]].median().astype(float).reset_index()
    tokens_per_step = runs["tokens"] / runs["step"]
    runs["speed"] = runs["flops_per_token"] * tokens_per_step / (runs["seconds_per_step"] * runs["gpus"])
    for _, suite in runs.groupby("suite"):
        usual_speed = _usual_speeds(suite)
        noise = _sigma(np.log(suite["speed"] / usual_speed).to_numpy())
        for (_, run), expected in zip(suite.iterrows(), usual_speed, strict=True):
            siblings = _siblings(suite, run)
            nodes = siblings["num_nodes"].median()
            off = abs(np.log(run["speed"] / expected))
            if len(siblings) > 1 and nodes != run["num_nodes"] and (siblings["num_nodes"] == nodes).mean() > 0.5:
                reason = (
                    f"trained on {run['num_nodes']:.0f} nodes, siblings of its width ({', '.join(siblings['run'])}) on "
                    f"{nodes:.0f}: a device did {run['speed']:.3g} FLOP/s, theirs {siblings['speed'].median():.3g}, "
                    "so that their GPU-hours do not compare"
                )
                flag = ("num_nodes", run["num_nodes"], nodes)
            elif off > max(np.log(SPEED_FACTOR), SIGMAS * noise):
                reason = (
                    f"a device did {run['speed']:.3g} FLOP/s, {run['speed'] / expected:.2g} times what runs of its "
                    "suite do at this width and depth"
                )
                flag = ("flops_per_second_per_gpu", run["speed"], expected)
            else:
                continue
            yield Anomaly(run["suite"], run["run"], None, None, "throughput", *flag, reason)


def _siblings(runs: pd.DataFrame, run: pd.Series[Any]) -> pd.DataFrame:
    """Other runs of the same phase and width whose FLOPs per token are near."""
    same = (runs["run"] != run["run"]) & (runs["phase"] == run["phase"]) & (runs["width"] == run["width"])
    if pd.notna(run["anchor"]):
        same &= runs["anchor"] == run["anchor"]
    near = np.abs(np.log(runs["flops_per_token"] / run["flops_per_token"])) <= np.log(SIBLING_FLOPS)
    return runs[same & near]


def _usual_speeds(runs: pd.DataFrame) -> NDArray[np.float64]:
    """Speeds by a robust straight line in log width and log depth; the runs' own speeds where there are too few."""
    speed = runs["speed"].to_numpy(float)
    if len(runs) < FEWEST_RUNS:
        return speed
    shape = np.log(runs[["width", "depth"]].to_numpy(float))
    design = np.column_stack([np.ones(len(runs)), shape - shape.mean(0)])
    # Residuals beyond 10 % count with a constant force.
    line = least_squares(lambda b: design @ b - np.log(speed), np.zeros(3), loss="soft_l1", f_scale=0.1).x
    return np.exp(design @ line)


def _key(row: pd.Series[Any]) -> tuple[str, str, int, str]:
    return row["suite"], row["run"], int(row["step"]), row["validation_set"]
