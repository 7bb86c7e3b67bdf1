"""Stitching a run's metrics over its segments, and what passes for continuous."""

import json

import numpy as np
import pytest

from gemstones.errors import UserError
from gemstones.losses.stitch import discontinuity, segmented, stitch
from gemstones.training.metrics import read_metrics

NOISE = 0.05


def train(step, loss=4.0):
    return {"kind": "train", "step": step, "loss": loss, "seconds": 0.1}


def evaluation(step, loss):
    return {"kind": "validation", "step": step, "loss": loss, "validation_set": "validation"}


def joint(step, **more):
    return {"kind": "start", "step": step, **more}


def curve(first, last, offset=0.0, seed=0):
    """Steps of a run whose loss falls as real ones do, with the same noise whenever a step is repeated."""
    noise = np.random.default_rng(seed).normal(0, NOISE, 1000)
    return [train(step, 3 + 10 / (step + 5) ** 0.5 + noise[step] + offset) for step in range(first, last + 1)]


def fault(rows, sigmas=5.0):
    return discontinuity(segmented(rows), sigmas)


def test_the_later_segment_wins_where_steps_repeat():
    first = [joint(0, gpus=1), train(1), train(2), evaluation(2, 4.0), train(3, 3.8)]
    second = [joint(2, gpus=2), train(3, 3.9), train(4), evaluation(4, 3.9)]
    found = stitch(segmented([*first, *second]))
    steps = found[found["kind"] == "train"]
    assert list(steps["step"]) == [1, 2, 3, 4]
    assert list(steps["loss"]) == [4.0, 4.0, 3.9, 4.0]
    assert list(steps["segment"]) == [1, 1, 2, 2]
    assert list(steps["gpus"]) == [1, 1, 2, 2]
    assert list(found[found["kind"] == "validation"]["loss"]) == [4.0, 3.9]
    assert stitch(segmented([*first, *second], last_step=3))["step"].max() == 3


def test_a_torn_last_line_is_dropped_and_any_other_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    whole, torn = json.dumps(train(1)) + "\n", '{"kind": "tra'
    path.write_text(whole + torn)
    assert read_metrics(path) == [train(1)]
    path.write_text(whole + torn + "\n" + whole)
    with pytest.raises(UserError, match=r"metrics\.jsonl: line 2 is not JSON"):
        read_metrics(path)


def test_noise_and_a_falling_curve_are_continuous_at_every_joint():
    for step in range(31, 391, 3):
        for seed in range(3):
            rows = [joint(0), *curve(1, step, seed=seed), joint(step), *curve(step + 1, 400, seed=seed)]
            assert fault(rows, sigmas=4.5) is None, (step, seed)


@pytest.mark.parametrize("jump", [0.1, -0.1])
def test_a_jump_at_a_joint_is_named_with_its_step_and_noise(jump):
    rows = [joint(0), *curve(1, 300), joint(300), *curve(301, 600, jump)]
    assert fault(rows).startswith(f"the training loss jumps by {jump:+.1}"[:-2])
    assert "sigma of 0.01" in fault(rows)
    assert fault(rows).endswith("(losses.continuity_sigmas: 5), where the run was resumed at step 300")
    assert fault(rows, sigmas=20) is None


def test_what_is_tolerated_follows_the_noise():
    """A jump of 0.1 is within the noise of batches that are so much smaller."""
    rows = [joint(0), *curve(1, 300), joint(300), *curve(301, 600, 0.1)]
    noisy = [
        {**row, "loss": row["loss"] + 0.3 * (-1) ** row["step"]} if row["kind"] == "train" else row for row in rows
    ]
    assert fault(noisy) is None


def test_repeated_steps_must_be_nearly_the_same():
    def replayed(offset, noise=0.0):
        generator = np.random.default_rng(1)
        again = [{**row, "loss": row["loss"] + generator.normal(0, noise)} for row in curve(41, 80, offset)]
        return [joint(0), *curve(1, 60), joint(40), *again]

    assert fault(replayed(0)) is None
    assert fault(replayed(1e-4)) is None  # another order of summation
    assert fault(replayed(0, noise=0.01)) is None  # weights that have drifted apart, to neither side
    assert "of steps 41 to 60, repeated after a resume, changed by +0.01 nats" in fault(replayed(0.01))
    validation = [joint(0), *curve(1, 20), evaluation(20, 4.0), joint(10), *curve(11, 20), evaluation(20, 4.02)]
    assert "the validation loss of step 20, repeated after a resume, changed by +0.02 nats" in fault(validation)


def test_a_roll_back_may_change_what_it_repeats():
    rolled_back = [joint(0), *curve(1, 60), joint(40, roll_backs=1), *curve(41, 80, -0.3, seed=1)]
    assert fault(rolled_back) is None
    # Killed before its next checkpoint, it goes on from before the roll-back, and rolls back again.
    again = [joint(40, roll_backs=0), *curve(41, 60), joint(40, roll_backs=1), *curve(41, 90, -0.3, seed=1)]
    assert fault([*rolled_back, *again]) is None
    assert "repeated" in fault([*rolled_back, joint(40, roll_backs=0), *curve(41, 60, 0.1)])
