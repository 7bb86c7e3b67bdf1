"""The suite on paper: the table of shapes and the table of planned jobs."""

from __future__ import annotations

import math

import pandas as pd

from gemstones.study import Study, Suite
from gemstones.suite import counting, shapes
from gemstones.suite.memory import planned_memory_bytes
from gemstones.suite.runs import segments, throughput

SHAPE_COLUMNS = [
    "shape", "width", "depth", "heads", "query_groups", "aspect_ratio", "params", "params_no_input_embedding",
    "params_no_embeddings", "flops_per_token", "target", "target_params", "relative_error", "feasible", "selected",
    "pinned",
]  # fmt: skip
PLAN_COLUMNS = [
    "run", "phase", "shape", "start_step", "stop_step", "steps", "tokens", "nodes", "memory_bytes", "seconds_per_step",
    "hours", "node_hours",
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


def plan_table(study: Study) -> pd.DataFrame:
    """The planned jobs, one row each with `PLAN_COLUMNS`.

    Hours and node-hours are projected from the throughput; `memory_bytes` is what a step takes of each device at its peak.
    """
    rows = []
    for segment in segments(study):
        nodes, seconds_per_step = throughput(study, segment.run)
        steps = segment.stop - segment.start + sum(run.steps - int(run.anchor or 0) for run in segment.before)
        hours = steps * seconds_per_step / 3600
        rows.append(
            (
                segment.run.name, segment.run.phase, segment.run.shape, segment.start, segment.stop, steps,
                steps * segment.run.tokens_per_step, nodes, round(planned_memory_bytes(study, segment.run)), seconds_per_step,
                hours, nodes * hours,
            )
        )  # fmt: skip
    return pd.DataFrame(rows, columns=PLAN_COLUMNS)
