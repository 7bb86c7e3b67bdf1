"""The models that are trained have exactly the parameters that the suite counts."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

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


def test_embeddings_are_multiplied_by_the_root_of_the_width_where_asked() -> None:
    tokens = torch.arange(16)[None]
    plain, scaled = (build_model(make_run(scale_embeddings=scale)) for scale in (False, True))
    scaled.load_state_dict(plain.state_dict())
    with torch.no_grad():
        before = scaled(tokens)
        plain.transformer.wte.weight *= 32**0.5
        torch.testing.assert_close(plain(tokens), before)


def test_norms_multiply_by_one_more_than_their_weight_where_asked() -> None:
    tokens = torch.arange(16)[None]
    plain, offset = (build_model(make_run(norm_offset=offset)) for offset in (False, True))
    offset.load_state_dict(plain.state_dict())
    with torch.no_grad():
        before = offset(tokens)
        for name, weight in plain.named_parameters():
            if "norm" in name or "ln_f" in name:
                weight += 1
        torch.testing.assert_close(plain(tokens), before)


@pytest.mark.parametrize(("width", "depth"), [(512, 12), (1024, 4), (2048, 3)])
def test_flops_are_those_of_torchs_counter_where_both_count(width: int, depth: int) -> None:
    """Matrix products with weights: ours are those that do not grow with the context, but for a few elementwise ones."""
    run = make_run(width=width, depth=depth, head_size=128, vocabulary_size=50_304, context_length=256)
    with torch.device("meta"):
        model, tokens = build_model(run), torch.zeros(1, 256, dtype=torch.long)
        counter = FlopCounterMode(display=False)
        with counter:
            model(tokens).sum().backward()
    counted = sum(
        flops
        for operation, flops in counter.get_flop_counts()["Global"].items()
        if str(operation) in ("aten.mm", "aten.addmm")
    )
    short, long = (counting.flops_per_token(width, depth, Architecture(context_length=s)) for s in (2048, 4096))
    assert 2 * short - long == pytest.approx(counted / 256, rel=0.02)


def test_predictions_do_not_see_the_future() -> None:
    model = build_model(make_run())
    tokens = torch.randint(0, 300, (1, 16), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[0, 10:] += 1
    with torch.no_grad():
        assert torch.equal(model(tokens)[0, :10], model(changed)[0, :10])
