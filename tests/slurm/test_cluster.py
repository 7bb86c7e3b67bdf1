"""The private Slurm has Frontier's limits; so what a plan counts on is refused or held there as it is on the machine."""

import subprocess
import time

import pytest

from tests.slurm import cluster, faults

pytestmark = [pytest.mark.usefixtures("slurm"), pytest.mark.xdist_group("slurm")]


def submit(*options: str) -> str:
    """A job's number; AssertionError if it is refused, with what Slurm says."""
    command = [
        "sbatch",
        "--parsable",
        "--account",
        cluster.ACCOUNT,
        "--output",
        "/dev/null",
        *options,
        "--wrap",
        "sleep 60",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def states(*jobs: str) -> list[str]:
    return [faults.slurm("squeue", "--noheader", "--jobs", job, "--format", "%T").strip() for job in jobs]


def test_limits_are_frontiers() -> None:
    jobs = []
    try:
        with pytest.raises(AssertionError, match="time limit is invalid"):
            submit("--partition", "batch", "--time", "121")
        with pytest.raises(AssertionError, match="Invalid account"):
            submit("--account", "xyz")
        jobs.append(submit("--partition", "batch", "--qos", "debug", "--time", "5"))
        with pytest.raises(AssertionError, match="QOSMaxSubmitJobPerUserLimit"):
            submit("--partition", "batch", "--qos", "debug", "--time", "5")
        # A day in `extended`, where one job runs at a time.
        jobs += [submit("--partition", "extended", "--time", "1440") for _ in range(2)]
        end = time.monotonic() + 30
        while states(*jobs[1:]) != ["RUNNING", "PENDING"] and time.monotonic() < end:
            time.sleep(0.5)
        assert states(*jobs[1:]) == ["RUNNING", "PENDING"]
    finally:
        if jobs:
            faults.slurm("scancel", *jobs)


def test_nodes_have_eight_devices_and_a_job_has_whole_nodes() -> None:
    options = ["--account", cluster.ACCOUNT, "--partition", "batch", "--constraint", "nvme", "--time", "1"]
    command = [
        "srun",
        *options,
        "--nodes=1",
        "--ntasks=8",
        "--gpus-per-node=8",
        "--gpus-per-task=1",
        "--cpus-per-task=7",
    ]
    shown = faults.slurm(*command, "--gpu-bind=closest", "sh", "-c", "echo $SLURM_LOCALID $SLURM_JOB_CPUS_PER_NODE")
    tasks = sorted(line.split() for line in shown.splitlines())
    assert [task[0] for task in tasks] == [str(number) for number in range(8)]
    assert {int(task[1]) for task in tasks} == {128}
