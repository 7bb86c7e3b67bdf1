"""However a run is cut into jobs, killed or asked for again, it has the same numbers and nothing is trained twice."""

import json
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gemstones.cluster.restore import restore
from gemstones.cluster.storage import archive
from gemstones.errors import UserError
from gemstones.suite.runs import Run
from gemstones.training import checkpoint
from gemstones.training.job import Job

from .conftest import Train, assert_same_state, losses, make_cooldown, make_job, make_run, state
from .test_checkpoint import flip_a_bit


@pytest.fixture(scope="session")
def straight(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of the run trained to its end in one go, with a checkpoint kept at step 10."""
    return train(tmp_path_factory.mktemp("straight"), 20, make_job(checkpoints=(10,)))


def checkpoints(manifest: Path) -> list[int]:
    folder = Path(json.loads(manifest.read_text())["checkpoint"]["path"]).parent
    return sorted(int(path.stem.removeprefix("step-")) for path in folder.glob("*.pt"))


def metrics(manifest: Path) -> str:
    return Path(json.loads(manifest.read_text())["metrics"]).read_text()


def test_a_run_learns_and_says_what_it_did(straight: Path, shards: Path) -> None:
    manifest = json.loads(straight.read_text())
    rows = [json.loads(line) for line in metrics(straight).splitlines()]
    train_rows = [row for row in rows if row["kind"] == "train"]
    assert rows[0]["kind"] == "start"
    assert [row["step"] for row in train_rows] == list(range(1, 21))
    assert train_rows[0]["lr"] == 0
    assert train_rows[-1]["tokens"] == 20 * 64
    evaluated = losses(straight)
    assert list(evaluated) == [5, 10, 15, 20]
    assert evaluated[20] < evaluated[5] < 5.8
    assert manifest["validation_loss"] == evaluated[20]
    assert (manifest["run"], manifest["phase"], manifest["step"], manifest["tokens"]) == ("32x1", "main", 20, 1280)
    assert list(manifest["checkpoints"]) == ["10", "20"]
    assert checkpoints(straight) == [10, 15, 20]
    assert manifest["data_sha256"] == json.loads(shards.read_text())["tokens_sha256"]
    assert Run(**manifest["specification"]) == make_run()


def test_two_jobs_give_what_one_gives(train: Train, straight: Path, tmp_path: Path) -> None:
    train(tmp_path, 10)
    second = train(tmp_path, 20)
    assert_same_state(second, straight)
    assert losses(second) == losses(straight)
    assert losses(second, "train") == losses(straight, "train")
    assert metrics(second).count('"start"') == 2


def test_a_job_that_is_cut_off_between_checkpoints_goes_on(
    train: Train, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gemstones.training.trainer import Trainer

    update = Trainer.update

    def failing(trainer: Trainer) -> dict:
        if trainer.step == 13:
            raise KeyboardInterrupt
        return update(trainer)

    monkeypatch.setattr(Trainer, "update", failing)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, 20)
    assert not list(tmp_path.glob("*/steps/*"))
    monkeypatch.undo()
    resumed = train(tmp_path, 20)
    assert_same_state(resumed, straight)
    assert losses(resumed) == losses(straight)
    assert [row["step"] for row in map(json.loads, metrics(resumed).splitlines()) if row["kind"] == "start"] == [0, 10]


def test_asking_again_changes_nothing(train: Train, tmp_path: Path) -> None:
    manifest = train(tmp_path, 20)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    manifest.unlink()
    train(tmp_path, 20)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_longer_run_is_the_same_run(train: Train, straight: Path, tmp_path: Path) -> None:
    train(tmp_path, 10, make_job(make_run(steps=10)))
    longer = train(tmp_path, 20)
    assert_same_state(longer, straight)
    assert metrics(longer).count('"start"') == 2


def test_a_milestone_in_the_middle_of_what_is_done_trains_nothing(train: Train, tmp_path: Path) -> None:
    last = train(tmp_path, 20)
    before = metrics(last)
    middle = train(tmp_path, 12)
    manifest = json.loads(middle.read_text())
    assert metrics(middle) == before
    assert manifest["checkpoint"]["step"] == 15  # the first one that is kept after it
    assert manifest["validation_loss"] == losses(last)[10]
    train(tmp_path, 30, make_job(make_run(steps=30)))
    first = middle.read_bytes()
    middle.unlink()
    assert train(tmp_path, 12).read_bytes() == first


def test_an_anchor_that_is_asked_for_later_is_replayed(train: Train, straight: Path, tmp_path: Path) -> None:
    train(tmp_path, 20)
    reference = train(tmp_path / "reference", 8)
    late = train(tmp_path, 20, make_job(checkpoints=(8,)))
    manifest = json.loads(late.read_text())
    assert list(manifest["checkpoints"]) == ["8", "20"]
    assert metrics(late).count('"start"') == 2
    replayed = torch.load(manifest["checkpoints"]["8"]["path"], weights_only=True)
    assert torch.equal(replayed["model"]["lm_head.weight"], state(reference)["model"]["lm_head.weight"])
    assert_same_state(late, straight)
    assert losses(late, "train") == losses(straight, "train")


def test_ends_of_jobs_may_go_when_they_are_superseded(train: Train, straight: Path, tmp_path: Path) -> None:
    first = train(tmp_path, 5, keep_checkpoints="anchors")
    train(tmp_path, 10, make_job(checkpoints=(10,)), keep_checkpoints="anchors")
    assert checkpoints(first) == [5, 10]
    for until in (15, 20, 25):
        last = train(tmp_path, until, make_job(make_run(steps=until)), keep_checkpoints="anchors")
    assert checkpoints(last) == [10, 20, 25]
    rows, named = metrics(last), first.read_bytes()
    first.unlink()
    train(tmp_path, 5, keep_checkpoints="anchors")  # nothing is trained for it
    assert metrics(last) == rows
    assert json.loads(first.read_text())["checkpoint"]["step"] == 10
    assert first.read_bytes() != named
    # A former end that becomes an anchor stays one.
    train(tmp_path, 20, make_job(checkpoints=(20,)), keep_checkpoints="anchors")
    for until in (30, 35, 40):
        last = train(tmp_path, until, make_job(make_run(steps=until)), keep_checkpoints="anchors")
    assert checkpoints(last) == [10, 20, 35, 40]
    assert losses(last) == losses(last) | losses(straight)


def test_a_damaged_checkpoint_is_left_out_and_the_run_ends_the_same(
    train: Train, straight: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = Path(json.loads(train(tmp_path, 15).read_text())["checkpoint"]["path"])
    flip_a_bit(damaged)
    with caplog.at_level(logging.WARNING):
        last = train(tmp_path, 20)
    assert f"{damaged}: damaged" in caplog.text
    assert_same_state(last, straight)
    assert losses(last) == losses(straight)


def test_checkpoints_are_kept_as_asked(train: Train, tmp_path: Path) -> None:
    assert checkpoints(train(tmp_path / "few", 20)) == [15, 20]
    assert checkpoints(train(tmp_path / "all", 20, keep_checkpoints="all")) == [5, 10, 15, 20]
    train(tmp_path / "chain", 5)
    assert checkpoints(train(tmp_path / "chain", 20)) == [5, 15, 20]


def test_another_recipe_or_corpus_starts_afresh_and_the_former_state_is_found_again(
    train: Train, build: Callable[..., Path], tmp_path: Path
) -> None:
    first = train(tmp_path, 10)
    content, record = first.read_bytes(), metrics(first)
    assert json.loads(train(tmp_path, 10, make_job(make_run(lr=0.02))).read_text())["validation_loss"] > 0
    other_data = build(tmp_path / "data", validation_fraction=0.3)
    assert train(tmp_path, 10, data=other_data).read_bytes() != content
    assert len(list((tmp_path / "32x1" / "checkpoints").iterdir())) == 3
    back = train(tmp_path, 10)
    assert back.read_bytes() == content
    assert metrics(back) == record


def test_cooldowns_branch_from_their_parent_and_end_at_zero(train: Train, straight: Path, tmp_path: Path) -> None:
    early, late = make_cooldown(10, 14), make_cooldown(20, 28)
    manifest = train(tmp_path, 28, make_job(late, before=(early,)), parents=(straight,))
    first = tmp_path / "32x1-cooldown-10" / "steps" / "14.json"
    parent = json.loads(first.read_text())["parent"]
    assert parent["path"] == json.loads(straight.read_text())["checkpoints"]["10"]["path"]
    assert losses(first).keys() == {10, 14}
    assert losses(first)[10] == losses(straight)[10]
    assert losses(manifest).keys() == {20, 28}
    rates = [row["lr"] for row in map(json.loads, metrics(first).splitlines()) if row["kind"] == "train"]
    assert rates == pytest.approx([0.01, 0.0075, 0.005, 0.0025])
    # The data go on where the parent's did: the first update repeats the parent's, from the same weights and batch.
    assert losses(first, "train")[11] == losses(straight, "train")[11]
    assert losses(first, "train")[12] == losses(straight, "train")[12]
    assert losses(first, "train")[14] != losses(straight, "train")[14]
    before = metrics(first)
    train(tmp_path, 28, make_job(late, before=(early,)), parents=(straight,))
    assert metrics(first) == before


def test_a_cooldown_in_two_jobs_is_the_same(train: Train, straight: Path, tmp_path: Path) -> None:
    job = make_job(make_cooldown(10, 24))
    whole = train(tmp_path / "whole", 24, job, parents=(straight,))
    train(tmp_path / "parts", 17, job, parents=(straight,))
    parts = train(tmp_path / "parts", 24, job, parents=(straight,))
    assert_same_state(parts, whole)
    assert losses(parts) == losses(whole)


def test_a_cooldown_without_its_anchor_says_what_to_do(train: Train, straight: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none of the given manifests has a checkpoint of 32x1 at step 15"):
        train(tmp_path, 18, make_job(make_cooldown(15, 18)), parents=(straight,))
    parent = train(tmp_path, 10)
    Path(json.loads(parent.read_text())["checkpoint"]["path"]).unlink()
    with pytest.raises(UserError, match="train 32x1 to step 10 again"):
        train(tmp_path, 14, make_job(make_cooldown(10, 14)), parents=(parent,))


def test_a_damaged_anchor_is_named(train: Train, tmp_path: Path) -> None:
    parent = train(tmp_path, 10)
    path = Path(json.loads(parent.read_text())["checkpoint"]["path"])
    flip_a_bit(path)
    with pytest.raises(UserError, match=f"{path}: .*damaged"):
        train(tmp_path, 14, make_job(make_cooldown(10, 14)), parents=(parent,))


def test_divergence_names_run_and_step_and_keeps_what_was_there(train: Train, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"32x1: stopped at step \d+: non finite: loss \S+, gradient norm \S+, lr"):
        train(tmp_path, 20, make_job(make_run(lr=1e30, warmup_tokens=64 * 10**28, evaluate_every=1)))
    assert not list(tmp_path.glob("*/steps/*"))
    assert list(tmp_path.glob("*/checkpoints/*/*.pt"))


@pytest.mark.parametrize(
    ("until", "job", "message"),
    [
        (21, make_job(), "step 21 is not within its steps 1 to 20"),
        (10, make_job(checkpoints=(12,)), "checkpoints: step 12 is not within this job's steps 1 to 10"),
        (10, make_job(make_run(vocabulary_size=400)), "vocabulary of 300"),
    ],
)
def test_a_job_that_cannot_be_is_named(train: Train, tmp_path: Path, until: int, job: Job, message: str) -> None:
    with pytest.raises(UserError, match=message):
        train(tmp_path, until, job)


def test_a_state_stays_as_it_is_until_it_is_written(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written slowly while training goes on, each checkpoint is of the very step at which it was taken."""
    honest, changed = checkpoint.save, []

    def slow(folder: Path, step: int, state: dict, **more: bool) -> checkpoint.Checkpoint:
        before = [tensor.clone() for tensor in state["model"].values()]
        time.sleep(0.1)
        changed.append(not all(map(torch.equal, before, state["model"].values())))
        return honest(folder, step, state, **more)

    monkeypatch.setattr(checkpoint, "save", slow)
    train(tmp_path, 20, make_job(make_run(evaluate_every=2)))
    assert changed == [False] * 10


def test_mixed_precision_trains_too(train: Train, straight: Path, tmp_path: Path) -> None:
    mixed = train(tmp_path, 5, make_job(make_run(precision="bf16-mixed")))
    assert losses(mixed)[5] != losses(straight)[5]
    assert losses(mixed)[5] == pytest.approx(losses(straight)[5], abs=0.05)


def test_an_archived_run_goes_on_where_it_was(train: Train, straight: Path, tmp_path: Path) -> None:
    folder = tmp_path / "results/training"
    first = train(folder, 10, make_job(checkpoints=(10,)))
    archive(first, tmp_path / "archive/32x1.json", "results")
    shutil.rmtree(folder)
    restore(tmp_path / "archive/32x1.json", tmp_path / "results")
    last = train(folder, 20)
    assert_same_state(last, straight)
    assert losses(last, "train") == losses(straight, "train")
    assert metrics(last).count('"start"') == 2


def test_a_run_is_the_same_from_copies_of_the_shards(
    train: Train, straight: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEMSTONES_SHARDS", str(tmp_path / "copies"))
    shutil.copytree(shards.parent / "shards", tmp_path / "copies")
    assert_same_state(train(tmp_path, 20, shards="$GEMSTONES_SHARDS"), straight)
    monkeypatch.delenv("GEMSTONES_SHARDS")
    with pytest.raises(UserError, match=r"^training.shards: .* GEMSTONES_SHARDS is not set"):
        train(tmp_path / "other", 20, shards="$GEMSTONES_SHARDS")
