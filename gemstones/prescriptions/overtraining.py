"""The loss of training longer, and smaller, than the optimum on the same budget (Gemstones, Figure 8)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from gemstones.laws.fit import HuberFit
from gemstones.laws.power_law import PowerLaw
from gemstones.prescriptions.bands import Laws, batches, relaxed_optima
from gemstones.prescriptions.optimum import beyond_data
from gemstones.prescriptions.search import COARSE_POINTS, Array, Search, real_params, zoom

if TYPE_CHECKING:
    from gemstones.laws.uncertainty import Uncertainty
    from gemstones.prescriptions.speeds import Speeds
    from gemstones.study import Suite

# From a sixteenth of the optimal tokens per parameter to sixteen times as many.
FACTORS = tuple(2.0 ** (exponent / 4) for exponent in range(-16, 17))
COLUMNS = [
    "fit", "resource", "budget", "flops", "gpu_hours", "factor", "tokens", "width", "depth", "aspect_ratio", "params",
    "tokens_per_param", "loss", "loss_low", "loss_high", "loss_increase", "loss_increase_low", "loss_increase_high",
    "extrapolated",
]  # fmt: skip


def overtraining(
    law: HuberFit | PowerLaw,
    budgets: Iterable[float],
    suite: Suite,
    fit: str = "",
    factors: Iterable[float] = FACTORS,
    max_flops: float | None = None,
    uncertainty: Uncertainty | None = None,
    speeds: Speeds | None = None,
    gpu_hours: Iterable[float] = (),
) -> pd.DataFrame:
    """Best shapes where tokens are T*·√factor, with T* from the relaxed optimum on the budget.

    On a fixed budget, tokens and parameters move against each other, so that tokens per parameter change by about
    `factor`. Given the width, the cost of a token leaves one depth, so this is a search over the width alone.

    Parameters
    ----------
    law, suite, fit, max_flops, uncertainty, speeds, gpu_hours : as for :func:`gemstones.prescriptions.optimum.prescribe`.
    budgets : in FLOPs.
    factors : factors on tokens per parameter.

    Returns
    -------
    DataFrame with `COLUMNS`, by resource and budget; `loss_increase` is in nats, over the relaxed optimum. Where even the smallest
    shape costs too much for that many tokens, shape, params and losses are null. Intervals are of what follows for a resample's
    law from the same tokens, with the best shape by that law, and its increase is over its own optimum on the budget. The error
    that all losses of a law share, as of its irreducible loss, is not in it. At `factor` 1, increases are what is lost where
    the fit is followed and the resample's law holds.

    Raises
    ------
    UserError
        If a budget does not pay for one token of the smallest shape.
    """
    factor = np.array(list(factors), dtype=float)
    tables = [_on_budgets(Search.of(law, suite, speeds), budgets, factor, uncertainty)]
    if len(hours := list(gpu_hours)):
        tables.append(_on_budgets(Search.of(law, suite, speeds, "gpu_hours"), hours, factor, uncertainty))
    table = pd.concat(tables, ignore_index=True)
    return table.assign(fit=fit, extrapolated=beyond_data(table, law, max_flops, speeds))[COLUMNS]


def _on_budgets(
    search: Search, budgets: Iterable[float], factors: Array, uncertainty: Uncertainty | None
) -> pd.DataFrame:
    given = np.array(list(budgets), dtype=float)
    budget, factor = np.repeat(given, len(factors)), np.tile(factors, len(given))
    best_width, best_depth = search.relaxed(given)
    best_tokens = given / search.cost_per_token(best_width, best_depth)
    tokens = np.repeat(best_tokens, len(factors)) * np.sqrt(factor)
    possible = budget / tokens >= search.cost_per_token(search.width_step, search.min_depth)
    per_token, trained = (budget / tokens)[possible], tokens[possible]
    width, depth = np.full((2, len(budget)), np.nan)
    width[possible], depth[possible] = (
        sides[0] for sides in _best_shapes(search, per_token, lambda w, d: search.predict(w, d, trained[:, None]))
    )
    params = real_params(width, depth, search.architecture)
    loss = search.predict(width, depth, tokens)
    spent = {"flops": search.flops_per_token(width, depth), "gpu_hours": search.gpu_hours_per_token(width, depth)}
    table = pd.DataFrame(
        {
            "resource": search.resource,
            "budget": budget,
            **{resource: tokens * each for resource, each in spent.items()},
            search.resource: budget,
            "factor": factor,
            "tokens": tokens,
            "width": width,
            "depth": depth,
            "aspect_ratio": width / depth,
            "params": params,
            "tokens_per_param": tokens / params,
            "loss": loss,
            "loss_increase": loss - np.repeat(search.predict(best_width, best_depth, best_tokens), len(factors)),
        }
    )
    names = ["loss_low", "loss_high", "loss_increase_low", "loss_increase_high"]
    ends = np.full((4, len(table)), np.nan)
    if uncertainty is not None and not uncertainty.resamples.empty:
        laws = Laws(search.law, uncertainty.resamples)
        of_laws = _losses(laws, search, per_token, trained)
        optima = np.repeat(relaxed_optima(laws, search, given)["loss"], len(factors), axis=1)[:, possible]
        ends[:, possible] = [*uncertainty.interval(of_laws), *uncertainty.interval(of_laws - optima)]
    return table.assign(**dict(zip(names, ends, strict=True)))


def _losses(laws: Laws, search: Search, per_token: Array, tokens: Array) -> Array:
    """Losses (R, m) of resamples' laws for tokens (m,) that cost so much each, with the best shape by each law."""
    found = np.empty((len(laws.constant), len(tokens)))
    log_tokens = np.log(tokens)[None]
    for some in batches(len(found), len(tokens) * COARSE_POINTS):
        count = len(found[some])

        def loss(width: Array, depth: Array, some: slice = some) -> Array:
            return laws.size(search, width, depth, some).loss(log_tokens[..., None])

        shapes = _best_shapes(search, per_token, loss, count)
        found[some] = laws.size(search, *shapes, some).loss(log_tokens)
    return np.where(laws.has_optimum[:, None], found, np.nan)


def _best_shapes(
    search: Search, per_token: Array, loss: Callable[[Array, Array], Array], laws: int = 1
) -> tuple[Array, Array]:
    """Widths and depths (laws, m) of the lowest loss among shapes whose tokens cost `per_token` (m,).

    `loss` takes widths and depths (laws, m, p).
    """

    def depth_at(width: Array) -> Array:
        base, per_layer = search.affine_cost(width)
        return np.maximum((per_token[:, None] - base) / per_layer, search.min_depth)  # rounding at the widest shape

    def along(log_width: Array) -> Array:
        width = np.exp(log_width).reshape(laws, len(per_token), -1)
        return loss(width, depth_at(width)).reshape(log_width.shape)

    low = np.full(len(per_token), np.log(search.width_step))
    high = np.log([search.largest_width(value) for value in per_token.tolist()])
    width = np.maximum(np.exp(zoom(along, np.tile(low, laws), np.tile(high, laws))), search.width_step)
    width = width.reshape(laws, len(per_token), 1)
    return width[..., 0], depth_at(width)[..., 0]
