"""The recipe's numbers for one shape: peak learning rate and the instability patch.

Source: Gemstones (arXiv 2502.06857), section 3.2 and the released training code.
"""

from __future__ import annotations

import math

from gemstones.study import Recipe
from gemstones.suite.shapes import parse

# The patch puts ceil(width / 100) in the place of the depth (paper, Appendix C).
PATCH_WIDTH_PER_LAYER = 100


def scaling_depth(shape: str, recipe: Recipe) -> int:
    """The depth that learning rate and initialisation see: the real one, or ⌈width/100⌉ for patched shapes."""
    width, depth = parse(shape)
    patched = width / depth > recipe.patch_above_aspect_ratio if recipe.patched is None else shape in recipe.patched
    return math.ceil(width / PATCH_WIDTH_PER_LAYER) if patched else depth


def peak_lr(shape: str, recipe: Recipe, lr_base: float) -> float:
    """Peak learning rate lr_base / (width · √depth), the same for every parameter."""
    width, _ = parse(shape)
    return lr_base / (width * math.sqrt(scaling_depth(shape, recipe)))


def cooldown_end(anchor: int, fraction: float) -> int:
    """The step at which a cooldown ends: anchor + fraction·anchor − 1, as the released checkpoints are numbered.

    Halves round to even. For the study's anchors this gives 2622, 5246, 7870, …, 26223.
    """
    return anchor + round(anchor * fraction) - 1
