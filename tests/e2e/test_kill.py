"""Killed at any moment and started again, a study ends with the same losses."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import snakemake

pytestmark = pytest.mark.xdist_group("finished")

TARGET = "results/tiny/training/48x2/steps/40.json"


def validation(project: Path) -> pd.DataFrame:
    (path,) = (project / "results/tiny/training/48x2/metrics").glob("*.jsonl")
    rows = pd.read_json(path, lines=True)
    rows = rows[rows["kind"] == "validation"].drop_duplicates("step", keep="last")
    return rows.sort_values("step")[["step", "loss"]].reset_index(drop=True)


def start(project: Path) -> subprocess.Popen[bytes]:
    command = [str(Path(sys.executable).with_name("snakemake")), "--cores", "1", TARGET]
    return subprocess.Popen(
        [*command, "--configfile", "config/tiny.yaml", "--rerun-incomplete"],
        cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


def wait_for_step(project: Path, step: int) -> None:
    """Wait until the run has taken a step, in whatever job."""
    for _ in range(1200):
        text = "".join(path.read_text() for path in project.glob("results/tiny/training/48x2/metrics/*.jsonl"))
        if f'"step": {step},' in text:
            return
        time.sleep(0.05)
    raise AssertionError(f"step {step} was not reached")


def trainers(project: Path) -> list[int]:
    found = subprocess.run(["pgrep", "-f", "gemstones train"], capture_output=True, text=True).stdout.split()
    mine = []
    for pid in map(int, found):
        try:
            if Path(f"/proc/{pid}/cwd").resolve() == project.resolve():
                mine.append(pid)
        except OSError:
            continue
    return mine


def test_killed_trainer_and_killed_snakemake(project, finished):
    for path in (project / "results/tiny/training").glob("48x2*"):
        subprocess.run(["rm", "-r", str(path)], check=True)

    first = start(project)
    wait_for_step(project, 13)
    for pid in trainers(project):
        os.kill(pid, signal.SIGKILL)
    assert first.wait(timeout=120) != 0

    second = start(project)
    wait_for_step(project, 33)
    os.killpg(second.pid, signal.SIGKILL)
    second.wait()
    for pid in trainers(project):  # a job runs in a session of its own
        os.kill(pid, signal.SIGKILL)

    snakemake(project, "--unlock", "--configfile", "config/tiny.yaml")
    third = start(project)
    assert third.wait(timeout=240) == 0
    pd.testing.assert_frame_equal(validation(project), validation(finished), check_exact=True)
