"""`gemstones train` as a process: killed, repeated, misused."""

import fcntl
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gemstones import __version__
from gemstones.cli import app
from gemstones.cluster import slurm
from gemstones.study import Training
from gemstones.training import deadline
from gemstones.training import job as jobs
from gemstones.training.deadline import CONTINUE

from .conftest import Train, assert_same_state, losses, make_job, make_run

RUN = make_run(steps=150)
HEAVY = "torch", "litgpt", "wandb", "pandas"


def command(folder: Path, shards: Path, job: str | None = None, until: int = 150, **settings: Any) -> list[str]:
    return [
        "train", job or make_job(RUN).model_dump_json(), "--data", str(shards),
        "--until", str(until), "--output", str(folder / "32x1" / "steps" / f"{until}.json"),
        "--settings", json.dumps({"wandb_mode": "disabled", **settings}),
    ]  # fmt: skip


def python(*arguments: str, after: str = "") -> list[str]:
    code = f"import sys; from gemstones.cli import app; app({arguments!r}, standalone_mode=False); {after}"
    return [sys.executable, "-c", code]


def test_a_killed_run_ends_as_if_it_had_not_been(shards: Path, tmp_path: Path) -> None:
    straight = tmp_path / "straight" / "32x1" / "steps" / "150.json"
    jobs.train(
        make_job(RUN), data=shards, folder=tmp_path / "straight", until=150, output=straight,
        settings=Training(wandb_mode="disabled"),
    )  # fmt: skip

    killed = tmp_path / "killed"
    process = subprocess.Popen(python(*command(killed, shards)), stderr=subprocess.PIPE, text=True)
    while not any('"step": 23,' in path.read_text() for path in killed.glob("32x1/metrics/*.jsonl")):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.002)
    process.kill()
    process.communicate()
    assert not (killed / "32x1" / "steps" / "150.json").exists()
    assert list(killed.glob("32x1/checkpoints/*/*.pt"))

    light = "assert not {'lightning', 'torch._dynamo', 'scipy', 'matplotlib'} & set(sys.modules), 'start-up is slow'"
    subprocess.run(python(*command(killed, shards), after=light), check=True)
    resumed = killed / "32x1" / "steps" / "150.json"
    assert_same_state(resumed, straight)
    assert losses(resumed) == losses(straight)

    record = Path(json.loads(resumed.read_text())["metrics"])
    before, manifest = record.read_bytes(), resumed.read_bytes()
    assert record.read_text().count('"start"') == 2
    resumed.unlink()
    again = f"assert not set({HEAVY!r}) & set(sys.modules), 'a job with nothing to do imports what it does not need'"
    subprocess.run(python(*command(killed, shards), after=again), check=True)
    assert record.read_bytes() == before
    assert resumed.read_bytes() == manifest


def rows(folder: Path) -> str:
    return "".join(path.read_text() for path in folder.glob("32x1/metrics/*.jsonl"))


def until_end(arguments: list[str]) -> list[int]:
    """Exit statuses of a job that is started again as long as it asks for it."""
    statuses = []
    while not statuses or statuses[-1] == CONTINUE:
        statuses.append(subprocess.run([sys.executable, "-m", "gemstones", *arguments], check=False).returncode)
    return statuses


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
@pytest.mark.parametrize("parallel", [{}, {"strategy": "ddp", "processes": 2}])
def test_a_signal_saves_and_asks_to_go_on(
    shards: Path, tmp_path: Path, number: signal.Signals, parallel: dict[str, Any]
) -> None:
    job = make_job(RUN.model_copy(update={"evaluate_every": 149})).model_dump_json()
    straight, told = command(tmp_path / "straight", shards, job), command(tmp_path / "told", shards, job, **parallel)
    process = subprocess.Popen([sys.executable, "-m", "gemstones", *told], stderr=subprocess.PIPE, text=True)
    while '"step": 23,' not in rows(tmp_path / "told"):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.002)
    process.send_signal(number)
    errors = process.communicate()[1]
    assert process.returncode == CONTINUE, errors
    assert f"told to stop by {number.name}; saved at step" in errors
    assert "Traceback" not in errors
    assert rows(tmp_path / "told").count('"train"') < 150
    assert until_end(told) == [0]
    assert '"step": 0,' not in rows(tmp_path / "told").partition("\n")[2]  # it went on from there
    if not parallel:
        assert until_end(straight) == [0]
        assert_same_state(*(tmp_path / name / "32x1" / "steps" / "150.json" for name in ("told", "straight")))


