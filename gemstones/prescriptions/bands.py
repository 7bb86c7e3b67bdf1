"""Intervals of prescriptions: the optimum of every resample's law, on every budget, all at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gemstones.laws.fit import HuberFit
from gemstones.laws.power_law import Allocation, PowerLaw, exponent_names
from gemstones.laws.uncertainty import Uncertainty
from gemstones.prescriptions.search import Array, Search, real_params

# What has an interval.
QUANTITIES = ["width", "depth", "aspect_ratio", "params", "law_params", "tokens", "tokens_per_param", "loss"]
# The search looks at widths and depths with such steps in log first, so many at least; then at so many about the best, ever closer.
WIDTH_STEP, DEPTH_STEP, WIDTHS, DEPTHS = 0.176, 0.242, 56, 44
FINE, ROUNDS = 5, 12
# Laws times grid points that are held at once.
BATCH = 1_000_000


def bands(uncertainty: Uncertainty, search: Search, budgets: Array) -> pd.DataFrame:
    """Interval of each quantity of the relaxed and, for FLOPs, the closed-form optimum.

    Parameters
    ----------
    uncertainty : a law and those of its resamples.
    search : the same law, what all shapes share, and what budgets are in.
    budgets : (m,)

    Returns
    -------
    DataFrame with `variant`, `budget`, and <quantity>_low and <quantity>_high of QUANTITIES; null where more resamples prescribe
    nothing than may lie beyond an end.
    """
    assert isinstance(uncertainty.fit, HuberFit)
    laws = Laws(uncertainty.fit.law, uncertainty.resamples)
    tables = [_table(uncertainty, "relaxed", budgets, relaxed_optima(laws, search, budgets))]
    if search.law.slope is not None and search.resource == "flops":
        closed = _closed_form(laws, Allocation.of_laws(uncertainty.resamples, search.law.covariates), budgets)
        tables.append(_table(uncertainty, "closed_form", budgets, closed))
    return pd.concat(tables, ignore_index=True)


class Laws:
    """The laws (R,) of resamples: terms, each with its log coefficients (R,) and exponents (R,) by factor, and E (R,)."""

    def __init__(self, law: PowerLaw, table: pd.DataFrame) -> None:
        """Laws with the covariates of `law`, as :func:`gemstones.laws.resampling.resample` gives them."""
        names = iter(exponent_names(law.covariates))
        self.terms = [
            (
                table[f"log_coefficient_{term}"].to_numpy(float),
                {role: table[next(names)].to_numpy(float) for role in each},
            )
            for term, each in zip(law.covariates, law.terms, strict=True)
        ]
        self.constant = table["irreducible_loss"].to_numpy(float)
        zero = np.zeros(len(self.constant))
        falls = np.stack([exponents.get("tokens", zero) for _, exponents in self.terms])
        of_size = [alpha for _, exponents in self.terms for role, alpha in exponents.items() if role != "tokens"]
        # Without both, the largest model for one token would be the optimum, or the smallest.
        known = np.isfinite(self.constant) & np.all([np.isfinite(c) for c, _ in self.terms], axis=0)
        self.has_optimum = known & (falls.min(0) >= 0) & (falls.max(0) > 0) & (np.max(of_size, axis=0) > 0)

    def loss(self, log_x: Mapping[str, Array]) -> Array:
        """Loss (R, m) of each law where logs of what it depends on are (m,), or (R, m)."""
        loss = self.constant[:, None]
        for log_coefficient, exponents in self.terms:
            power = sum(alpha[:, None] * log_x[role] for role, alpha in exponents.items())
            loss = loss + np.exp(log_coefficient[:, None] - power)
        return loss

    def size(self, search: Search, width: Array, depth: Array, some: slice | NDArray[np.intp]) -> Size:
        """What some laws (r,) are at shapes (r or 1, …), for any tokens."""
        log_x = {
            "width": np.log(width),
            "depth": np.log(depth),
            "params": np.log(real_params(width, depth, search.architecture, search.law.param_count)),
        }
        wide = (slice(None), *[None] * (width.ndim - 1))
        fixed, with_tokens = self.constant[some][wide], []
        for log_coefficient, exponents in self.terms:
            power = sum(alpha[some][wide] * log_x[role] for role, alpha in exponents.items() if role != "tokens")
            term = np.exp(log_coefficient[some][wide] - power)
            if "tokens" in exponents:
                with_tokens.append((term, exponents["tokens"][some]))
            else:
                fixed = fixed + term
        return Size(fixed, with_tokens)


@dataclass(frozen=True)
class Size:
    """Loss (r, …) of some laws at shapes but for the terms with tokens, and these terms, each with its exponent (r,) of tokens."""

    fixed: Array
    with_tokens: list[tuple[Array, Array]]

    def loss(self, log_tokens: Array) -> Array:
        """Loss (r, …) at log tokens (r or 1, …)."""
        loss = self.fixed
        for term, exponent in self.with_tokens:
            wide = (slice(None), *[None] * (log_tokens.ndim - 1))
            loss = loss + term * np.exp(-exponent[wide] * log_tokens)
        return loss


def relaxed_optima(laws: Laws, search: Search, budgets: Array) -> dict[str, Array]:
    """Optimum (R, m) of each law on each budget: a grid of shapes, then ever finer ones about the best."""
    log_budgets = np.log(budgets)
    at_w, at_d = _on_grid(laws, search, log_budgets)
    least_w, least_d = np.log(search.width_step), np.log(search.min_depth)
    reach_w, reach_d = WIDTH_STEP, DEPTH_STEP
    window = np.linspace(-1, 1, FINE)
    for _ in range(ROUNDS):
        for some in batches(len(at_w), len(budgets) * FINE**2):
            fine_w = np.maximum(at_w[some][..., None] + reach_w * np.repeat(window, FINE), least_w)
            fine_d = np.maximum(at_d[some][..., None] + reach_d * np.tile(window, FINE), least_d)
            log_tokens = log_budgets[:, None] - np.log(search.cost_per_token(np.exp(fine_w), np.exp(fine_d)))
            loss = laws.size(search, np.exp(fine_w), np.exp(fine_d), some).loss(log_tokens)
            best = np.where(log_tokens >= 0, loss, np.inf).argmin(-1)[..., None]
            at_w[some] = np.take_along_axis(fine_w, best, -1)[..., 0]
            at_d[some] = np.take_along_axis(fine_d, best, -1)[..., 0]
        reach_w, reach_d = reach_w / 2, reach_d / 2
    width, depth = np.exp(at_w), np.exp(at_d)
    tokens = budgets / search.cost_per_token(width, depth)
    params = real_params(width, depth, search.architecture)
    found = {
        "width": width,
        "depth": depth,
        "aspect_ratio": width / depth,
        "params": params,
        "law_params": real_params(width, depth, search.architecture, search.law.param_count),
        "tokens": tokens,
        "tokens_per_param": tokens / params,
        "loss": laws.size(search, width, depth, slice(None)).loss(np.log(tokens)),
    }
    return {name: np.where(laws.has_optimum[:, None], values, np.nan) for name, values in found.items()}


def _on_grid(laws: Laws, search: Search, log_budgets: Array) -> tuple[Array, Array]:
    """Log width and log depth (R, m) of the best point of a grid, which is made larger until no optimum is at its end.

    It ends at the latest where no budget pays for a token of what is larger.
    """
    widths, depths = WIDTHS, DEPTHS
    at_w, at_d = np.empty((2, len(laws.constant), len(log_budgets)))
    while True:
        log_width = np.log(search.width_step) + WIDTH_STEP * np.arange(widths)
        log_depth = np.log(search.min_depth) + DEPTH_STEP * np.arange(depths)
        w, d = (grid.ravel() for grid in np.meshgrid(log_width, log_depth, indexing="ij"))
        log_per_token = np.log(search.cost_per_token(np.exp(w), np.exp(d)))
        affordable = log_per_token <= log_budgets[:, None]
        for some in batches(len(laws.constant), len(w)):
            size = laws.size(search, np.exp(w)[None], np.exp(d)[None], some)
            # Tokens are the budget over the cost of each: one power of either does for all budgets.
            of_grid = [(term * np.exp(alpha[:, None] * log_per_token), alpha) for term, alpha in size.with_tokens]
            for i, log_budget in enumerate(log_budgets):
                loss = size.fixed
                for term, alpha in of_grid:
                    loss = loss + term * np.exp(-alpha * log_budget)[:, None]
                best = np.where(affordable[i], loss, np.inf).argmin(1)
                at_w[some, i], at_d[some, i] = w[best], d[best]
        wider, deeper = (
            bool((at[laws.has_optimum] >= grid[-1]).any()) for at, grid in ((at_w, log_width), (at_d, log_depth))
        )
        if not wider and not deeper:
            return at_w, at_d
        widths, depths = widths + WIDTHS * wider, depths + DEPTHS * deeper


def _closed_form(laws: Laws, allocation: Allocation, flops: Array) -> dict[str, Array]:
    """N* and T* (R, m) of every law under C = 6·N·T."""
    log_x = {"params": allocation.log_params(flops), "tokens": allocation.log_tokens(flops)}
    return {"law_params": np.exp(log_x["params"]), "tokens": np.exp(log_x["tokens"]), "loss": laws.loss(log_x)}


def _table(uncertainty: Uncertainty, variant: str, budgets: Array, found: dict[str, Array]) -> pd.DataFrame:
    columns: dict[str, Array] = {}
    for name in QUANTITIES:
        low, high = uncertainty.interval(found[name]) if name in found else (np.nan, np.nan)
        columns[f"{name}_low"], columns[f"{name}_high"] = (np.broadcast_to(end, len(budgets)) for end in (low, high))
    return pd.DataFrame({"variant": variant, "budget": budgets, **columns})


def batches(number: int, points: int) -> list[slice]:
    size = max(1, BATCH // points)
    return [slice(i, i + size) for i in range(0, number, size)]
