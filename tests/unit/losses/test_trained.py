"""Stitching a run's metrics over its segments."""

import json
import math

import pytest

from gemstones.errors import UserError
from gemstones.losses.trained import stitch


def train(step, loss=None):
    return {"kind": "train", "step": step, "loss": loss or 4 + math.sin(37 * step) / 20, "seconds": 0.1}


def evaluation(step, loss):
    return {"kind": "validation", "step": step, "loss": loss, "validation_set": "validation"}


def joint(step):
    return {"kind": "start", "step": step}


@pytest.fixture
def metrics(tmp_path):
    path = tmp_path / "metrics.jsonl"

    def write(rows, tail=""):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows) + tail)
        return path

    return write


def test_the_later_segment_wins_where_steps_repeat(metrics):
    rows = [
        joint(0),
        train(1),
        train(2),
        evaluation(2, 4.0),
        train(3),
        joint(2),
        train(3),
        train(4),
        evaluation(4, 3.9),
    ]
    curve = stitch(metrics(rows), 0.05, 4)
    assert list(curve[curve["kind"] == "train"]["step"]) == [1, 2, 3, 4]
    assert list(curve[curve["kind"] == "validation"]["loss"]) == [4.0, 3.9]
    later = stitch(metrics([*rows, joint(2), evaluation(4, 3.91)]), 0.05, 4)
    assert later[later["kind"] == "validation"]["loss"].iloc[-1] == 3.91


def test_rows_after_the_last_step_are_left_out(metrics):
    curve = stitch(metrics([joint(0), train(1), train(2), evaluation(2, 4.0), train(3)]), 0.05, 2)
    assert curve["step"].max() == 2


def test_a_torn_last_line_is_dropped_and_any_other_is_named(metrics):
    rows = [joint(0), train(1), evaluation(1, 4.0)]
    assert len(stitch(metrics(rows, tail='{"kind": "tra'), 0.05, 9)) == 2
    with pytest.raises(UserError, match=r"metrics\.jsonl: line 4 is not JSON"):
        stitch(metrics(rows, tail='{"kind": "tra\n' + json.dumps(train(2)) + "\n"), 0.05, 9)


def test_a_repeated_loss_that_differs_is_named(metrics):
    rows = [joint(0), train(1), evaluation(2, 4.0), joint(1), evaluation(2, 4.2)]
    with pytest.raises(UserError, match=r"validation loss at step 2 was repeated .* differs by 0\.2 nats"):
        stitch(metrics(rows), 0.05, 9)


def test_a_jump_at_a_joint_is_named_and_noise_is_not(metrics):
    smooth = [joint(0), *map(train, range(1, 41)), joint(40), *map(train, range(41, 81))]
    assert len(stitch(metrics(smooth), 0.05, 80)) == 80
    jump = [joint(0), *map(train, range(1, 41)), joint(40), *(train(step, 4.3) for step in range(41, 81))]
    with pytest.raises(UserError, match=r"the training loss jumps by 0\.\d+ nats where the run was resumed at step 40"):
        stitch(metrics(jump), 0.05, 80)
