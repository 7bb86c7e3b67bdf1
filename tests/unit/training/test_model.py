"""The models that are trained have exactly the parameters that the suite counts."""

import pytest
import torch

from gemstones.suite import counting
from gemstones.suite.counting import Architecture
from gemstones.training.model import build_model

from .conftest import make_run

RELEASED = Architecture(128, 50_304, 2048)


@pytest.mark.parametrize(
    ("width", "depth", "architecture"),
    [
        (256, 23, RELEASED),
        (384, 13, RELEASED),  # three query heads share one group
        (768, 3, RELEASED),
        (1024, 28, RELEASED),
        (3072, 12, RELEASED),
        (32, 1, Architecture(16, 1024, 64)),
        (96, 4, Architecture(16, 1024, 64)),
        (128, 2, Architecture(32, 2048, 128)),
    ],
)
def test_parameters_are_those_counted(width: int, depth: int, architecture: Architecture) -> None:
    run = make_run(
        width=width,
        depth=depth,
        head_size=architecture.head_size,
        vocabulary_size=architecture.vocabulary_size,
        context_length=architecture.context_length,
    )
    with torch.device("meta"):
        model = build_model(run)
    weights = dict(model.named_parameters())
    assert sum(weight.numel() for weight in weights.values()) == counting.params(width, depth, architecture)
    assert not any(name.endswith("bias") for name in weights)
    assert weights["lm_head.weight"] is not weights["transformer.wte.weight"]
    assert model.config.n_query_groups == max(1, width // architecture.head_size // 2)


def test_norms_have_no_offset_and_embeddings_are_scaled_where_asked() -> None:
    assert not build_model(make_run()).transformer.ln_f.add_unit_offset
    assert build_model(make_run()).config.scale_embeddings
    assert not build_model(make_run(scale_embeddings=False)).config.scale_embeddings


def test_predictions_do_not_see_the_future() -> None:
    model = build_model(make_run())
    tokens = torch.randint(0, 300, (1, 16), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[0, 10:] += 1
    with torch.no_grad():
        assert torch.equal(model(tokens)[0, :10], model(changed)[0, :10])
