"""The authors' search for prescriptions, with its results to the row but without its 318.9 million rows.

They predict the loss of every row of a grid of widths, depths and tokens, sort the rows into 13 buckets of FLOPs, and take
the row of the lowest loss from each. A law falls with tokens, so of a shape only the most tokens that keep it within a
bucket count; and since tokens have a term of their own, the shapes that can pay for a number of tokens and for no more are compared by
what is left of the law. With the shapes in the order of their FLOPs, these are ranges.

Source: the authors' repository, `plotters/approach_3_brute_force.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gemstones.errors import UserError
from gemstones.laws.fit import HuberFit
from gemstones.laws.power_law import PowerLaw
from gemstones.prescriptions.search import EMBEDDINGS, Array
from gemstones.suite.counting import MLP_RATIO, Architecture, flops_per_token

# The authors' suite, whose shapes their grid is for.
ARCHITECTURE = Architecture(head_size=128, vocabulary_size=50_304, context_length=2048)
# Ends in FLOPs and number of their buckets, all as wide in log.
FLOPS_RANGE, BUCKETS = (1e18, 1e26), 13
# log10 of the fewest tokens looked at, which for one law is lower than for the others.
LOG_FEWEST_TOKENS, OF_SELECTION = 9.0, {"over_120b": 8.5}


@dataclass(frozen=True)
class Grid:
    """The rows that are searched: every shape with every number of tokens, in this order.

    Attributes
    ----------
    width, depth : (n,) of every shape.
    tokens : (m,) ascending.
    """

    width: Array
    depth: Array
    tokens: Array

    def __len__(self) -> int:
        return len(self.width) * len(self.tokens)


def grid(
    log_fewest_tokens: float = LOG_FEWEST_TOKENS, widths: int = 1025, depths: int = 800, tokens: int = 500
) -> Grid:
    """The authors' grid; with smaller numbers, one as wide but thinner."""
    width = np.unique(np.logspace(8, 17, widths, base=2).astype(int))
    of_width = [
        np.unique(np.logspace(max(0.0, np.log10(max(1, w // 2048))), np.log10(16 * w), depths).astype(int))
        for w in width
    ]
    return Grid(
        np.repeat(width, [len(some) for some in of_width]).astype(float),
        np.concatenate(of_width).astype(float),
        np.logspace(log_fewest_tokens, 13.5, tokens).astype(int).astype(float),
    )


def reference(law: HuberFit | PowerLaw, rows: Grid | None = None) -> pd.DataFrame:
    """The row of the lowest predicted loss in each bucket.

    Parameters
    ----------
    law : of tokens and others.
    rows : by default the authors' grid for this law.

    Returns
    -------
    DataFrame with `budget`, the bucket's right edge; `bucket_from`, its left one, at which the authors draw it; `flops`, what the
    row itself spends; and width, depth, params, law_params (in the law's own count), tokens and loss. Empty buckets have no row.

    Raises
    ------
    UserError
        If the law does not fall with tokens.
    """
    selection = law.selection if isinstance(law, HuberFit) else None
    law = law.law if isinstance(law, HuberFit) else law
    terms = dict(zip(law.covariates, zip(law.exponents, law.log_coefficients, strict=True), strict=True))
    if terms.get("tokens", (0.0,))[0] <= 0:
        raise UserError(f"the authors' search: a law of {', '.join(law.covariates)} must fall with tokens")
    rows = rows or grid(OF_SELECTION.get(str(selection), LOG_FEWEST_TOKENS))
    per_token = np.asarray(flops_per_token(rows.width, rows.depth, ARCHITECTURE))  # type: ignore[arg-type]
    x = {"width": rows.width, "depth": rows.depth, "params": whole_params(rows.width, rows.depth, law.param_count)}
    size = sum(np.exp(c - alpha * np.log(x[role])) for role, (alpha, c) in terms.items() if role != "tokens")
    alpha, c = terms["tokens"]
    of_tokens = np.exp(c - alpha * np.log(rows.tokens))

    order = np.argsort(per_token, kind="stable")
    edges = np.geomspace(*FLOPS_RANGE, BUCKETS + 1)
    found = [_lowest(order, per_token, size, rows.tokens, of_tokens, low, high) for low, high in pairwise(edges)]
    some = np.array([row is not None for row in found])
    shape, at = np.array([row for row in found if row], dtype=int).reshape(-1, 2).T
    width, depth, tokens = rows.width[shape], rows.depth[shape], rows.tokens[at]
    return pd.DataFrame(
        {
            "budget": edges[1:][some],
            "bucket_from": edges[:-1][some],
            "flops": per_token[shape] * tokens,
            "width": width,
            "depth": depth,
            "params": whole_params(width, depth),
            "law_params": whole_params(width, depth, law.param_count),
            "tokens": tokens,
            "loss": size[shape] + of_tokens[at] + law.irreducible_loss,
        }
    )


def whole_params(width: Array, depth: Array, param_count: str = "params") -> Array:
    """Parameters of any whole width, as the authors count: w/128 heads rounded down, and half as many groups rounded down."""
    heads = width // ARCHITECTURE.head_size
    attention = 2 * width * ARCHITECTURE.head_size * (heads + heads // 2)
    embeddings = (EMBEDDINGS[param_count] * ARCHITECTURE.vocabulary_size + 1) * width
    return embeddings + depth * (attention + 3 * MLP_RATIO * width**2 + 2 * width)


def _lowest(
    order: NDArray[np.intp], per_token: Array, size: Array, tokens: Array, of_tokens: Array, low: float, high: float
) -> tuple[int, int] | None:
    """The row of the lowest loss, as its shape and number of tokens, that spends more than `low` and at most `high` FLOPs.

    Parameters
    ----------
    order : (n,) shapes by ascending `per_token`.
    per_token, size : (n,) FLOPs, and terms of the law, of each shape.
    tokens, of_tokens : (m,) ascending, and their term of the law.
    """
    dearest = high / tokens
    # Shapes that pay for no more than these tokens, with which they are above the bucket's lower end.
    cheapest = np.maximum(np.append(dearest[1:], 0.0), low / tokens)
    ranges = np.searchsorted(per_token, np.stack([cheapest, dearest], axis=1), side="right", sorter=order)
    used = np.flatnonzero(ranges[:, 0] < ranges[:, 1])
    if not len(used):
        return None
    least = np.minimum.reduceat(np.append(size[order], np.inf), ranges[used].ravel())[::2] + of_tokens[used]
    at = int(used[np.argmin(least)])
    shapes = order[slice(*ranges[at])]
    # Of shapes with equal losses the first, as in pandas.
    return int(shapes[size[shapes] + of_tokens[at] == least.min()].min()), at
