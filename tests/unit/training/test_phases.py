"""Runs of the phases beside the main one: learning rates that may diverge, and cooldowns of any length."""

import json
from pathlib import Path

import pytest

from gemstones.errors import UserError
from gemstones.study import Watch

from .conftest import Train, losses, make_job, make_run

POLICY = Watch(window=2, divergence_nats=1e-6)


def test_a_rate_at_which_training_diverges_ends_its_run_and_not_its_job(train: Train, tmp_path: Path) -> None:
    wild = make_run(name="32x1-lr-2", phase="lr_transfer", lr=1e4, warmup_tokens=64)
    tame = make_run(name="32x1-lr-1", phase="lr_transfer")
    job = make_job(tame, before=(wild,))
    done = json.loads(train(tmp_path, 20, job, watch=Watch(window=2, divergence_nats=1.0)).read_text())
    assert (done["stopped"], done["step"]) == (None, 20)
    stopped = json.loads((tmp_path / "32x1-lr-2/steps/20.json").read_text())
    assert stopped["stopped"]["step"] < 20
    assert stopped["stopped"]["reason"].startswith("non finite: loss")
    assert (stopped["checkpoint"], stopped["validation_loss"]) == (None, None)


def test_the_next_job_of_a_stopped_run_trains_nothing(train: Train, tmp_path: Path) -> None:
    job = make_job(make_run(name="32x1-lr-2", phase="lr_transfer", lr=1e4, warmup_tokens=64))
    first = train(tmp_path, 15, job, watch=POLICY)
    rows = Path(json.loads(first.read_text())["metrics"]).read_text()
    second = train(tmp_path, 20, job, parents=(first,), watch=POLICY)
    assert json.loads(second.read_text())["stopped"] == json.loads(first.read_text())["stopped"]
    assert Path(json.loads(second.read_text())["metrics"]).read_text() == rows


def test_a_main_run_that_diverges_fails(train: Train, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="32x1: stopped at step"):
        train(tmp_path, 20, make_job(make_run(lr=1e4, warmup_tokens=64)), watch=POLICY)
    assert not list(tmp_path.glob("*/steps/*"))


def test_a_cooldown_of_the_ablation_is_a_cooldown(train: Train, tmp_path: Path) -> None:
    parent = train(tmp_path, 20, make_job(checkpoints=(10,)))
    shared = {"phase": "cooldown_ablation", "parent": "32x1", "anchor": 10}
    long = make_run(name="32x1-cooldown-10-60", steps=15, **shared)
    short = make_run(name="32x1-cooldown-10-30", steps=12, **shared)
    assert short.identity() != long.identity()
    manifest = train(tmp_path, 15, make_job(long, before=(short,)), parents=(parent,))
    for path, steps in ((manifest, 15), (tmp_path / "32x1-cooldown-10-30/steps/12.json", 12)):
        assert list(losses(path)) == [10, steps]
        assert losses(path)[10] == losses(parent)[10]
        assert json.loads(path.read_text())["parent"]["step"] == 10
