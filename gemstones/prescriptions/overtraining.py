"""The loss of training longer, and smaller, than the optimum at the same FLOPs (Gemstones, Figure 8)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from gemstones.laws.fit import HuberFit
from gemstones.laws.power_law import PowerLaw
from gemstones.prescriptions.optimum import Array, Search, extrapolated, real_params, zoom

if TYPE_CHECKING:
    from gemstones.study import Suite

# From a sixteenth of the optimal tokens per parameter to sixteen times as many.
FACTORS = tuple(2.0 ** (exponent / 4) for exponent in range(-16, 17))
COLUMNS = [
    "fit", "flops", "factor", "tokens", "width", "depth", "aspect_ratio", "params", "tokens_per_param", "loss",
    "loss_increase", "extrapolated",
]  # fmt: skip


def overtraining(
    law: HuberFit | PowerLaw,
    budgets: Iterable[float],
    suite: Suite,
    fit: str = "",
    factors: Iterable[float] = FACTORS,
    max_flops: float | None = None,
) -> pd.DataFrame:
    """Best shapes where tokens are T*·√factor, with T* from the relaxed optimum at the budget.

    At fixed FLOPs, tokens and parameters move against each other, so that tokens per parameter change by about
    `factor`. Given the width, FLOPs per token leave one depth, so this is a search over the width alone.

    Parameters
    ----------
    law, suite, fit, max_flops : as for :func:`gemstones.prescriptions.optimum.prescribe`.
    budgets : in FLOPs.
    factors : factors on tokens per parameter.

    Returns
    -------
    DataFrame with `COLUMNS`; `loss_increase` is in nats, over the relaxed optimum. Where even the smallest shape costs
    too much for that many tokens, shape, params and losses are null.

    Raises
    ------
    UserError
        If a budget does not pay for one token of the smallest shape.
    """
    search = Search.of(law, suite)
    given, factor = np.array(list(budgets), dtype=float), np.array(list(factors), dtype=float)
    flops, factor, count = np.repeat(given, len(factor)), np.tile(factor, len(given)), len(factor)
    best_width, best_depth = (np.repeat(column, count) for column in search.relaxed(given))
    tokens = flops / search.flops_per_token(best_width, best_depth) * np.sqrt(factor)
    width, depth = _best_shapes(search, flops, tokens)
    params = real_params(width, depth, search.architecture)
    loss = search.predict(width, depth, tokens)
    table = pd.DataFrame(
        {
            "fit": fit,
            "flops": flops,
            "factor": factor,
            "tokens": tokens,
            "width": width,
            "depth": depth,
            "aspect_ratio": width / depth,
            "params": params,
            "tokens_per_param": tokens / params,
            "loss": loss,
            "loss_increase": loss - search.loss(best_width, best_depth, flops),
        }
    )
    return table.assign(extrapolated=extrapolated(table["flops"], law, max_flops))[COLUMNS]


def _best_shapes(search: Search, flops: Array, tokens: Array) -> tuple[Array, Array]:
    """Widths and depths (m,) of the lowest loss among shapes that spend `flops` (m,) on `tokens` (m,); nan for none."""
    per_token = flops / tokens
    possible = per_token >= search.flops_per_token(search.width_step, search.min_depth)
    width, depth = np.full((2, len(flops)), np.nan)
    if not possible.any():
        return width, depth
    per_token, tokens = per_token[possible], tokens[possible]

    def depth_at(width: Array, per_token: Array) -> Array:
        base, per_layer = search.affine_flops(width)
        return np.maximum((per_token - base) / per_layer, search.min_depth)  # rounding at the widest shape

    def loss(log_width: Array) -> Array:
        at = np.exp(log_width)
        return search.predict(at, depth_at(at, per_token[:, None]), tokens[:, None])

    low = np.full(len(per_token), np.log(search.width_step))
    high = np.log([search.largest_width(value) for value in per_token.tolist()])
    best = np.maximum(np.exp(zoom(loss, low, high)), search.width_step)
    width[possible], depth[possible] = best, depth_at(best, per_token)
    return width, depth
