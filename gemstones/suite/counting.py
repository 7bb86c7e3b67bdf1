"""Parameters and FLOPs of a shape, for any head size, vocabulary and context.

Source: Gemstones (arXiv 2502.06857), section 3 and Appendix G. Both counts are affine in the depth.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """What all shapes of a suite share."""

    head_size: int = 128
    vocabulary_size: int = 50_304
    context_length: int = 2048


# Intermediate size of the gated MLP, relative to the width (paper, section 3.1).
MLP_RATIO = 4
# FLOPs of flash attention's backward pass relative to its forward pass (paper, Appendix G).
ATTENTION_BACKWARD_RATIO = 2.5


def heads(width: int, head_size: int) -> int:
    """Number of query heads."""
    return width // head_size


def query_groups(width: int, head_size: int) -> int:
    """Number of key-value heads: one for two query heads (GQA 2:1), at least one."""
    return max(1, heads(width, head_size) // 2)


def params(width: int, depth: int, architecture: Architecture = Architecture()) -> int:
    """All parameters N: embedding, untied LM head, final norm and `depth` blocks."""
    head_size, vocabulary = architecture.head_size, architecture.vocabulary_size
    h, g = heads(width, head_size), query_groups(width, head_size)
    attention = width * (h + 2 * g) * head_size + head_size * h * width
    mlp = 3 * width * MLP_RATIO * width
    norms = 2 * width
    return 2 * vocabulary * width + width + depth * (attention + mlp + norms)


def params_no_input_embedding(width: int, depth: int, architecture: Architecture = Architecture()) -> int:
    """N without the input embedding (V·w)."""
    return params(width, depth, architecture) - architecture.vocabulary_size * width


def params_no_embeddings(width: int, depth: int, architecture: Architecture = Architecture()) -> int:
    """N without the input embedding and the LM head (2·V·w)."""
    return params(width, depth, architecture) - 2 * architecture.vocabulary_size * width


def flops_per_token(width: float, depth: float, architecture: Architecture = Architecture()) -> float:
    """FLOPs of forward and backward pass for one token of a full context (paper, Appendix G).

    Works elementwise on numpy arrays and for real widths and depths. As the authors do, keys and values count
    together as many heads as the queries, also where a width has one KV group.
    """
    s, a = architecture.context_length, architecture.head_size
    q = k = width / a
    attention_in = 2 * s * (q + k) * width * a + 3.5 * s * (q + k / 2) * a
    scores = s**2 * a * q + 3 * s**2 * q + 2 * s**2 * a * q  # query-key products, softmax, reduction over values
    out = 2 * s * width * a * q
    attention_forward = attention_in + scores + out
    attention_backward = 2 * attention_in + ATTENTION_BACKWARD_RATIO * scores + 2 * out
    mlp = 6 * s * width * MLP_RATIO * width + 10 * s * MLP_RATIO * width + 2 * width * s
    norms = 14 * width * s
    final = 7 * width * s + 2 * s * width * architecture.vocabulary_size
    forward = depth * (attention_forward + mlp + norms) + final
    backward = depth * attention_backward + 2 * (depth * (mlp + norms) + final)
    return (forward + backward) / s
