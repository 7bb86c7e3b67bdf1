"""A checkpoint is whole or left out, and pruning never takes a milestone."""

import logging
import threading
from pathlib import Path

import pytest
import torch

from gemstones.training import checkpoint


def save(folder: Path, step: int, milestone: bool = False) -> checkpoint.Checkpoint:
    return checkpoint.save(folder, step, {"step": step, "model": {"weight": torch.arange(50)}}, milestone=milestone)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    saved = save(tmp_path, 225)
    assert saved.path.name == "step-00000225.pt"
    found = checkpoint.newest(tmp_path, at_most=1000)
    assert found == saved
    assert torch.equal(checkpoint.load(found)["model"]["weight"], torch.arange(50))
    assert not list(tmp_path.glob(".*"))


def test_newest_lies_within_the_bounds(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        save(tmp_path, step)
    found = checkpoint.newest(tmp_path, at_most=14)
    assert found is not None
    assert found.step == 10
    assert checkpoint.newest(tmp_path, at_most=14, above=10) is None
    assert checkpoint.newest(tmp_path, at_most=4) is None


@pytest.mark.parametrize("damage", ["flipped", "truncated", "absent", "sidecar"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    save(tmp_path, 5)
    path = save(tmp_path, 10).path
    if damage == "flipped":
        flip_a_bit(path)
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "absent":
        path.unlink()
    else:
        path.with_suffix(".json").write_text("{")
    with caplog.at_level(logging.WARNING):
        found = checkpoint.newest(tmp_path, at_most=10)
    assert found is not None
    assert found.step == 5
    assert "step-00000010" in caplog.text


def test_a_checkpoint_without_its_sidecar_does_not_exist(tmp_path: Path) -> None:
    save(tmp_path, 5)
    save(tmp_path, 10).sidecar.unlink()  # as if killed between the two files
    assert [found.step for found in checkpoint.available(tmp_path)] == [5]
    checkpoint.clean(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000005.json", "step-00000005.pt"]


def test_pruning_keeps_milestones_the_two_newest_and_the_current_one(tmp_path: Path) -> None:
    for step in (5, 10, 15, 20, 25, 30):
        save(tmp_path, step, milestone=step == 10)
    checkpoint.prune(tmp_path, current=15)
    assert [found.step for found in checkpoint.available(tmp_path)] == [10, 15, 25, 30]
    assert len(list(tmp_path.iterdir())) == 8


def test_the_end_of_a_job_goes_once_a_later_checkpoint_was_read_back(tmp_path: Path) -> None:
    for step in (5, 10, 15, 20, 25, 30):
        checkpoint.save(tmp_path, step, {"step": step}, milestone=step != 15, end=step != 10)
    checkpoint.prune(tmp_path, current=30)
    assert [found.step for found in checkpoint.available(tmp_path)] == [5, 10, 20, 25, 30]
    checkpoint.prune(tmp_path, current=30, ends_below=20)
    assert [found.step for found in checkpoint.available(tmp_path)] == [10, 20, 25, 30]


def test_what_was_asked_for_is_never_again_a_mere_end(tmp_path: Path) -> None:
    def end() -> bool:
        (found,) = checkpoint.milestones(tmp_path)
        return found.end

    saved = checkpoint.save(tmp_path, 5, {"step": 5}, milestone=True, end=True)
    assert checkpoint.keep(saved, end=True) == saved
    assert end()
    assert not checkpoint.keep(saved).end
    checkpoint.keep(checkpoint.available(tmp_path)[0], end=True)
    checkpoint.save(tmp_path, 5, {"step": 5}, milestone=True, end=True)
    assert not end()


def test_going_back_ends_at_a_milestone_and_passes_over_what_is_damaged(tmp_path: Path) -> None:
    for step in (5, 10, 15, 20, 25):
        save(tmp_path, step, milestone=step == 10)
    flip_a_bit(checkpoint.path_of(tmp_path, 20))

    def back(number: int) -> int | None:
        found = checkpoint.before(tmp_path, 25, number)
        return found.step if found else None

    assert [back(number) for number in (1, 2, 3)] == [15, 10, 10]
    assert checkpoint.before(tmp_path, 5, 1) is None
    checkpoint.discard(tmp_path, above=5)
    assert [found.step for found in checkpoint.available(tmp_path)] == [5, 10]


def test_a_checkpoint_is_written_while_training_goes_on_but_one_at_a_time() -> None:
    done, go, saver = [], threading.Event(), checkpoint.Saver()
    saver.start(lambda: (go.wait(10), done.append(1)))
    assert not done
    threading.Timer(0.1, go.set).start()
    saver.start(lambda: done.append(2))
    assert done[0] == 1
    saver.wait()
    assert done == [1, 2]
    saver.start(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        saver.wait()
    saver.wait()  # it has been said


def test_a_milestone_stays_one_when_written_again(tmp_path: Path) -> None:
    checkpoint.keep(save(tmp_path, 5))
    save(tmp_path, 5)
    assert checkpoint.available(tmp_path)[0].milestone
