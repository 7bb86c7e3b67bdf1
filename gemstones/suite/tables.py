"""The suite on paper: the table of shapes."""

from __future__ import annotations

import math

import pandas as pd

from gemstones.study import Suite
from gemstones.suite import counting, shapes

SHAPE_COLUMNS = [
    "shape", "width", "depth", "heads", "query_groups", "aspect_ratio", "params", "params_no_input_embedding",
    "params_no_embeddings", "flops_per_token", "target", "target_params", "relative_error", "feasible", "selected",
    "pinned",
]  # fmt: skip


def shapes_table(suite: Suite) -> pd.DataFrame:
    """All feasible and all selected shapes with their counts, ordered by parameters.

    Returns
    -------
    DataFrame with `SHAPE_COLUMNS`; FLOPs are per token, forward and backward; `target` is the nearest one in log
    parameters and `relative_error` is N/target − 1.
    """
    arch = shapes.architecture(suite)
    possible, names = shapes.feasible(suite), shapes.selected(suite)
    rows = []
    for shape in dict.fromkeys([*possible, *names]):
        width, depth = shapes.parse(shape)
        n = counting.params(width, depth, arch)
        target = min(suite.targets, key=lambda name: abs(math.log(n / suite.targets[name])), default=None)
        target_params = suite.targets[target] if target else math.nan
        rows.append(
            (
                shape, width, depth, counting.heads(width, arch.head_size), counting.query_groups(width, arch.head_size),
                width / depth, n, counting.params_no_input_embedding(width, depth, arch),
                counting.params_no_embeddings(width, depth, arch), counting.flops_per_token(width, depth, arch),
                target, target_params, n / target_params - 1, shape in possible, shape in names, shape in suite.pinned,
            )
        )  # fmt: skip
    return pd.DataFrame(rows, columns=SHAPE_COLUMNS).sort_values(["params", "shape"], ignore_index=True)
