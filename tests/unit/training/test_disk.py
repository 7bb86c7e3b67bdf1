"""On a full disk a job ends in one line, loses nothing that it had saved, and goes on when there is space again."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gemstones.training import checkpoint

from .conftest import Train, assert_same_state, losses, make_job, make_run

RUN = make_run(width=64, depth=2, scaling_depth=2, steps=30)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB: room for two of the run's checkpoints of 1.6 MB, the one that is being written, and no fill of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here, which takes root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_loses_nothing(train: Train, shards: Path, tmp_path: Path, small_disk: Path) -> None:
    command = [
        sys.executable, "-m", "gemstones", "train", make_job(RUN).model_dump_json(), "--data", str(shards),
        "--until", "30", "--output", str(small_disk / "32x1/steps/30.json"), "--settings", '{"wandb_mode": "disabled"}',
    ]  # fmt: skip
    train(small_disk, 10, make_job(RUN))
    size = next(small_disk.glob("32x1/checkpoints/*/*.pt")).stat().st_size
    fill = small_disk / "fill"
    fill.write_bytes(bytes(shutil.disk_usage(small_disk).free - size // 2))
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith("error: ")
    assert "No space left on device" in failed.stderr
    assert "Traceback" not in failed.stderr
    (folder,) = small_disk.glob("32x1/checkpoints/*")
    kept = checkpoint.newest(folder, at_most=30)
    assert kept is not None
    assert kept.step == 10
    assert not list(folder.glob(".*.tmp"))

    fill.unlink()
    assert subprocess.run(command, check=False).returncode == 0
    resumed = small_disk / "32x1/steps/30.json"
    straight = train(tmp_path / "straight", 30, make_job(RUN))
    assert_same_state(resumed, straight)
    assert losses(resumed) == losses(straight)
    assert json.loads(resumed.read_text())["validation_loss"] == losses(straight)[30]
