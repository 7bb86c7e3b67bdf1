"""Suites of losses that follow a known law, with errors like those of a real suite.

The error of a log loss is the sum of six: an offset that is a smooth function of the shape, one of the run, a start that fades with
tokens, a walk along the run, noise of each checkpoint, and rare spikes upwards. Their sizes are the config's (:class:`gemstones.study.Errors`), chosen such that the
residuals of a law fitted to simulated losses look like those of the same law fitted to the authors' losses: see
:func:`statistics`, and the golden test that compares them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import signal, stats

from gemstones.laws.power_law import PowerLaw
from gemstones.study import Errors, Study, TrueLaw
from gemstones.suite import counting
from gemstones.suite.shapes import architecture, parse, selected

Array = NDArray[np.float64]

# Runs' offsets have heavy tails: one of the authors' 22 runs lies ten times as far from their law as the middle one.
OFFSET_FREEDOM = 3
# Length, in log width and log depth, over which an offset that is a function of shape changes.
SMOOTH = 1.0
# Robust standard deviation of numbers whose median distance from their median is 1, were they normal.
NORMAL = 1.4826
# A checkpoint is a spike if it differs from the mean of its neighbours by more than this many robust standard deviations.
SPIKE = 6


def checkpoints(study: Study, shapes: Sequence[str] = ()) -> pd.DataFrame:
    """Rows of a suite without losses, run by run: run, width, depth, params, tokens, flops.

    Parameters
    ----------
    study : gives the shapes (all, if none are named), their architecture, the batch size and the checkpoints' steps.
    """
    if study.simulation is None:
        raise ValueError("the study has no section simulation")
    arch = architecture(study.suite)
    every = study.simulation.evaluate_every
    tokens = np.arange(every, study.simulation.steps + 1, every) * float(study.recipe.batch_size * arch.context_length)
    runs = []
    for shape in shapes or selected(study.suite):
        width, depth = parse(shape)
        flops = counting.flops_per_token(width, depth, arch) * tokens
        params = float(counting.params(width, depth, arch))
        runs.append(
            pd.DataFrame(
                {"run": shape, "width": width, "depth": depth, "params": params, "tokens": tokens, "flops": flops}
            )
        )
    return pd.concat(runs, ignore_index=True)


def law_of(truth: TrueLaw) -> PowerLaw:
    """The law of a config entry."""
    return PowerLaw(truth.covariates, truth.exponents, truth.log_coefficients, truth.irreducible_loss)


def suite(rows: pd.DataFrame, truth: TrueLaw, generator: np.random.Generator) -> pd.DataFrame:
    """The rows of :func:`checkpoints` with `loss`, in nats per token."""
    tokens = rows.loc[rows["run"] == rows["run"].iloc[0], "tokens"].to_numpy()
    error = errors(truth.errors, tokens, rows["run"].nunique(), generator)
    if truth.errors.shape:
        shapes = rows.drop_duplicates("run")
        error = (
            error
            + truth.errors.shape
            * smooth(shapes["width"].to_numpy(float), shapes["depth"].to_numpy(float), generator)[:, None]
        )
    return rows.assign(loss=law_of(truth).predict(rows) * np.exp(error.ravel()))


def smooth(width: Array, depth: Array, generator: np.random.Generator) -> Array:
    """A random smooth function of the shape, (runs,), with a standard deviation of 1 at each shape.

    It is Gaussian, with a correlation that falls to exp(−1/2) where width or depth change by a factor of e: a run's offset says much of
    those of its neighbours, and little of the other end of the suite.
    """
    place = np.log(np.stack([width, depth], axis=1))
    squares = ((place[:, None] - place) ** 2).sum(-1)
    covariance = np.exp(-squares / (2 * SMOOTH**2)) + 1e-9 * np.eye(len(place))
    return np.asarray(np.linalg.cholesky(covariance) @ generator.standard_normal(len(place)))


def errors(spec: Errors, tokens: Array, runs: int, generator: np.random.Generator) -> Array:
    """Errors of log losses, (runs, checkpoints), at increasing `tokens` (checkpoints,)."""
    size = (runs, len(tokens))
    fading = (tokens / tokens[0]) ** -spec.start_decay
    offset = spec.run * generator.standard_t(OFFSET_FREEDOM, (runs, 1))
    # A law passes through the middle of a run, so that its start is what differs from there.
    start = spec.start * generator.standard_normal((runs, 1)) * (fading - np.median(fading))
    steps = generator.standard_normal(size)
    steps[:, 1:] *= np.sqrt(1 - spec.drift_lag**2)
    walk = spec.drift * signal.lfilter([1.0], [1.0, -spec.drift_lag], steps, axis=1)
    noise = spec.noise * generator.standard_normal(size)
    spikes = np.abs(spec.spike * generator.standard_normal(size)) * (generator.random(size) < spec.spike_share)
    return offset + start + walk + noise + spikes


def statistics(residuals: Array) -> dict[str, float]:
    """What the residuals of log losses look like: sizes (standard deviations, in log loss), correlation, tails.

    Parameters
    ----------
    residuals : (runs, checkpoints) by increasing tokens.

    Returns
    -------
    all, all_robust : of all residuals; robust from the median distance to the median.
    runs, runs_robust : of the runs' medians.
    start, second, fifth : root mean square, over runs, of the first checkpoints' distance from their run's median.
    later : within runs, from the sixth checkpoint on.
    lag : correlation of neighbouring checkpoints within runs.
    noise : robust, of what a checkpoint has of its own, from its distance to the mean of its neighbours.
    spikes : share of checkpoints further than 6 robust standard deviations from the mean of their neighbours, and above both.
    kurtosis : excess, of all residuals.
    """
    middle = np.median(residuals, axis=1, keepdims=True)
    from_middle = residuals - middle
    within = residuals - residuals.mean(1, keepdims=True)
    later = residuals[:, 5:] - residuals[:, 5:].mean(1, keepdims=True)
    beside = residuals[:, 1:-1] - (residuals[:, :-2] + residuals[:, 2:]) / 2
    above = residuals[:, 1:-1] > np.maximum(residuals[:, :-2], residuals[:, 2:])
    return {
        "all": float(residuals.std()),
        "all_robust": _robust(residuals),
        "runs": float(middle.std(ddof=1)),
        "runs_robust": _robust(middle),
        "start": float(np.sqrt(np.mean(from_middle[:, 0] ** 2))),
        "second": float(np.sqrt(np.mean(from_middle[:, 1] ** 2))),
        "fifth": float(np.sqrt(np.mean(from_middle[:, 4] ** 2))),
        "later": float(np.sqrt(np.mean(later**2))),
        "lag": float((within[:, 1:] * within[:, :-1]).sum() / (within**2).sum()),
        "noise": _robust(beside) / np.sqrt(1.5),
        "spikes": float(np.mean((beside > SPIKE * _robust(beside)) & above)),
        "kurtosis": float(stats.kurtosis(residuals.ravel())),
    }


def _robust(values: Array) -> float:
    return float(NORMAL * np.median(np.abs(values - np.median(values))))
