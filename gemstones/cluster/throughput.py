"""How fast a run trains on so many nodes: as measured, as the config says, or by a model fitted to what was measured.

The plan's measured speeds are the config's; those of prescriptions are what runs recorded (:mod:`gemstones.prescriptions.speeds`).

The model: a step takes `a·F/D + b·F/(w·D) + c·N` seconds, for F FLOPs on D devices, width w and N parameters, with no coefficient
below zero. That is arithmetic at full speed, work on activations (which narrow layers have more of for each FLOP), and gradients
that all nodes exchange, which takes no less time on more devices. Relative errors are least.

On the 22 measured shapes of the full study it is off by a factor of 1.08 where a shape is left out of the fit. Straight lines
in logs do worse: device-seconds on FLOPs and width 1.09, on FLOPs, width and nodes 1.10, on width and nodes, with as many
seconds as FLOPs, 1.11. The first says nothing of nodes, and in the others a line goes on for ever.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from gemstones.errors import UserError
from gemstones.study import Study, Throughput
from gemstones.suite import counting
from gemstones.suite.counting import Architecture
from gemstones.suite.shapes import architecture, parse

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gemstones.suite.runs import Run

Source = Literal["measured", "flops_per_second", "fitted"]
# Twice as many as the model has coefficients.
FEWEST_MEASURED = 6


class Speed(NamedTuple):
    """Of a run, with where it is known from."""

    nodes: int
    seconds_per_step: float
    source: Source


class Measured(NamedTuple):
    """Speed of a shape on so many nodes."""

    shape: str
    nodes: int
    seconds_per_step: float


@dataclass(frozen=True)
class SpeedModel:
    """Seconds per step of any shape on any number of nodes.

    Parameters
    ----------
    coefficients : seconds for each FLOP, each FLOP over the width (both of a device), and each parameter.
    error : typical relative error for a shape that is not among those measured (root mean square of logs, left out in turn).
    nodes : fewest and most that were measured; beyond them the model extrapolates.
    shapes : how many were measured.
    """

    coefficients: tuple[float, ...]
    error: float
    nodes: tuple[int, int]
    shapes: int
    architecture: Architecture
    tokens_per_step: int
    gpus_per_node: int

    def seconds_per_step(self, shape: str, nodes: int) -> float:
        return float(self._seconds(*_size(shape, self.architecture), nodes))

    def gpu_hours_per_token(self, width: Any, flops_per_token: Any, params: Any, nodes: int) -> Any:
        """Of shapes by their numbers, also real ones: floats, or arrays that broadcast together."""
        devices = nodes * self.gpus_per_node
        return self._seconds(width, flops_per_token, params, nodes) * devices / (3600 * self.tokens_per_step)

    def _seconds(self, width: Any, flops_per_token: Any, params: Any, nodes: int) -> Any:
        terms = _terms(width, flops_per_token, params, self.tokens_per_step, nodes * self.gpus_per_node)
        return sum(factor * term for factor, term in zip(self.coefficients, terms, strict=True))

    def extrapolates(self, nodes: int) -> bool:
        return not self.nodes[0] <= nodes <= self.nodes[1]


def speed(study: Study, run: Run, nodes: int | None = None) -> Speed:
    """Nodes and seconds per step of a run.

    Measured on those nodes if the config has the shape, else from `plan.flops_per_second`, else from the fitted model. A shape
    that was measured on other nodes keeps its own ratio to the model.

    Parameters
    ----------
    nodes : instead of the planned ones, which for a shape not measured are those of the nearest measured one, or one.

    Raises
    ------
    UserError
        If the config says none of these.
    """
    plan, shape = study.plan, run.shape
    measured = plan.throughput.get(shape)
    if measured and nodes in (None, measured.nodes):
        return Speed(measured.nodes, measured.seconds_per_step, "measured")
    if not measured and plan.flops_per_second is not None:
        flops = counting.flops_per_token(run.width, run.depth, architecture(study.suite)) * run.tokens_per_step
        return Speed(nodes or 1, flops / plan.flops_per_second / (nodes or 1), "flops_per_second")
    model = speed_model(study)
    if model is None:
        known = len(plan.throughput)
        raise UserError(
            f"plan.throughput: {shape} on {nodes} nodes is not measured, and {known} measured shapes are too few for a model "
            f"of speed, which needs {FEWEST_MEASURED}"
            if measured
            else f"plan.throughput: no entry for {shape}, and plan.flops_per_second is not set either; a model of speed needs "
            f"{FEWEST_MEASURED} measured shapes, not {known}"
        )
    nodes = nodes or _nearest(study, shape).nodes
    seconds = model.seconds_per_step(shape, nodes)
    if measured:
        seconds *= measured.seconds_per_step / model.seconds_per_step(shape, measured.nodes)
    return Speed(nodes, seconds, "fitted")


def speed_model(study: Study) -> SpeedModel | None:
    """The model fitted to `plan.throughput`; None if it has too few shapes."""
    tokens_per_step = study.recipe.batch_size * study.suite.context_length
    return fit_speeds(planned_speeds(study), architecture(study.suite), tokens_per_step, study.plan.gpus_per_node)


def planned_speeds(study: Study) -> tuple[Measured, ...]:
    """What `plan.throughput` says."""
    return tuple(Measured(name, each.nodes, each.seconds_per_step) for name, each in study.plan.throughput.items())


def _nearest(study: Study, shape: str) -> Throughput:
    """The measured shape nearest in log parameters; ties go to the first by name."""
    arch = architecture(study.suite)

    def distance(other: str) -> tuple[float, str]:
        ratio = counting.params(*parse(other), arch) / counting.params(*parse(shape), arch)
        return abs(math.log(ratio)), other

    return study.plan.throughput[min(study.plan.throughput, key=distance)]


def _size(shape: str, arch: Architecture) -> tuple[int, float, int]:
    """Width, FLOPs per token and parameters."""
    width, depth = parse(shape)
    return width, counting.flops_per_token(width, depth, arch), counting.params(width, depth, arch)


def _terms(width: Any, flops_per_token: Any, params: Any, tokens_per_step: int, devices: int) -> tuple[Any, Any, Any]:
    flops = flops_per_token * tokens_per_step / devices
    return flops, flops / width, params


# Every run asks for the same one.
@lru_cache(maxsize=8)
def fit_speeds(
    measured: tuple[Measured, ...], arch: Architecture, tokens_per_step: int, gpus_per_node: int
) -> SpeedModel | None:
    """The model of least relative errors; None if fewer shapes were measured than it needs.

    A shape that was measured more than once is left out as a whole, where the error is found.
    """
    shapes = list(dict.fromkeys(each.shape for each in measured))
    if len(shapes) < FEWEST_MEASURED:
        return None
    # Here, since the workflow does without where all is measured.
    import numpy as np

    seconds = np.array([each.seconds_per_step for each in measured])
    terms = np.array(
        [_terms(*_size(each.shape, arch), tokens_per_step, each.nodes * gpus_per_node) for each in measured]
    )
    relative = terms / seconds[:, None]
    errors: list[float] = []
    for shape in shapes:
        left_out = np.array([each.shape == shape for each in measured])
        errors.extend(np.log(relative[left_out] @ _least_squares(relative[~left_out])))
    nodes = [each.nodes for each in measured]
    return SpeedModel(
        tuple(_least_squares(relative).tolist()), float(np.expm1(np.sqrt(np.mean(np.square(errors))))),
        (min(nodes), max(nodes)), len(shapes), arch, tokens_per_step, gpus_per_node,
    )  # fmt: skip


def _least_squares(relative: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coefficients of zero or more, (k,), that bring the rows' sums, (n, k), nearest to one.

    Of every choice of terms, those whose own solution has none below zero hold the best one.
    """
    import numpy as np

    count = relative.shape[1]
    scale = np.abs(relative).mean(0)
    found = []
    for size in range(1, count + 1):
        for chosen in map(list, combinations(range(count), size)):
            solution = np.linalg.lstsq(relative[:, chosen] / scale[chosen], np.ones(len(relative)), rcond=None)[0]
            if (solution >= 0).all():
                coefficients = np.zeros(count)
                coefficients[chosen] = solution / scale[chosen]
                found.append((float(np.square(relative @ coefficients - 1).sum()), coefficients))
    return min(found, key=lambda each: each[0])[1]
