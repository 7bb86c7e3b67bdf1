"""Runs that go wrong: what is seen, what is done, and that a run which rolls back is as exact as any other."""

import json
import os
import signal
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gemstones.errors import UserError
from gemstones.study import Watch
from gemstones.training import data, trainer
from gemstones.training.deadline import OutOfTime
from gemstones.training.watch import Watcher

from .conftest import Train, assert_same_state, losses, make_job, make_run, state

RUN = make_run(steps=60, evaluate_every=10)
BAD = 33  # number of the batch


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[int]]:
    """One batch of the corpus is bad: of random tokens, or such that its loss is not a number. Gives the batches that are read."""

    def _spoil(how: str) -> list[int]:
        read: list[int] = []
        honest = data.Batches.batch

        def batch(self: data.Batches, step: int, part: int, parts: int) -> np.ndarray:
            read.append(step)
            found = honest(self, step, part, parts)
            if step == BAD and how == "spike":
                found = np.random.default_rng(0).integers(0, 300, found.shape)
            return found

        def cross_entropy(*given: Any, **options: Any) -> torch.Tensor:
            loss = torch.nn.functional.cross_entropy(*given, **options)
            return loss * float("nan") if how == "nan" and read[-1] == BAD else loss

        monkeypatch.setattr(data.Batches, "batch", batch)
        monkeypatch.setattr(trainer, "functional", types.SimpleNamespace(cross_entropy=cross_entropy))
        return read

    return _spoil


def events(folder: Path) -> list[dict[str, Any]]:
    path = folder / "32x1" / "events.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_spike_is_recorded_and_the_run_goes_on(
    train: Train, spoil: Callable[[str], list[int]], tmp_path: Path
) -> None:
    spoil("spike")
    train(tmp_path, 60, make_job(RUN), watch=Watch(window=20, sigmas=10))
    seen = [event for event in events(tmp_path) if event["kind"] != "stall"]  # on a busy machine
    assert {(event["kind"], event["step"]) for event in seen} == {("spike", BAD + 1)}
    (loss,) = [event for event in seen if event["of"] == "loss"]
    assert loss["sigmas"] > 10
    assert loss["value"] > loss["median"]


def test_losses_that_are_not_finite_stop_a_run(train: Train, spoil: Callable[[str], list[int]], tmp_path: Path) -> None:
    spoil("nan")
    with pytest.raises(UserError, match=f"32x1: stopped at step {BAD + 1}: non finite: loss nan"):
        train(tmp_path, 60, make_job(RUN))
    assert [event["kind"] for event in events(tmp_path) if event["kind"] != "stall"] == ["non_finite", "stop"]
    metrics = next(tmp_path.glob("32x1/metrics/*.jsonl")).read_text()
    assert f'"step": {BAD},' in metrics
    assert f'"step": {BAD + 1},' not in metrics


@pytest.mark.parametrize("how", ["spike", "nan"])
def test_a_roll_back_skips_the_bad_batches(
    train: Train,
    spoil: Callable[[str], list[int]],
    tmp_path: Path,
    how: str,
) -> None:
    read = spoil(how)
    policy = Watch(window=20, on_spike="roll_back", on_failure="roll_back", roll_back_lr_factor=0.5)
    manifest = train(tmp_path / "whole", 60, make_job(RUN), watch=policy)
    # To the checkpoint of step 30, and on with the batch after the bad one; each later batch is read once.
    assert read == [*range(BAD + 1), *range(BAD + 1, BAD + 31)]
    (act,) = [event for event in events(tmp_path / "whole") if event["kind"] == "roll_back"]
    assert (act["step"], act["to"], act["skipped"], act["lr_factor"]) == (BAD + 1, 30, 4, 0.5)
    assert (state(manifest)["skipped"], state(manifest)["roll_backs"]) == (4, 1)
    rows = [json.loads(line) for line in next(tmp_path.glob("whole/32x1/metrics/*.jsonl")).read_text().splitlines()]
    lr = {row["step"]: row["lr"] for row in rows if row["kind"] == "train"}
    assert lr[30] == 2 * lr[31] == RUN.lr
    assert len(losses(manifest, "train")) == 60

    # In two jobs, the second of which resumes after the roll-back, it is the same run.
    train(tmp_path / "parts", 42, make_job(RUN), watch=policy)
    assert_same_state(train(tmp_path / "parts", 60, make_job(RUN), watch=policy), manifest)