def test_a_job_stops_by_itself_before_its_time_is_over(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock goes on by a minute each time that it is read: of an hour, five minutes are left for saving."""
    minutes = itertools.count()
    monkeypatch.setattr(deadline.time, "monotonic", lambda: 60.0 * next(minutes))
    straight = train(tmp_path / "straight", 150, make_job(RUN))
    taken = []
    while not (manifest := tmp_path / "parts/32x1/steps/150.json").exists():
        before = rows(tmp_path / "parts").count('"train"')
        with suppress(deadline.OutOfTime):
            train(tmp_path / "parts", 150, make_job(RUN), walltime_minutes=60)
        taken.append(rows(tmp_path / "parts").count('"train"') - before)
    assert 50 <= taken[0] == taken[1] <= 55
    assert sum(taken) == 150
    assert_same_state(manifest, straight)


def test_of_a_short_job_no_more_than_half_goes_by_unused(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(deadline.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(deadline.signal, "signal", lambda *_: None)
    short = deadline.Deadline(Training(walltime_minutes=4, save_minutes_before=5))
    short.begin_steps()
    for now[0] in (60.0, 110.0):
        assert short.passed() == (now[0] + 60 > 120)


@pytest.mark.parametrize("phase", ["before its first step", "between its runs"])
def test_a_signal_is_not_lost(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str) -> None:
    """Not while a job starts, nor in the last evaluation of a run that others follow in the same job."""
    from gemstones.training import loop

    first, second = make_run(name="32x1-lr-1", phase="lr_transfer"), make_run(name="32x1-lr-2", phase="lr_transfer")

    class Told(loop.Trainer):
        def __init__(self, *given: Any, **options: Any) -> None:
            super().__init__(*given, **options)
            if phase == "before its first step":
                os.kill(os.getpid(), signal.SIGTERM)

        def validate(self) -> dict[str, Any]:
            if self.step == 20:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().validate()

    monkeypatch.setattr(loop, "Trainer", Told)
    with pytest.raises(deadline.OutOfTime, match="told to stop by SIGTERM"):
        train(tmp_path, 20, make_job(second, before=(first,)))
    assert (tmp_path / "32x1-lr-1/steps/20.json").exists() == (phase == "between its runs")
    assert '"train"' not in "".join(path.read_text() for path in tmp_path.glob("32x1-lr-2/metrics/*"))


def test_time_left_is_slurms(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 600))
    assert slurm.minutes_left() == pytest.approx(10, abs=0.1)
    monkeypatch.delenv("SLURM_JOB_END_TIME")
    squeue = tmp_path / "squeue"
    squeue.write_text("#!/bin/sh\necho 1:00:30\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert slurm.minutes_left() == 60.5


def test_two_processes_on_one_run_take_turns(shards: Path, tmp_path: Path) -> None:
    """A killed Snakemake leaves its jobs running, and started again it starts them again."""
    both = [subprocess.Popen(python(*command(tmp_path, shards)), stderr=subprocess.PIPE, text=True) for _ in range(2)]
    shown = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], shown
    assert sum("another process is training this run" in text for text in shown) == 1
    (record,) = tmp_path.glob("32x1/metrics/*.jsonl")
    assert record.read_text().count('"kind": "train"') == 150


def test_a_job_that_waits_for_another_can_be_stopped(train: Train, shards: Path, tmp_path: Path) -> None:
    train(tmp_path, 5, make_job(RUN))
    (lock,) = tmp_path.glob("32x1/checkpoints/*/lock")
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        waiting = subprocess.Popen(
            [sys.executable, "-m", "gemstones", *command(tmp_path, shards)], stderr=subprocess.PIPE, text=True
        )
        assert waiting.stderr is not None
        assert "another process is training this run" in waiting.stderr.readline()
        waiting.send_signal(signal.SIGTERM)
        errors = waiting.communicate(timeout=60)[1]
    assert waiting.returncode == CONTINUE, errors
    assert "told to stop by SIGTERM while another process trained this run" in errors


def test_what_a_kill_left_half_written_is_removed(shards: Path, tmp_path: Path) -> None:
    subprocess.run(python(*command(tmp_path, shards)), check=True)
    (folder,) = tmp_path.glob("32x1/checkpoints/*")
    (folder / ".step-00000160.pt.abc.tmp").write_bytes(b"half")
    subprocess.run(python(*command(tmp_path, shards)), check=True)
    assert not list(folder.glob(".*"))


def test_divergence_is_one_line_and_exit_status_1(shards: Path, tmp_path: Path) -> None:
    diverging = make_job(make_run(lr=1e30, warmup_tokens=64 * 10**28)).model_dump_json()
    result = CliRunner().invoke(app, command(tmp_path, shards, diverging, until=20))
    assert result.exit_code == 1
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "32x1: stopped at step" in errors[0]
    assert "non finite: loss " in errors[0]
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.glob("*/steps/*"))


def test_later_attempts_at_a_run_that_was_stopped_end_before_they_load_a_model(shards: Path, tmp_path: Path) -> None:
    """Slurm's retries cannot tell a fault that will come again from a node that failed."""
    diverging = make_job(make_run(lr=1e30, warmup_tokens=64 * 10**28)).model_dump_json()
    first = command(tmp_path, shards, diverging, until=20)
    assert CliRunner().invoke(app, first).exit_code == 1
    (fault,) = tmp_path.glob("32x1/checkpoints/*/fault.json")
    before = {path: path.read_bytes() for path in tmp_path.glob("32x1/metrics/*")}
    again = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.modules['torch'] = None; from gemstones.cli import app; app({first!r})"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert again.returncode == 1
    assert "by an earlier job: non finite: loss " in again.stderr
    assert f"change training.watch, or remove {fault} to try again" in again.stderr
    assert {path: path.read_bytes() for path in tmp_path.glob("32x1/metrics/*")} == before
    # Another policy is another chance; here it ends in the same way.
    other = command(tmp_path, shards, diverging, until=20, watch={"on_failure": "roll_back"})
    assert "by an earlier job" not in CliRunner().invoke(app, other).stderr
    assert "roll_back" in (tmp_path / "32x1/events.jsonl").read_text()


def test_a_broken_shard_is_named_before_a_model_is_loaded(build: Any, tmp_path: Path) -> None:
    manifest = build(tmp_path / "data")
    content = json.loads(manifest.read_text())
    shard = manifest.parent / content["splits"]["train"]["shards"][0]["file"]
    shard.write_bytes(shard.read_bytes()[:-2])
    code = (
        f"import sys; sys.modules['torch'] = None; from gemstones.cli import app; app({command(tmp_path, manifest)!r})"
    )
    # Of several processes on a node, the first one says it; none has waited for the others.
    for many in ({}, {"SLURM_NTASKS": "16", "SLURM_PROCID": "8", "SLURM_LOCALID": "0"}):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | many)
        assert done.returncode == 1
        assert done.stderr.startswith(f"error: {shard}: the token shard has ")
    silent = os.environ | {"SLURM_NTASKS": "16", "SLURM_PROCID": "9", "SLURM_LOCALID": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=silent)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize(
    ("job", "message"),
    [
        ("{", "error: job: Invalid JSON"),
        ("@no/such.json", "error: job: no/such.json cannot be read"),
        ("{}", "error: job: run: required"),
        (json.dumps({"run": {**RUN.model_dump(), "lr": "high"}}), "error: job: run.lr: Input should be a valid number"),
        (json.dumps({"run": RUN.model_dump(), "befor": []}), "error: job: befor: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_job_is_one_line(shards: Path, tmp_path: Path, job: str, message: str) -> None:
    result = CliRunner().invoke(app, command(tmp_path, shards, job))
    assert result.exit_code == 1
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1


def test_missing_shards_are_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, command(tmp_path, tmp_path / "manifest.json"))
    assert (result.exit_code, result.stderr) == (
        1,
        f"error: {tmp_path / 'manifest.json'}: not found; it is written when the corpus is made into shards\n",
    )


def test_help_has_an_example_and_the_version_is_the_packages() -> None:
    result = CliRunner().invoke(app, ["train", "--help"])
    assert "gemstones train @job.json" in result.stdout
    assert CliRunner().invoke(app, ["--version"]).stdout.strip() == __version__
