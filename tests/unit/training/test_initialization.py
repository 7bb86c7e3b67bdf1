"""Initial weights have the paper's standard deviations."""

import math

import pytest
import torch

from gemstones.training.initialization import initialize, standard_deviation
from gemstones.training.model import build_model

from .conftest import make_run

WIDE = make_run(width=256, depth=3, scaling_depth=3, head_size=32)
# Standard deviation of a standard normal truncated at three.
TRUNCATED_AT_3 = math.sqrt(1 - 2 * 3 * math.exp(-4.5) / math.sqrt(2 * math.pi) / math.erf(3 / math.sqrt(2)))


def test_standard_deviation_of_every_kind_of_weight() -> None:
    model = build_model(WIDE)
    initialize(model, WIDE)
    due = {
        "wte": 1 / 16, "lm_head": 1 / 16, "qkv": 1 / 16, "fc_1": 1 / 16, "fc_2": 1 / 16,
    }  # fmt: skip
    for name, weight in model.named_parameters():
        *_, module, _ = name.split(".")
        if "norm" in name or "ln_f" in name:
            assert torch.equal(weight, torch.ones(256)), name
            continue
        if module == "proj":
            layer, fan_in = int(name.split(".")[2]), 256 if ".attn." in name else 1024
            sigma = 1 / math.sqrt(2 * fan_in * (layer + 1))
        else:
            sigma = due[module]
        assert weight.std().item() == pytest.approx(sigma * TRUNCATED_AT_3, rel=0.01), name
        assert weight.abs().max().item() <= 3 * sigma
        assert abs(weight.mean().item()) < 0.02 * sigma


def test_patched_depth_rescales_the_layer_index() -> None:
    patched = WIDE.model_copy(update={"depth": 2, "scaling_depth": 6})
    assert standard_deviation("transformer.h.1.attn.proj.weight", patched) == 1 / math.sqrt(2 * 256 * (1 * 6 / 2 + 1))
    assert standard_deviation("transformer.h.1.mlp.proj.weight", patched) == 1 / math.sqrt(2 * 4 * 256 * (3 + 1))
    assert standard_deviation("transformer.h.0.mlp.proj.weight", patched) == 1 / math.sqrt(2 * 4 * 256)


def test_weights_follow_from_the_seed_alone() -> None:
    models = [build_model(WIDE) for _ in range(3)]
    for model, seed in zip(models, [0, 0, 1], strict=True):
        initialize(model, WIDE.model_copy(update={"seed": seed}))
        torch.rand(7)  # the global generator plays no part
    first, again, other = (model.lm_head.weight for model in models)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