def test_after_a_roll_back_of_several_checkpoints_no_job_goes_on_from_what_was_left(
    train: Train, spoil: Callable[[str], list[int]], tmp_path: Path
) -> None:
    spoil("nan")
    policy = Watch(window=20, on_failure="roll_back", roll_back_checkpoints=2, roll_back_lr_factor=0.5)
    manifest = train(tmp_path / "whole", 60, make_job(RUN), watch=policy)
    (act,) = [event for event in events(tmp_path / "whole") if event["kind"] == "roll_back"]
    assert (act["to"], act["skipped"]) == (20, 14)

    update = trainer.Trainer.update

    def interrupted(model: trainer.Trainer) -> dict[str, Any]:
        if model.roll_backs and model.step == 24:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.Trainer, "update", interrupted)
        with pytest.raises(OutOfTime, match="saved at step 25 of 60"):
            train(tmp_path / "parts", 60, make_job(RUN), watch=policy)
    assert_same_state(train(tmp_path / "parts", 60, make_job(RUN), watch=policy), manifest)


def test_each_roll_back_lowers_the_learning_rate_again(train: Train, tmp_path: Path, monkeypatch: Any) -> None:
    honest = trainer.functional.cross_entropy
    calls = iter(range(10**6))

    def cross_entropy(*given: Any, **options: Any) -> torch.Tensor:
        loss = honest(*given, **options)
        # Two bad batches in a row, with the same checkpoint before both.
        return loss * float("nan") if loss.requires_grad and next(calls) in (32, 33) else loss

    monkeypatch.setattr(trainer, "functional", types.SimpleNamespace(cross_entropy=cross_entropy))
    policy = Watch(window=20, on_failure="roll_back", roll_back_lr_factor=0.5)
    manifest = train(tmp_path, 60, make_job(RUN), watch=policy)
    assert [event["lr_factor"] for event in events(tmp_path) if event["kind"] == "roll_back"] == [0.5, 0.25]
    assert (state(manifest)["lr_factor"], state(manifest)["roll_backs"]) == (0.25, 2)


def test_a_gradient_that_is_not_finite_changes_nothing(train: Train, tmp_path: Path, monkeypatch: Any) -> None:
    honest = trainer.functional.cross_entropy
    batches = iter(range(10**6))

    def cross_entropy(*given: Any, **options: Any) -> torch.Tensor:
        loss = honest(*given, **options)
        if loss.requires_grad and next(batches) == 12:
            loss.register_hook(lambda gradient: gradient * float("inf"))
        return loss

    monkeypatch.setattr(trainer, "functional", types.SimpleNamespace(cross_entropy=cross_entropy))
    with pytest.raises(UserError, match=r"stopped at step 13: non finite: loss \d"):
        train(tmp_path, 60, make_job(RUN))
    metrics = next(tmp_path.glob("32x1/metrics/*.jsonl")).read_text()
    assert '"step": 12,' in metrics
    assert '"step": 13,' not in metrics


def test_a_run_that_keeps_going_wrong_stops(train: Train, tmp_path: Path) -> None:
    policy = Watch(window=2, on_failure="roll_back", most_roll_backs=2)
    diverging = make_run(lr=1e30, warmup_tokens=64 * 10**28, evaluate_every=1)
    with pytest.raises(UserError, match="32x1: stopped at step"):
        train(tmp_path, 20, make_job(diverging), watch=policy)
    assert [event["kind"] for event in events(tmp_path)].count("roll_back") == 2
    assert events(tmp_path)[-1]["kind"] == "stop"


def row(step: int, loss: float = 3.0, seconds: float = 1.0) -> dict[str, Any]:
    return {
        "step": step,
        "loss": loss + 0.01 * (step % 3),
        "gradient_norm": 1 + 0.1 * (step % 4),
        "seconds": seconds,
        "lr": 1.0,
    }


def test_divergence_and_stalls_are_seen() -> None:
    watcher = Watcher(Watch(window=30, divergence_nats=0.5, sigmas=1e9))
    calm = [event for step in range(60) for event in watcher.look(row(step))]
    assert calm == []
    slow = [event for step in range(60, 65) for event in watcher.look(row(step, seconds=10.0))]
    assert [(event["kind"], event["step"]) for event in slow] == [("stall", 60)]  # once, not at every step
    rising = [event for step in range(65, 100) for event in watcher.look(row(step, loss=4.0))]
    assert rising[0]["kind"] == "divergence"
    assert rising[0]["mean_loss"] > rising[0]["lowest_mean_loss"] + 0.5
    assert watcher.act(rising[:1], 0) == "stop"


def test_a_watch_goes_on_where_it_was() -> None:
    one, two = Watcher(Watch(window=30)), Watcher(Watch(window=30))
    for step in range(40):
        one.look(row(step))
    two.restore(json.loads(json.dumps(one.state())))
    assert one.look(row(40, loss=3.5)) == two.look(row(40, loss=3.5)) != []
