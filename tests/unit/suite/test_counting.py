"""Counts equal the paper's values; that they equal litgpt's is tested with the model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemstones.suite.counting import Architecture, flops_per_token, params, params_no_embeddings


@pytest.mark.parametrize(
    ("width", "depth", "flops", "ratio"),
    [(256, 80, 9.9674e8, 1.591), (768, 3, 4.4143e8, 0.709), (1536, 50, 1.2759e10, 1.105)],
)
def test_flops_per_token_of_the_paper(width, depth, flops, ratio):
    assert flops_per_token(width, depth) == pytest.approx(flops, rel=5e-5)
    assert flops_per_token(width, depth) / (6 * params(width, depth)) == pytest.approx(ratio, abs=5e-4)


def test_params_of_released_models():
    # `params_active_precise` in the authors' files.
    assert params(1024, 28) == 543_482_880
    assert params(384, 13) == 66_758_784  # three heads, one KV head
    assert params(3072, 12) == 2_007_837_696


@given(
    heads=st.integers(1, 16).map(lambda n: 2 * n),
    head_size=st.sampled_from([16, 32, 128]),
    depth=st.integers(1, 60),
    vocabulary=st.integers(64, 60_000),
)
def test_counts_are_affine_in_depth_and_grow(heads, head_size, depth, vocabulary):
    arch, width = Architecture(head_size, vocabulary, 64), heads * head_size
    layer = params(width, 1, arch) - params(width, 0, arch)
    assert params(width, depth, arch) == params(width, 0, arch) + depth * layer
    assert params_no_embeddings(width, depth, arch) == width + depth * layer
    # Matrix products alone, forward and backward, cost six FLOPs a parameter in use.
    assert flops_per_token(width, depth, arch) > 6 * (
        params(width, depth, arch) - vocabulary * width - 2 * width * depth
    )
