"""Who trains a run where Slurm starts jobs twice; its commands are stand-ins here, and real in tests/slurm."""

import errno
import fcntl
from pathlib import Path
from typing import Any

import pytest

from gemstones.training.deadline import OutOfTime
from gemstones.training.lock import MOST_REMINDERS, REMINDERS, Lock


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the state of every job, as a file; jobs that get a signal are listed in `told`."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    scripts = {
        "squeue": f'cd {folder}; [ -f "$3" ] && exec /bin/cat "$3"; echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1',
        "scancel": f'echo "$@" >> {folder}/told',
    }
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.fixture
def unlockable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without locks."""

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)


def lock(folder: Path, job: str | None, monkeypatch: pytest.MonkeyPatch) -> Lock:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    if job:
        monkeypatch.setenv("SLURM_JOB_ID", job)
    return Lock(folder / "run/lock")


def test_a_later_job_has_the_earlier_one_save_and_stop(
    slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (slurm / "7").write_text("RUNNING")
    earlier = lock(tmp_path, "7", monkeypatch)
    assert earlier.take()
    later = lock(tmp_path, "12", monkeypatch)
    assert [later.take(), later.take()] == [False, False]
    assert (slurm / "told").read_text() == "--signal=USR1 7\n"  # once
    earlier.release()
    assert not later.take()  # its Snakemake is at work still
    (slurm / "7").write_text("COMPLETED")
    assert later.take()


def test_a_job_that_does_not_stop_is_cancelled_and_not_waited_for_for_ever(
    slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gemstones.training.lock.REMIND", 0)
    earlier = lock(tmp_path, "7", monkeypatch)
    assert earlier.take()
    later = lock(tmp_path, "12", monkeypatch)
    for _ in range(MOST_REMINDERS):
        assert not later.take()
    with pytest.raises(OutOfTime, match="Slurm job 7 is training this run, and does not end"):
        later.take()
    told = (slurm / "told").read_text().splitlines()
    assert told == ["--signal=USR1 7"] * REMINDERS + ["7"] * (MOST_REMINDERS - REMINDERS)


def test_an_earlier_job_ends_at_once_where_a_later_one_is_at_work(
    slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = lock(tmp_path, "12", monkeypatch)
    assert later.take()
    with pytest.raises(OutOfTime, match="Slurm job 12, submitted later, is training this run"):
        lock(tmp_path, "7", monkeypatch).take()


@pytest.mark.usefixtures("unlockable")
@pytest.mark.parametrize(("state", "taken"), [("RUNNING", False), ("COMPLETING", False), ("PENDING", True), ("", True)])
def test_where_files_cannot_be_locked_slurm_knows_whether_a_job_is_at_work(
    slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, taken: bool
) -> None:
    """One that was killed, whose node failed, or that was put back into the queue has left its name behind."""
    assert lock(tmp_path, "7", monkeypatch).take()
    if state:
        (slurm / "7").write_text(state)
    assert lock(tmp_path, "12", monkeypatch).take() == taken
    assert (slurm / "told").exists() == (not taken)


@pytest.mark.usefixtures("unlockable")
@pytest.mark.parametrize("moment", ["while it looks", "after it wrote"])
def test_of_two_jobs_that_take_it_at_the_same_time_one_gets_it(
    slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    assert lock(tmp_path, "7", monkeypatch).take()
    mine = lock(tmp_path, "12", monkeypatch)

    def other_is_faster(*_: Any) -> bool:
        (tmp_path / "run/lock").write_text("11")
        return False

    where = (
        "gemstones.training.lock.slurm.at_work" if moment == "while it looks" else "gemstones.training.lock.time.sleep"
    )
    monkeypatch.setattr(where, other_is_faster)
    assert not mine.take()
    assert (tmp_path / "run/lock").read_text() == "11"


@pytest.mark.usefixtures("unlockable")
def test_a_job_that_runs_again_after_a_requeue_takes_its_own_lock(
    slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (slurm / "7").write_text("RUNNING")
    assert lock(tmp_path, "7", monkeypatch).take()
    assert lock(tmp_path, "7", monkeypatch).take()


@pytest.mark.usefixtures("unlockable")
def test_a_slurm_that_does_not_answer_is_waited_for(
    slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lock(tmp_path, "7", monkeypatch).take()
    (slurm / "squeue").write_text("#!/bin/sh\necho 'Unable to contact slurm controller' >&2\nexit 1\n")
    assert not lock(tmp_path, "12", monkeypatch).take()


def test_a_machine_without_slurm_goes_on_with_what_slurms_jobs_have_left(
    slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lock(tmp_path, "7", monkeypatch).take()
    (slurm / "squeue").unlink()
    assert lock(tmp_path, None, monkeypatch).take()


def test_a_process_without_slurm_waits_for_a_job(slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = lock(tmp_path, "7", monkeypatch)
    assert job.take()
    assert not lock(tmp_path, None, monkeypatch).take()
    assert not (slurm / "told").exists()
