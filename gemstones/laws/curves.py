"""Curves from the validation loss to error and accuracy, and how they are fitted by least squares.

The error of Gadre et al. (2024, arXiv 2403.08540), err = ε − k·exp(−γL), and the accuracy of Bhagia et al. (2024, arXiv
2412.04403), acc = a / (1 + exp(−k(L − L₀))) + b. The logistic curve ends at a + b for low losses, and no accuracy exceeds 1: where
the data lie before the bend, so that they do not tell its end, a + b is 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.special import expit

Array = NDArray[np.float64]
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
