"""Stitching a run's metrics over its segments."""

import json
import math

import pytest
import yaml

from gemstones.errors import UserError
from gemstones.losses.trained import stitch, trained_losses
from gemstones.study import load
from gemstones.suite.runs import all_runs
from tests.conftest import TINY


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


@pytest.fixture
def tiny():
    return load(yaml.safe_load(TINY.read_text()), "tests/tiny.yaml")


def write_runs(study, folder, extra=()):
    """Metrics and manifests as training leaves them, with evaluations at `extra` steps of the main runs too."""
    for run in all_runs(study):
        first = run.anchor or 0
        steps = {*range(run.evaluate_every, run.steps, run.evaluate_every), run.steps}
        evaluated = {first, run.steps} if run.anchor else steps | ({*extra} if run.phase == "main" else set())
        rows = [{**joint(first), "num_nodes": 3, "gpus": 24}, *map(train, range(first + 1, run.steps + 1))]
        rows += [evaluation(step, 5 - step / 100) for step in sorted(evaluated)]
        path = folder / run.name / "metrics.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        (path.parent / "steps").mkdir()
        manifest = {"metrics": str(path)}
        (path.parent / f"steps/{run.steps}.json").write_text(json.dumps(manifest))


def test_rows_are_those_that_are_due_whatever_was_evaluated_before(tiny, tmp_path):
    write_runs(tiny, tmp_path / "plain")
    write_runs(tiny, tmp_path / "former_anchor", extra=[25])
    plain, former = trained_losses(tiny, tmp_path / "plain"), trained_losses(tiny, tmp_path / "former_anchor")
    assert 25 not in set(former["step"])
    assert len(plain) == len(former)


def test_gpu_hours_are_of_the_machine_that_trained_and_not_of_the_plan(tiny, tmp_path):
    write_runs(tiny, tmp_path)
    losses = trained_losses(tiny, tmp_path)
    assert set(losses["num_nodes"]) == {3}
    row = losses[(losses["run"] == "48x2") & (losses["step"] == 40)].iloc[0]
    assert row["gpu_hours"] == pytest.approx(0.1 * 40 * 24 / 3600)


def test_a_missing_evaluation_and_an_unfinished_run_are_named(tiny, tmp_path):
    write_runs(tiny, tmp_path)
    metrics = tmp_path / "48x2/metrics.jsonl"
    metrics.write_text("".join(line for line in metrics.open() if '"step": 30, "loss": 4.7' not in line))
    with pytest.raises(UserError, match="run 48x2: no validation loss at step 30"):
        trained_losses(tiny, tmp_path)
    (tmp_path / "16x1/steps/40.json").unlink()
    with pytest.raises(UserError, match=r"16x1/steps/40\.json: not found; the run 16x1 has not reached its last step"):
        trained_losses(tiny, tmp_path)
