"""Feasible shapes, selection by rule, pinned shapes."""

import math
from collections import Counter

import pytest

from gemstones.errors import UserError
from gemstones.study import Suite
from gemstones.suite.shapes import by_rule, feasible, parse, selected
from gemstones.suite.tables import shapes_table


def test_the_papers_386_feasible_shapes(frontier):
    assert list(Counter(feasible(frontier.suite).values()).values()) == [5, 13, 28, 62, 74, 97, 107]


def test_the_papers_22_models_and_their_six_exceptions(frontier):
    table = shapes_table(frontier.suite)
    chosen = table[table["selected"]]
    assert len(chosen) == 22
    outside = set(chosen.loc[~chosen["feasible"], "shape"])
    assert outside == {"384x13", "384x36", "512x11", "512x14", "512x16", "1024x28"} == set(frontier.suite.pinned)


def test_rule_takes_the_nearest_ratio_of_each_target(mini):
    possible = feasible(mini.suite)
    for target in set(possible.values()):
        group = {shape: parse(shape) for shape, its_target in possible.items() if its_target == target}
        for ratio in mini.suite.aspect_ratios.values():
            nearest = min(abs(math.log(w / d / ratio)) for w, d in group.values())
            picked = [shape for shape in by_rule(mini.suite) if shape in group]
            assert min(abs(math.log(group[s][0] / group[s][1] / ratio)) for s in picked) == pytest.approx(nearest)


@pytest.mark.parametrize(("target", "nearest"), [(70_000, "32x4"), (80_000, "32x5")])
def test_equally_near_ratios_are_told_apart_by_parameters(target, nearest):
    suite = Suite(
        head_size=16, vocabulary_size=64, targets={"t": target}, tolerance=0.3, width_range=(32, 32),
        depth_range=(4, 5), aspect_ratios={"between": 32 / math.sqrt(4 * 5)},
    )  # fmt: skip
    assert set(feasible(suite)) == {"32x4", "32x5"}
    assert by_rule(suite) == [nearest]


def test_mini_has_wide_standard_and_deep_shapes_in_every_group(mini):
    table = shapes_table(mini.suite).query("selected")
    assert 13 <= len(table) <= 17
    assert table["target"].nunique() == 5
    assert table["aspect_ratio"].max() > 60
    assert table["aspect_ratio"].min() < 7


def test_an_infeasible_shape_must_be_pinned(frontier):
    wrong = frontier.suite.model_copy(update={"shapes": (*frontier.suite.shapes, "512x20")})
    with pytest.raises(UserError, match=r"suite\.shapes: 512x20 .* not feasible.*pin it"):
        selected(wrong)
    assert "512x20" in selected(wrong.model_copy(update={"shapes": (), "pinned": ("512x20",)}))


def test_a_pinned_width_must_be_whole_heads(frontier):
    with pytest.raises(UserError, match="multiple of the head size 128"):
        selected(frontier.suite.model_copy(update={"pinned": ("300x10",)}))
