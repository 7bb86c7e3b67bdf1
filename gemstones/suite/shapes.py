"""Shapes of a suite: what is feasible, what is picked by rule, what is pinned."""

from __future__ import annotations

import math

from gemstones.errors import UserError
from gemstones.study import Suite
from gemstones.suite import counting
from gemstones.suite.counting import Architecture


def architecture(suite: Suite) -> Architecture:
    """The part of the config that counting needs."""
    return Architecture(suite.head_size, suite.vocabulary_size, suite.context_length)


def parse(shape: str) -> tuple[int, int]:
    """`1024x28` to (1024, 28): width and depth."""
    width, depth = shape.split("x")
    return int(width), int(depth)


def feasible(suite: Suite) -> dict[str, int]:
    """Every shape with an even number of heads whose N lies within the tolerance of a target.

    Returns
    -------
    dict of shape to the target's parameters, ordered by target, width, depth.
    """
    arch = architecture(suite)
    step = 2 * suite.head_size
    (low, high), (shallow, deep) = suite.width_range, suite.depth_range
    found: dict[str, int] = {}
    for target in sorted(suite.targets.values()):
        for width in range(-(-low // step) * step, high + 1, step):
            # N is affine in the depth, so the band of depths is closed form.
            base = counting.params(width, 0, arch)
            per_layer = counting.params(width, 1, arch) - base
            first = math.ceil((target * (1 - suite.tolerance) - base) / per_layer)
            last = math.floor((target * (1 + suite.tolerance) - base) / per_layer)
            for depth in range(max(first, shallow), min(last, deep) + 1):
                found.setdefault(f"{width}x{depth}", target)
    return found


def by_rule(suite: Suite) -> list[str]:
    """For each target, the feasible shape nearest in log to each aspect ratio; ties go to the smaller error in N."""
    possible = feasible(suite)
    picked: list[str] = []
    for target in sorted(set(possible.values())):
        group = [shape for shape, its_target in possible.items() if its_target == target]
        for ratio in suite.aspect_ratios.values():
            picked.append(min(group, key=lambda shape: _distance(shape, ratio, target, suite)))
    return list(dict.fromkeys(picked))


def _distance(shape: str, ratio: float, target: int, suite: Suite) -> tuple[float, float]:
    width, depth = parse(shape)
    error = abs(counting.params(width, depth, architecture(suite)) / target - 1)
    return round(abs(math.log(width / depth / ratio)), 12), error


def selected(suite: Suite) -> list[str]:
    """Names of the suite's shapes, ordered by parameters.

    Raises
    ------
    UserError
        If an explicit shape is infeasible and not pinned, or its width gives no whole number of heads.
    """
    possible = feasible(suite)
    for shape in suite.shapes:
        if shape not in possible:
            low, high = 100 * (1 - suite.tolerance), 100 * (1 + suite.tolerance)
            raise UserError(
                f"suite.shapes: {shape} ({counting.params(*parse(shape), architecture(suite)):,} parameters) is not feasible: "
                f"it needs an even number of heads of size {suite.head_size} and parameters within {low:g}-{high:g} % of a "
                "target; pin it under suite.pinned if it is wanted as it is"
            )
    for shape in suite.pinned:
        if parse(shape)[0] % suite.head_size:
            raise UserError(f"suite.pinned: the width of {shape} is no multiple of the head size {suite.head_size}")
    names = {*suite.shapes, *suite.pinned, *(by_rule(suite) if suite.aspect_ratios else [])}
    return sorted(names, key=lambda shape: (counting.params(*parse(shape), architecture(suite)), shape))
