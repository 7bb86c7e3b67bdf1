"""The authors' search for prescriptions, with its results to the row but without its 318.9 million rows.

They predict the loss of every row of a grid of widths, depths and tokens, sort the rows into 13 buckets of FLOPs, and take
the row of the lowest loss from each. A law falls with tokens, so of a shape only the most tokens that keep it within a
bucket count. With the shapes in the order of their FLOPs, those that can pay for a number of tokens and for no more are a range.

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


@dataclass(frozen=True)
class Shapes:
    """Shapes by ascending FLOPs per token, all (n,): their places in the grid, FLOPs per token, the law's terms without tokens, and
    the factor that the term of tokens has at each of them.
    """

    order: NDArray[np.intp]
    per_token: Array
    size: Array
    share: Array


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
    of_data = [term for term in law.terms if "tokens" in term]
    if len(of_data) != 1 or of_data[0]["tokens"] <= 0:
        raise UserError(f"the authors' search: a law of {', '.join(law.covariates)} must fall with tokens, in one term")
    rows = rows or grid(OF_SELECTION.get(str(selection), LOG_FEWEST_TOKENS))
    per_token = np.asarray(flops_per_token(rows.width, rows.depth, ARCHITECTURE))  # type: ignore[arg-type]
    x = {"width": rows.width, "depth": rows.depth, "params": whole_params(rows.width, rows.depth, law.param_count)}
    size, share = np.zeros(len(rows.width)), np.ones(len(rows.width))
    for term, c in zip(law.terms, law.log_coefficients, strict=True):
        factor = np.exp(-sum(alpha * np.log(x[role]) for role, alpha in term.items() if role != "tokens"))
        if "tokens" in term:
            share, of_tokens = share * factor, np.exp(c - term["tokens"] * np.log(rows.tokens))
        else:
            size = size + np.exp(c) * factor

    order = np.argsort(per_token, kind="stable")
    edges = np.geomspace(*FLOPS_RANGE, BUCKETS + 1)
    shapes = Shapes(order, per_token[order], size[order], share[order])
    found = [_lowest(shapes, rows.tokens, of_tokens, low, high) for low, high in pairwise(edges)]
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
            "loss": size[shape] + share[shape] * of_tokens[at] + law.irreducible_loss,
        }
    )


def whole_params(width: Array, depth: Array, param_count: str = "params") -> Array:
    """Parameters of any whole width, as the authors count: w/128 heads rounded down, and half as many groups rounded down."""
    heads = width // ARCHITECTURE.head_size
    attention = 2 * width * ARCHITECTURE.head_size * (heads + heads // 2)
    embeddings = (EMBEDDINGS[param_count] * ARCHITECTURE.vocabulary_size + 1) * width
    return embeddings + depth * (attention + 3 * MLP_RATIO * width**2 + 2 * width)


def _lowest(shapes: Shapes, tokens: Array, of_tokens: Array, low: float, high: float) -> tuple[int, int] | None:
    """The row of the lowest loss, as its shape and number of tokens, that spends more than `low` and at most `high` FLOPs.

    Parameters
    ----------
    tokens, of_tokens : (m,) ascending, and their term of the law where the share is 1.
    """
    dearest = high / tokens
    # Shapes that pay for no more than these tokens, with which they are above the bucket's lower end.
    cheapest = np.maximum(np.append(dearest[1:], 0.0), low / tokens)
    ranges = np.searchsorted(shapes.per_token, np.stack([cheapest, dearest], axis=1), side="right")
    many = np.maximum(ranges[:, 1] - ranges[:, 0], 0)
    if not many.any():
        return None
    # Each shape is in one of the ranges at most.
    at = np.repeat(np.arange(len(tokens)), many)
    place = np.repeat(ranges[:, 0] - np.cumsum(many) + many, many) + np.arange(many.sum())
    loss = shapes.size[place] + shapes.share[place] * of_tokens[at]
    best = np.flatnonzero(loss == loss.min())
    # Of shapes with equal losses the first, as in pandas.
    first = best[shapes.order[place[best]].argmin()]
    return int(shapes.order[place[first]]), int(at[first])
