"""Initial weights: truncated normal, narrower for the projections back into the residual stream.

Source: Gemstones (arXiv 2502.06857), section 3.2 and Appendix C. With the instability patch, layer indices are rescaled
to the patched depth.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import torch

from gemstones.suite.counting import MLP_RATIO
from gemstones.suite.runs import Run

if TYPE_CHECKING:
    from litgpt import GPT


def standard_deviation(name: str, run: Run) -> float | None:
    """σ of a weight before truncation, by its name in litgpt's GPT; None for norms, which start at one."""
    width = run.width
    if "norm_" in name or "ln_f" in name:
        return None
    projection = re.fullmatch(r"transformer\.h\.(\d+)\.(attn|mlp)\.proj\.weight", name)
    if projection is None:
        return 1 / math.sqrt(width)
    layer = int(projection[1]) * run.scaling_depth / run.depth
    fan_in = width if projection[2] == "attn" else MLP_RATIO * width
    return 1 / math.sqrt(2 * fan_in * (layer + 1))


@torch.no_grad()
def initialize(model: GPT, run: Run) -> None:
    """Draw all weights in place, on the CPU, from a generator seeded by the run."""
    generator = torch.Generator().manual_seed(run.seed)
    for name, weight in model.named_parameters():
        sigma = standard_deviation(name, run)
        if sigma is None:
            torch.nn.init.ones_(weight)
        else:
            bound = run.truncation * sigma
            torch.nn.init.trunc_normal_(weight, 0.0, sigma, -bound, bound, generator=generator)
