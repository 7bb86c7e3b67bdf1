"""The shape and tokens that minimise a law's loss on a FLOP budget.

The budget holds exactly: tokens = C / FLOPs per token(width, depth). This leaves a search over width and depth, `relaxed`
over real numbers or `feasible` over shapes with an even number of heads and a whole number of layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from gemstones.errors import UserError
from gemstones.laws.fit import HuberFit
from gemstones.laws.power_law import PowerLaw
from gemstones.suite.counting import MLP_RATIO, Architecture, flops_per_token

if TYPE_CHECKING:
    from gemstones.laws.uncertainty import Uncertainty
    from gemstones.study import Prescriptions, Suite

Array = NDArray[np.float64]

# What has an interval, where the law's resamples are given.
QUANTITIES = ["width", "depth", "aspect_ratio", "params", "law_params", "tokens", "tokens_per_param", "loss"]
COLUMNS = [
    "fit", "variant", "flops", "width", "depth", "aspect_ratio", "param_count", "params", "law_params", "tokens",
    "tokens_per_param", "loss", "extrapolated", *(f"{name}_{end}" for name in QUANTITIES for end in ("low", "high")),
]  # fmt: skip
# Matrices of vocabulary times width in each count.
EMBEDDINGS = {"params": 2, "params_no_input_embedding": 1, "params_no_embeddings": 0}
# A search looks at this many points first, then at fewer between the neighbours of the best.
COARSE_POINTS, FINE_POINTS = 65, 17
# Widest interval of log width or log depth at which a search stops. The loss is flat there: 1e-12 or less.
LOG_TOLERANCE = 1e-6
# Feasible widths looked at reach this factor to either side of the relaxed optimum, and this many steps at least.
WIDTH_FACTOR, WIDTH_STEPS = 3.0, 8


@dataclass(frozen=True)
class Search:
    """A law and what all shapes share, with the smallest shape that is allowed."""

    law: PowerLaw
    architecture: Architecture
    min_depth: int

    @classmethod
    def of(cls, law: HuberFit | PowerLaw, suite: Suite) -> Search:
        """Search over the shapes of a suite: any width from two heads up, any depth from its smallest up.

        Raises
        ------
        UserError
            If the law does not fall with tokens: the largest model for a single token would be its optimum.
        """
        law = law.law if isinstance(law, HuberFit) else law
        falls = dict(zip(law.covariates, law.exponents, strict=True))
        if falls.get("tokens", 0) <= 0 or all(exponent <= 0 for name, exponent in falls.items() if name != "tokens"):
            raise UserError(
                f"a law of {', '.join(law.covariates)} with exponents {', '.join(f'{x:.3g}' for x in law.exponents)} has "
                "no optimum on a budget: the loss must fall with tokens and with the model's size"
            )
        return cls(
            law, Architecture(suite.head_size, suite.vocabulary_size, suite.context_length), suite.depth_range[0]
        )

    @property
    def width_step(self) -> int:
        """Two heads, since queries share key-value heads in pairs; also the smallest width."""
        return 2 * self.architecture.head_size

    def flops_per_token(self, width: ArrayLike, depth: ArrayLike) -> Array:
        return np.asarray(flops_per_token(np.asarray(width, float), np.asarray(depth, float), self.architecture))  # type: ignore[arg-type]

    def affine_flops(self, width: ArrayLike) -> tuple[Array, Array]:
        """FLOPs per token without layers, and per layer."""
        base = self.flops_per_token(width, 0.0)
        return base, self.flops_per_token(width, 1.0) - base

    def predict(self, width: ArrayLike, depth: ArrayLike, tokens: ArrayLike) -> Array:
        """Predicted loss of real shapes."""
        params = real_params(width, depth, self.architecture, self.law.param_count)
        return self.law.predict({"width": width, "depth": depth, self.law.param_count: params, "tokens": tokens})

    def loss(self, width: ArrayLike, depth: ArrayLike, flops: ArrayLike) -> Array:
        """Predicted loss where the budget is spent on one shape."""
        return self.predict(width, depth, np.asarray(flops) / self.flops_per_token(width, depth))

    def largest_width(self, per_token: float) -> float:
        """Width at which a model of the smallest depth needs `per_token` FLOPs for a token.

        Raises
        ------
        UserError
            If even the smallest shape needs more.
        """
        low = high = float(self.width_step)
        smallest = float(self.flops_per_token(low, self.min_depth))
        if smallest > per_token:
            raise UserError(
                f"{per_token:g} FLOPs do not pay for one token of the smallest shape, "
                f"{self.width_step}x{self.min_depth} ({smallest:g} FLOPs)"
            )
        while self.flops_per_token(high, self.min_depth) < per_token:
            low, high = high, 2 * high
        while high - low > 1e-12 * high:
            middle = 0.5 * (low + high)
            if middle in (low, high):
                break
            low, high = (middle, high) if self.flops_per_token(middle, self.min_depth) <= per_token else (low, middle)
        return low

    def best_depth(self, width: ArrayLike, flops: ArrayLike) -> Array:
        """Real depth (m,) of the lowest loss for each width and budget (m,); at least one token is trained."""
        width, flops = np.broadcast_arrays(np.asarray(width, float), np.asarray(flops, float))
        base, per_layer = self.affine_flops(width)
        shallow = np.full(len(width), float(self.min_depth))
        deep = np.maximum((flops - base) / per_layer, shallow)
        # Only the depth varies here, and FLOPs are affine in it.
        width, flops, base, per_layer = (column[:, None] for column in (width, flops, base, per_layer))

        def loss(log_depth: Array) -> Array:
            depth = np.exp(log_depth)
            return self.predict(width, depth, flops / (base + depth * per_layer))

        return np.exp(zoom(loss, np.log(shallow), np.log(deep)))

    def relaxed(self, flops: ArrayLike) -> tuple[Array, Array]:
        """Real widths and depths (m,) that are optimal for budgets (m,).

        Raises
        ------
        UserError
            If a budget does not pay for one token of the smallest shape.
        """
        flops = np.atleast_1d(np.asarray(flops, float))

        def profile(log_width: Array) -> Array:
            width, budget = np.exp(log_width).ravel(), np.repeat(flops, log_width.shape[1])
            return self.loss(width, self.best_depth(width, budget), budget).reshape(log_width.shape)

        low = np.full(len(flops), np.log(self.width_step))
        high = np.log([self.largest_width(budget) for budget in flops.tolist()])
        # exp(log w) may round below the bound.
        width = np.maximum(np.exp(zoom(profile, low, high)), self.width_step)
        return width, self.best_depth(width, flops)

    def feasible(self, flops: float, near: float) -> tuple[float, float]:
        """Optimal width of an even number of heads and whole depth; `near` is the relaxed optimum's width."""
        center = near / self.width_step
        first = max(1, int(center / WIDTH_FACTOR) - WIDTH_STEPS)
        last = min(int(center * WIDTH_FACTOR) + WIDTH_STEPS, int(self.largest_width(flops) / self.width_step))
        width = self.width_step * np.arange(first, max(first, last) + 1, dtype=float)
        # At one width, the best whole depth is beside the best real one.
        depth = np.floor(self.best_depth(width, flops))[:, None] + np.arange(-1, 3)
        depth = np.maximum(depth, self.min_depth)
        loss = self.loss(width[:, None], depth, flops)
        row, column = np.unravel_index(int(np.argmin(loss)), loss.shape)
        return float(width[row]), float(depth[row, column])


