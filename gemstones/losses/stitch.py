"""One continuous curve from a run's segments, of which the later one wins, and whether it is continuous at the joints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

KEY = ["kind", "validation_set", "step"]
# Steps on each side of a joint that are compared; no more than a third of the way there, since the early curve is steep.
WINDOW, SHORTEST, PART = 100, 10, 3
# A repeated step has the same batch, so that next to nothing of a step's scatter is left in its change; and in nats.
REPEATED, ROUNDING = 0.01, 1e-5


def segmented(rows: Iterable[Mapping[str, Any]], last_step: int | None = None) -> pd.DataFrame:
    """Rows of training steps and evaluations as they were written, each with what the `start` row before it says.

    Parameters
    ----------
    rows : of a metrics file, in its order.
    last_step : rows after it are left out.

    Returns
    -------
    DataFrame with the rows' own columns, `segment` (counted from 1) and `num_nodes`, `gpus` and `roll_backs` of its start.
    """
    segment, start = 0, dict[str, Any]()
    found = []
    for row in rows:
        if row["kind"] == "start":
            segment += 1
            start = {name: row.get(name) for name in ("num_nodes", "gpus")} | {"roll_backs": row.get("roll_backs", 0)}
        elif row["kind"] in ("train", "validation") and (last_step is None or row["step"] <= last_step):
            found.append({"validation_set": None, "seconds": None, "roll_backs": 0, **row, **start, "segment": segment})
    return pd.DataFrame(found, columns=None if found else [*KEY, "loss", "seconds", "roll_backs", "segment"])


def stitch(segments: pd.DataFrame) -> pd.DataFrame:
    """One row for each kind, validation set and step, the later one of those that repeat, in this order."""
    return segments.drop_duplicates(KEY, keep="last").sort_values(KEY, ignore_index=True)


def discontinuity(segments: pd.DataFrame, sigmas: float) -> str | None:
    """What is not continuous in a run, or None.

    A step that was repeated after a resume has the same batch and, but for rounding, the same weights, so that its loss must not
    change by much: on average over the repeated steps no more than `sigmas` times the larger of a hundredth of the scatter of
    the training loss there and the standard error of the changes, if below that scatter. Steps that a roll-back repeats have other batches.

    At a joint, a parabola over up to 100 steps on either side, with a jump, is fitted to the training loss; the jump must be within `sigmas` of its standard errors. The scatter is the larger of the residuals' and the robust
    one of first differences, so that neither spikes nor a bend of the curve pass for a jump. Joints of roll-backs and those
    with fewer than ten steps on a side, or before step 30, are not judged in this way.

    Parameters
    ----------
    segments : as :func:`segmented` gives it.
    sigmas : standard errors that a change or a jump may have.
    """
    curve = stitch(segments[segments["kind"] == "train"])
    return _changed(segments, curve, sigmas) or _jump(curve, sigmas)


def _changed(segments: pd.DataFrame, curve: pd.DataFrame, sigmas: float) -> str | None:
    change = segments.groupby([*KEY, "roll_backs"], dropna=False)["loss"].diff()
    repeated = segments.assign(change=change)[change.notna()]
    for (_, kind, _), part in repeated.groupby(["segment", "kind", "validation_set"], dropna=False):
        first, last = part["step"].min(), part["step"].max()
        near = curve["loss"][curve["step"].between(first - WINDOW, last + WINDOW)].to_numpy()
        scatter = _scatter(near)
        of_mean = float(np.std(part["change"]) / np.sqrt(len(part)))
        error = max(REPEATED * scatter, min(of_mean, scatter), ROUNDING)
        mean = part["change"].mean()
        if abs(mean) > sigmas * error:
            what = f"step {first}" if first == last else f"steps {first} to {last}"
            return f"the {kind} loss of {what}, repeated after a resume, changed by {_in_sigmas(mean, error, sigmas)}"
    return None


def _jump(curve: pd.DataFrame, sigmas: float) -> str | None:
    step, loss, segment = (curve[name].to_numpy() for name in ("step", "loss", "segment"))
    joints = np.flatnonzero(np.diff(segment)) + 1  # the first rows of what follows
    ends = [0, *joints, len(curve)]
    for before, joint, after in zip(ends, joints, ends[2:], strict=False):
        size = min(WINDOW, int(step[joint - 1]) // PART, joint - before, after - joint)
        if size < SHORTEST or curve["roll_backs"].iloc[joint] != curve["roll_backs"].iloc[joint - 1]:
            continue
        near = slice(joint - size, joint + size)
        t = (step[near] - step[joint]) / size
        design = np.stack([np.ones(2 * size), t, t**2, np.arange(2 * size) >= size], axis=1)
        covariance = np.linalg.inv(design.T @ design)
        fitted = covariance @ design.T @ loss[near]
        residual = np.linalg.norm(loss[near] - design @ fitted) / np.sqrt(2 * size - len(fitted))
        error = max(residual, _scatter(loss[near]), ROUNDING) * np.sqrt(covariance[-1, -1])
        if abs(fitted[-1]) > sigmas * error:
            return (
                f"the training loss jumps by {_in_sigmas(fitted[-1], error, sigmas)} where the run was resumed at step "
                f"{step[joint - 1]}"
            )
    return None


def _scatter(losses: np.ndarray) -> float:
    """Robust standard deviation of one step's loss about its trend, from first differences; 0 where there are too few."""
    differences = np.diff(losses)
    if len(differences) < 5:
        return 0.0
    return float(1.4826 * np.median(np.abs(differences - np.median(differences))) / np.sqrt(2))


def _in_sigmas(value: float, error: float, sigmas: float) -> str:
    return f"{value:+.3g} nats, {abs(value) / error:.1f} sigma of {error:.2g} (losses.continuity_sigmas: {sigmas:g}),"
