"""What a token takes in GPU-hours: the model of speed, fitted to what the runs of a study recorded, on an assumed number of nodes."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median, median_low
from typing import TYPE_CHECKING, Any

import pandas as pd

from gemstones.cluster.throughput import FEWEST_MEASURED, Measured, SpeedModel, fit_speeds, planned_speeds
from gemstones.suite import counting
from gemstones.suite.shapes import architecture, parse

if TYPE_CHECKING:
    from gemstones.study import Study


@dataclass(frozen=True)
class Speeds:
    """A model of speed and the nodes that prescriptions assume.

    Attributes
    ----------
    nodes : assumed, whatever the shape; GPU-hours on others are the model's too.
    flops_per_gpu_hour : of the middle one of the measured shapes.
    max_gpu_hours : most GPU-hours of a row that was fitted; beyond it, a law extrapolates. None where unknown.
    """

    model: SpeedModel
    nodes: int
    flops_per_gpu_hour: float
    max_gpu_hours: float | None = None

    def gpu_hours_per_token(self, width: Any, flops_per_token: Any, params: Any, nodes: int | None = None) -> Any:
        """See :meth:`SpeedModel.gpu_hours_per_token`."""
        return self.model.gpu_hours_per_token(width, flops_per_token, params, nodes or self.nodes)


def speeds_of(
    study: Study, losses: pd.DataFrame | None = None, max_gpu_hours: float | None = None, nodes: int | None = None
) -> Speeds | None:
    """The speeds that the main runs of a losses table recorded or, without a table, those of `plan.throughput`.

    Parameters
    ----------
    losses : the study's losses table; where it has runs of the study and of others, the study's own count.
    nodes : assumed, for `prescriptions.nodes` or, where that is not set either, the median of those recorded.

    Returns
    -------
    None where too few shapes have a known speed for the model.
    """
    if losses is None:
        measured = planned_speeds(study)
        tokens_per_step = study.recipe.batch_size * study.suite.context_length
        gpus_per_node = study.plan.gpus_per_node
    else:
        runs = recorded(losses, study.study)
        if runs.empty:
            return None
        rows = zip(runs["width"], runs["depth"], runs["num_nodes"], runs["seconds_per_step"], strict=True)
        measured = tuple(Measured(f"{width}x{depth}", int(n), float(seconds)) for width, depth, n, seconds in rows)
        tokens_per_step = round(float((runs["tokens"] / runs["step"]).median()))
        gpus_per_node = round(float((runs["gpus"] / runs["num_nodes"]).median()))
    model = fit_speeds(measured, architecture(study.suite), tokens_per_step, gpus_per_node)
    if model is None:
        return None
    rates = [
        counting.flops_per_token(*parse(each.shape), model.architecture)
        / (each.seconds_per_step * each.nodes * gpus_per_node / (3600 * tokens_per_step))
        for each in measured
    ]
    nodes = nodes or study.prescriptions.nodes or median_low(each.nodes for each in measured)
    return Speeds(model, nodes, median(rates), max_gpu_hours)


def recorded(losses: pd.DataFrame, study: str) -> pd.DataFrame:
    """The last row of every main run whose speed was recorded: of the study's own runs or, if it has none, of others'."""
    known = losses[["width", "depth", "step", "num_nodes", "gpus", "seconds_per_step"]].notna().all(axis=1)
    main = losses[(losses["phase"] == "main").fillna(False) & known]
    own = main[main["suite"] == study]
    return (main if own.empty else own).sort_values("step", kind="stable").groupby(["suite", "run"]).tail(1)


def too_few(speeds: Speeds | None) -> str | None:
    """Why there are no GPU-hours, for a log or a screen."""
    return None if speeds else f"no GPU-hours: a model of speed needs {FEWEST_MEASURED} shapes with a recorded speed"