def real_params(width: ArrayLike, depth: ArrayLike, architecture: Architecture, param_count: str = "params") -> Array:
    """Parameters for real widths and depths: `counting.params` with w/head_size heads, one group for two heads.

    `param_count` names the count: params, params_no_input_embedding or params_no_embeddings.
    """
    width, depth = np.asarray(width, float), np.asarray(depth, float)
    # Queries and output w² each, keys and values w²/2 each; gated MLP; two norms.
    per_layer = (3 + 3 * MLP_RATIO) * width**2 + 2 * width
    return (EMBEDDINGS[param_count] * architecture.vocabulary_size + 1) * width + depth * per_layer


def zoom(function: Callable[[Array], Array], low: Array, high: Array) -> Array:
    """Minimise m functions of one variable on intervals, by ever finer grids.

    The minimum found is global up to the coarse grid.

    Parameters
    ----------
    function : takes positions (m, p), one row for each function, and gives values (m, p).
    low, high : (m,) ends of the intervals.

    Returns
    -------
    (m,) positions of the minima.
    """
    row = np.arange(len(low))
    if not len(low):
        return low
    points = COARSE_POINTS
    while True:
        grid = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, points)
        best = np.argmin(function(grid), axis=1)
        if np.max(high - low) <= LOG_TOLERANCE:
            return grid[row, best]
        low, high = grid[row, np.maximum(best - 1, 0)], grid[row, np.minimum(best + 1, points - 1)]
        points = FINE_POINTS


