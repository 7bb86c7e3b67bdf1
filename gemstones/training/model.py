"""The transformer of a run: litgpt's GPT with the study's settings, exactly as `suite.counting` counts it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gemstones.suite.counting import MLP_RATIO, heads, query_groups
from gemstones.suite.runs import Run

if TYPE_CHECKING:
    from litgpt import GPT

# Released models (their model cards and training code); the paper does not state these.
NORM_EPSILON = 1e-5
ROPE_BASE = 10_000


def build_model(run: Run) -> GPT:
    """A model with litgpt's default weights, on torch's default device; logits are (batch, context, vocabulary)."""
    return build(_settings(run), run.norm_offset)


def build(settings: Mapping[str, Any], norm_offset: bool) -> GPT:
    """As :func:`build_model`, from the fields of litgpt's `Config`; with `norm_offset`, norms multiply by 1 + weight."""
    with _litgpt_model() as litgpt:
        model: GPT = litgpt.GPT(litgpt.Config(**settings))
        for module in model.modules():
            if isinstance(module, litgpt.RMSNorm):
                module.add_unit_offset = norm_offset
        return model


def _settings(run: Run) -> dict[str, Any]:
    return {
        # litgpt looks for "Gemma" in the name and would then change the norms.
        "name": f"gemstone-{run.shape}",
        "block_size": run.context_length,
        "n_layer": run.depth,
        "n_embd": run.width,
        "n_head": heads(run.width, run.head_size),
        "n_query_groups": query_groups(run.width, run.head_size),
        "head_size": run.head_size,
        "vocab_size": run.vocabulary_size,
        "padded_vocab_size": run.vocabulary_size,
        "norm_class_name": "RMSNorm",
        "norm_eps": NORM_EPSILON,
        "mlp_class_name": "GemmaMLP",
        "gelu_approximate": "tanh",
        "intermediate_size": MLP_RATIO * run.width,
        "bias": False,
        "lm_head_bias": False,
        "parallel_residual": False,
        "rotary_percentage": 1.0,
        "rope_base": ROPE_BASE,
        "scale_embeddings": run.scale_embeddings,
    }


@contextmanager
def _litgpt_model() -> Iterator[Any]:
    """litgpt's module `model` without the rest of litgpt.

    `import litgpt` brings lightning, torchmetrics, scipy and matplotlib: 5 CPU-seconds, more than a segment of a tiny
    model trains. The model needs none of it, so stand-ins take the place of the package and its checkpoint converter
    while a model is built, and are gone afterwards.
    """
    spec = importlib.util.find_spec("litgpt")
    if "litgpt" in sys.modules or spec is None or spec.submodule_search_locations is None:
        yield importlib.import_module("litgpt.model")
        return
    package, converter = ModuleType("litgpt"), ModuleType("litgpt.scripts.convert_hf_checkpoint")
    package.__path__ = list(spec.submodule_search_locations)
    vars(converter)["qkv_reassemble"] = None  # only for checkpoints in litgpt's former format
    for module in (package, ModuleType("litgpt.scripts"), converter):
        sys.modules[module.__name__] = module
    try:
        yield importlib.import_module("litgpt.model")
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "litgpt"]:
            del sys.modules[name]
