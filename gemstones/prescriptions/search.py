"""The search for the shape of the lowest loss on a budget, of FLOPs or of GPU-hours.

The budget holds exactly: tokens = budget / cost of a token(width, depth). Both costs are affine in the depth, given the width.
This leaves a search over width and depth, `relaxed` over real numbers or `feasible` over shapes with an even number of heads and
a whole number of layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gemstones.errors import UserError
from gemstones.laws.fit import HuberFit
from gemstones.laws.power_law import PowerLaw
from gemstones.study import MOST_FLOPS
from gemstones.suite.counting import MLP_RATIO, Architecture, flops_per_token

if TYPE_CHECKING:
    from gemstones.prescriptions.speeds import Speeds
    from gemstones.study import Resource, Suite

Array = NDArray[np.float64]

UNITS = {"flops": "FLOPs", "gpu_hours": "GPU-hours"}
# Matrices of vocabulary times width in each count.
EMBEDDINGS = {"params": 2, "params_no_input_embedding": 1, "params_no_embeddings": 0}
# A search looks at this many points first, then at fewer between the neighbours of the best.
COARSE_POINTS, FINE_POINTS = 65, 17
# Widest interval of log width or log depth at which a search stops. The loss is flat there: 1e-12 or less.
LOG_TOLERANCE = 1e-6
# No more tokens than exp of this are sought for a loss, by so many halvings.
LOG_MOST_TOKENS, BISECTIONS = 200.0, 60
# Feasible widths looked at reach this factor to either side of the relaxed optimum, and this many steps at least.
WIDTH_FACTOR, WIDTH_STEPS = 3.0, 8
# If there are more of them, so many in log are looked at first, then those about the best: they differ by 0.2 % in width.
MOST_WIDTHS = 1024


@dataclass(frozen=True)
class Search:
    """A law and what all shapes share, with the smallest shape that is allowed and what budgets are in.

    Where `speeds` are known, shapes have GPU-hours, and budgets may be in them.
    """

    law: PowerLaw
    architecture: Architecture
    min_depth: int
    speeds: Speeds | None = None
    resource: Resource = "flops"

    @classmethod
    def of(
        cls, law: HuberFit | PowerLaw, suite: Suite, speeds: Speeds | None = None, resource: Resource = "flops"
    ) -> Search:
        """Search over the shapes of a suite: any width from two heads up, any depth from its smallest up.

        Raises
        ------
        UserError
            If the law has no optimum on a budget: it does not fall with tokens, so that the largest model for a single token
            would be best, or it depends on what a shape does not give.
        """
        law = law.law if isinstance(law, HuberFit) else law
        if why := law.no_optimum():
            raise UserError(why)
        architecture = Architecture(suite.head_size, suite.vocabulary_size, suite.context_length)
        return cls(law, architecture, suite.depth_range[0], speeds, resource)

    @property
    def width_step(self) -> int:
        """Two heads, since queries share key-value heads in pairs; also the smallest width."""
        return 2 * self.architecture.head_size

    def flops_per_token(self, width: ArrayLike, depth: ArrayLike) -> Array:
        return np.asarray(flops_per_token(np.asarray(width, float), np.asarray(depth, float), self.architecture))  # type: ignore[arg-type]

    def gpu_hours_per_token(self, width: ArrayLike, depth: ArrayLike, nodes: int | None = None) -> Array:
        """By the model of speed, on the assumed nodes unless told otherwise; not-a-number where no speeds are known."""
        flops = self.flops_per_token(width, depth)
        if self.speeds is None:
            return np.full(flops.shape, np.nan)
        params = real_params(width, depth, self.architecture)
        return np.asarray(self.speeds.gpu_hours_per_token(np.asarray(width, float), flops, params, nodes))

    def cost_per_token(self, width: ArrayLike, depth: ArrayLike) -> Array:
        """What a token takes of the budget."""
        return (self.flops_per_token if self.resource == "flops" else self.gpu_hours_per_token)(width, depth)

    def affine_cost(self, width: ArrayLike) -> tuple[Array, Array]:
        """Cost of a token without layers, and per layer."""
        base = self.cost_per_token(width, 0.0)
        return base, self.cost_per_token(width, 1.0) - base

    def predict(self, width: ArrayLike, depth: ArrayLike, tokens: ArrayLike) -> Array:
        """Predicted loss of real shapes."""
        params = real_params(width, depth, self.architecture, self.law.param_count)
        return self.law.predict({"width": width, "depth": depth, self.law.param_count: params, "tokens": tokens})

    def loss(self, width: ArrayLike, depth: ArrayLike, budget: ArrayLike) -> Array:
        """Predicted loss where the budget is spent on one shape."""
        return self.predict(width, depth, np.asarray(budget) / self.cost_per_token(width, depth))

    def tokens_for(self, width: ArrayLike, depth: ArrayLike, loss: float) -> Array:
        """Training tokens with which real shapes reach a loss; not-a-number where none are enough."""
        low = np.zeros(np.broadcast_shapes(np.shape(width), np.shape(depth)))
        high = low + LOG_MOST_TOKENS
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            enough = self.predict(width, depth, np.exp(middle)) <= loss
            low, high = np.where(enough, low, middle), np.where(enough, middle, high)
        return np.where(high < LOG_MOST_TOKENS, np.exp(high), np.nan)

    def largest_width(self, per_token: float) -> float:
        """Width at which a token costs `per_token` with a model of the smallest depth.

        Raises
        ------
        UserError
            If even the smallest shape costs more.
        """
        low = high = float(self.width_step)
        smallest = float(self.cost_per_token(low, self.min_depth))
        if smallest > per_token:
            unit = UNITS[self.resource]
            raise UserError(
                f"{per_token:g} {unit} do not pay for one token of the smallest shape, "
                f"{self.width_step}x{self.min_depth} ({smallest:g} {unit})"
            )
        while self.cost_per_token(high, self.min_depth) < per_token:
            low, high = high, 2 * high
        while high - low > 1e-12 * high:
            middle = 0.5 * (low + high)
            if middle in (low, high):
                break
            low, high = (middle, high) if self.cost_per_token(middle, self.min_depth) <= per_token else (low, middle)
        return low

    def best_depth(self, width: ArrayLike, budgets: ArrayLike) -> Array:
        """Real depth (m,) of the lowest loss for each width and budget (m,); at least one token is trained."""
        width, budgets = np.broadcast_arrays(np.asarray(width, float), np.asarray(budgets, float))
        base, per_layer = self.affine_cost(width)
        shallow = np.full(len(width), float(self.min_depth))
        deep = np.maximum((budgets - base) / per_layer, shallow)
        # Only the depth varies here, and the cost is affine in it.
        width, budgets, base, per_layer = (column[:, None] for column in (width, budgets, base, per_layer))

        def loss(log_depth: Array) -> Array:
            depth = np.exp(log_depth)
            return self.predict(width, depth, budgets / (base + depth * per_layer))

        return np.exp(zoom(loss, np.log(shallow), np.log(deep)))

    def relaxed(self, budgets: ArrayLike) -> tuple[Array, Array]:
        """Real widths and depths (m,) that are optimal for budgets (m,).

        Raises
        ------
        UserError
            If a budget does not pay for one token of the smallest shape, or has more than MOST_FLOPS.
        """
        budgets = np.atleast_1d(np.asarray(budgets, float))
        # GPU-hours by a usual shape, since this is no fine line.
        each = self.speeds.flops_per_gpu_hour if self.speeds and self.resource == "gpu_hours" else 1.0
        if len(budgets) and budgets.max() > MOST_FLOPS / each:
            raise UserError(
                f"{budgets.max():g} {UNITS[self.resource]}: no law reaches so far; wanted: at most {MOST_FLOPS / each:.2g}"
            )

        def profile(log_width: Array) -> Array:
            width, budget = np.exp(log_width).ravel(), np.repeat(budgets, log_width.shape[1])
            return self.loss(width, self.best_depth(width, budget), budget).reshape(log_width.shape)

        low = np.full(len(budgets), np.log(self.width_step))
        high = np.log([self.largest_width(budget) for budget in budgets.tolist()])
        # exp(log w) may round below the bound.
        width = np.maximum(np.exp(zoom(profile, low, high)), self.width_step)
        return width, self.best_depth(width, budgets)

    def feasible(self, budget: float, near: float) -> tuple[float, float]:
        """Optimal width of an even number of heads and whole depth; `near` is the relaxed optimum's width."""
        center = near / self.width_step
        first = max(1, int(center / WIDTH_FACTOR) - WIDTH_STEPS)
        last = min(int(center * WIDTH_FACTOR) + WIDTH_STEPS, int(self.largest_width(budget) / self.width_step))
        last = max(first, last)
        while last - first >= MOST_WIDTHS:
            some = np.unique(np.geomspace(first, last, MOST_WIDTHS).astype(int))
            best = int(np.argmin(self._whole_depths(some, budget)[1]))
            first, last = int(some[max(best - 2, 0)]), int(some[min(best + 2, len(some) - 1)])
        steps = np.arange(first, last + 1)
        depth, loss = self._whole_depths(steps, budget)
        best = int(np.argmin(loss))
        return float(steps[best] * self.width_step), float(depth[best])

    def _whole_depths(self, steps: NDArray[np.int_], budget: float) -> tuple[Array, Array]:
        """Best whole depth (n,) for widths of so many steps each (n,), and its loss (n,)."""
        width = self.width_step * steps.astype(float)
        # At one width, the best whole depth is beside the best real one.
        depth = np.floor(self.best_depth(width, budget))[:, None] + np.arange(-1, 3)
        depth = np.maximum(depth, self.min_depth)
        loss = self.loss(width[:, None], depth, budget)
        best = np.argmin(loss, axis=1)
        row = np.arange(len(steps))
        return depth[row, best], loss[row, best]


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