def budgets(spec: Prescriptions) -> Array:
    """The config's budgets in FLOPs, evenly spaced in log."""
    return np.geomspace(*spec.flops_range, spec.budgets)


def prescribe(
    law: HuberFit | PowerLaw,
    budgets: Iterable[float],
    suite: Suite,
    fit: str = "",
    max_flops: float | None = None,
    uncertainty: Uncertainty | None = None,
) -> pd.DataFrame:
    """Optimal shapes and tokens over budgets.

    Parameters
    ----------
    law : a fit, or a law such as a published one.
    budgets : in FLOPs.
    suite : gives head size, vocabulary, context and the smallest depth.
    fit : name of the fit, for the table.
    max_flops : largest training FLOPs of the fitted rows; by default what the fit recorded.
    uncertainty : the law's resamples, for intervals: <quantity>_low and _high, of relaxed and closed-form optima.

    Returns
    -------
    DataFrame with `COLUMNS`, by budget; for each budget the variants `relaxed`, `feasible` and, for laws of params and tokens,
    `closed_form` (Hoffmann et al., Eq. 4, C = 6·N·T), which has no shape; its `params` are known only where the law
    counts all parameters. `law_params` is in the law's own count, `param_count`. `extrapolated` is null where the range
    of the fitted rows is unknown.

    Raises
    ------
    UserError
        If a budget does not pay for one token of the smallest shape.
    """
    search = Search.of(law, suite)
    flops = np.array(list(budgets), dtype=float)
    width, depth = search.relaxed(flops)
    whole = [search.feasible(budget, near) for budget, near in zip(flops.tolist(), width.tolist(), strict=True)]
    tables = [
        _table(search, "relaxed", flops, width, depth),
        _table(search, "feasible", flops, *np.array(whole).reshape(-1, 2).T),
    ]
    if search.law.slope is not None:
        tables.append(_closed_form(search.law, flops))
    table = pd.concat(tables, ignore_index=True).sort_values("flops", kind="stable", ignore_index=True)
    if uncertainty is None or uncertainty.resamples.empty:
        table = table.reindex(columns=[*table.columns, *(name for name in COLUMNS if name.endswith(("_low", "_high")))])
    else:
        from gemstones.prescriptions.bands import bands

        table = table.merge(bands(uncertainty, search, flops), how="left", on=["variant", "flops"])
        unknown = (table["variant"] == "closed_form") & (search.law.param_count == "params")
        for end in ("low", "high"):
            table[f"params_{end}"] = table[f"params_{end}"].where(~unknown, table[f"law_params_{end}"])
    return table.assign(
        fit=fit,
        aspect_ratio=table["width"] / table["depth"],
        param_count=search.law.param_count,
        tokens_per_param=table["tokens"] / table["params"],
        extrapolated=extrapolated(table["flops"], law, max_flops),
    )[COLUMNS]


def extrapolated(flops: pd.Series[float], law: HuberFit | PowerLaw, max_flops: float | None) -> pd.Series[bool]:
    """Whether budgets lie beyond the rows that were fitted; null where their range is unknown."""
    if max_flops is None and isinstance(law, HuberFit):
        max_flops = law.max_flops
    if max_flops is None:
        return pd.Series(pd.NA, index=flops.index, dtype="boolean")
    return (flops > max_flops).astype("boolean")


def _table(search: Search, variant: str, flops: Array, width: Array, depth: Array) -> pd.DataFrame:
    tokens = flops / search.flops_per_token(width, depth)
    return pd.DataFrame(
        {
            "variant": variant,
            "flops": flops,
            "width": width,
            "depth": depth,
            "params": real_params(width, depth, search.architecture),
            "law_params": real_params(width, depth, search.architecture, search.law.param_count),
            "tokens": tokens,
            "loss": search.predict(width, depth, tokens),
        }
    )


def _closed_form(law: PowerLaw, flops: Array) -> pd.DataFrame:
    optimum = law.allocation()
    law_params, tokens = optimum.params(flops), optimum.tokens(flops)
    return pd.DataFrame(
        {
            "variant": "closed_form",
            "flops": flops,
            "width": np.nan,
            "depth": np.nan,
            "params": law_params if law.param_count == "params" else np.nan,
            "law_params": law_params,
            "tokens": tokens,
            "loss": law.predict({law.param_count: law_params, "tokens": tokens}),
        }
    )
