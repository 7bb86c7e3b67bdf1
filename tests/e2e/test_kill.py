"""Killed at any moment and started again, a study ends with the same losses."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import copy_project, snakemake

MEASURED = ["seconds_per_step", "gpu_hours"]  # of the machine, not of the models


def start(project: Path, config: str, *targets: str) -> subprocess.Popen[bytes]:
    command = [str(Path(sys.executable).with_name("snakemake")), "--cores", "2", *targets]
    return subprocess.Popen(
        [*command, "--configfile", f"config/{config}.yaml", "--rerun-incomplete"],
        cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


def wait_for_step(run: Path, step: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a run has taken a step, in whatever job."""
    while True:  # ends with the process at the latest
        text = "".join(path.read_text() for path in run.glob("metrics/*.jsonl"))
        if f'"step": {step},' in text:
            return
        assert process.poll() is None, f"ended before {run.name} reached step {step}"
        time.sleep(0.02)


def kill_trainers(project: Path, run: str) -> int:
    """SIGKILL to the training processes of a run; gives their number."""
    killed = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command, folder = (process / "cmdline").read_text(), (process / "cwd").resolve()
        except OSError:
            continue  # it has ended
        if "gemstones\0train\0" in command and f'"name": "{run}"' in command and folder == project.resolve():
            os.kill(int(process.name), signal.SIGKILL)
            killed += 1
    return killed


def kill_twice(project: Path, config: str, run: str, steps: tuple[int, int], *targets: str) -> None:
    """SIGKILL to a run's training process at one step, to Snakemake alone at a later one, then let it all end."""
    folder = project / f"results/{config if config != 'config' else 'mini'}/training/{run}"
    first = start(project, config, *targets)
    wait_for_step(folder, steps[0], first)
    assert kill_trainers(project, run) == 1
    assert first.wait() != 0

    second = start(project, config, *targets)
    wait_for_step(folder, steps[1], second)
    second.kill()  # its training processes live on, and the next ones wait for them
    second.wait()

    snakemake(project, "--unlock", "--configfile", f"config/{config}.yaml")
    assert start(project, config, *targets).wait() == 0


def test_a_run_ends_as_if_it_had_not_been_killed(project, finished):
    for path in (project / "results/tiny/training").glob("48x2*"):
        shutil.rmtree(path)
    kill_twice(project, "tiny", "48x2", (13, 33), "train")
    for run in ("48x2", "48x2-lr_ablation", "48x2-cooldown-20", "48x2-cooldown-40"):
        assert validation(project, run) == validation(finished, run)


def validation(project: Path, run: str) -> set[tuple[int, float]]:
    """Steps and losses; a step that was done again after a kill has two rows, and one loss."""
    (path,) = (project / f"results/tiny/training/{run}/metrics").glob("*.jsonl")
    rows = pd.read_json(path, lines=True, precise_float=True)
    return set(rows.loc[rows["kind"] == "validation", ["step", "loss"]].itertuples(index=False, name=None))


@pytest.mark.parametrize(
    "options", [["--steps", "400"], ["--steps", "120", "--strategy", "axonn(1,1,2)", "--processes", "2"]]
)
def test_ten_kills_change_nothing(options):
    """SIGKILL to a single process, or to one of two that train together: `python -m tests.kill --kills 50` is the long version."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.kill", "--kills", "10", *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("kill ") == 10
    assert (
        "weights identical, checkpoint identical, validation losses identical, training losses identical" in done.stdout
    )


@pytest.mark.slow
def test_the_whole_mini_study_ends_as_if_it_had_not_been_killed(tmp_path):
    undisturbed, killed = copy_project(tmp_path / "undisturbed"), copy_project(tmp_path / "killed")
    assert start(undisturbed, "config").wait() == 0
    kill_twice(killed, "config", "64x3", (100, 300))
    ours, theirs = (
        pd.read_parquet(project / "results/mini/losses/losses.parquet").drop(columns=MEASURED)
        for project in (undisturbed, killed)
    )
    pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
