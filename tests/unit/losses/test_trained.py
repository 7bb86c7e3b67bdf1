"""Losses and steps of the study's own runs, from the metrics that training leaves."""

import json
import math

import pytest
import yaml

from gemstones.errors import UserError
from gemstones.losses.trained import read_curves, trained_losses, trained_steps
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


def losses_of(study, training):
    return trained_losses(study, read_curves(study, training))


def test_rows_are_those_that_are_due_whatever_was_evaluated_before(tiny, tmp_path):
    write_runs(tiny, tmp_path / "plain")
    write_runs(tiny, tmp_path / "former_anchor", extra=[25])
    plain, former = losses_of(tiny, tmp_path / "plain"), losses_of(tiny, tmp_path / "former_anchor")
    assert 25 not in set(former["step"])
    assert len(plain) == len(former)


def test_gpu_hours_are_of_the_machine_that_trained_and_not_of_the_plan(tiny, tmp_path):
    write_runs(tiny, tmp_path)
    losses = losses_of(tiny, tmp_path)
    assert set(losses["num_nodes"]) == {3}
    row = losses[(losses["run"] == "48x2") & (losses["step"] == 40)].iloc[0]
    assert row["gpu_hours"] == pytest.approx(0.1 * 40 * 24 / 3600)


def test_a_missing_evaluation_and_an_unfinished_run_are_named(tiny, tmp_path):
    write_runs(tiny, tmp_path)
    metrics = tmp_path / "48x2/metrics.jsonl"
    metrics.write_text("".join(line for line in metrics.open() if '"step": 30, "loss": 4.7' not in line))
    with pytest.raises(UserError, match="run 48x2: no validation loss at step 30"):
        losses_of(tiny, tmp_path)
    (tmp_path / "16x1/steps/40.json").unlink()
    with pytest.raises(UserError, match=r"16x1/steps/40\.json: not found; the run 16x1 has not reached its last step"):
        losses_of(tiny, tmp_path)


def test_every_step_has_one_row(tiny, tmp_path):
    write_runs(tiny, tmp_path)
    steps = trained_steps(tiny, read_curves(tiny, tmp_path))
    assert not steps.duplicated(["run", "step"]).any()
    counts = steps.groupby("run").size()
    assert {run.name: run.steps - (run.anchor or 0) for run in all_runs(tiny)} == counts.to_dict()


def test_a_run_that_is_not_continuous_is_named(tiny, tmp_path):
    write_runs(tiny, tmp_path)
    with (tmp_path / "48x2/metrics.jsonl").open("a") as file:
        file.write(json.dumps(joint(20)) + "\n" + json.dumps(train(21, 5.0)) + "\n")
    with pytest.raises(UserError, match=r"run 48x2: the train loss of step 21, repeated after a resume, changed by"):
        read_curves(tiny, tmp_path)


def test_a_stopped_run_has_the_rows_before_it_stopped(tmp_path):
    config = yaml.safe_load(TINY.read_text())
    config["runs"]["lr_transfer"] = {"lr_bases": [1, 9, 99], "steps": 40, "evaluate_every": 10, "shapes": ["48x2"]}
    study = load(config, "tests/tiny.yaml")
    write_runs(study, tmp_path)
    for name, step in (("48x2-lr-2", 30), ("48x2-lr-3", 7)):
        path = tmp_path / name / "steps/40.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "stopped": {"step": step, "reason": "divergence"}}))
    losses = losses_of(study, tmp_path)
    steps = losses[losses["phase"] == "lr_transfer"].groupby("run")["step"].agg(list).to_dict()
    assert steps == {"48x2-lr-1": [10, 20, 30, 40], "48x2-lr-2": [10, 20]}


def test_cooldowns_of_the_ablation_are_in_the_table_and_add_no_main_row(tiny, tmp_path):
    config = yaml.safe_load(TINY.read_text())
    config["runs"]["cooldown_ablation"] = {"anchors": [15, 20], "fractions": [0.2, 0.4], "shapes": ["48x2"]}
    study = load(config, "tests/tiny.yaml")
    write_runs(study, tmp_path / "ablation", extra=[15])
    write_runs(tiny, tmp_path / "plain")
    losses, plain = losses_of(study, tmp_path / "ablation"), losses_of(tiny, tmp_path / "plain")
    ablation = losses["phase"] == "cooldown_ablation"
    assert losses.loc[ablation, ["run", "step"]].groupby("run")["step"].agg(list).to_dict() == {
        "48x2-cooldown-15-20": [15, 17], "48x2-cooldown-15-40": [15, 20],
        "48x2-cooldown-20-20": [20, 23], "48x2-cooldown-20-40": [20, 27],
    }  # fmt: skip
    assert losses[~ablation].reset_index(drop=True).equals(plain)
