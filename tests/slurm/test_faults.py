"""A study on a real Slurm, through the profile of Frontier: whatever happens to its jobs, its losses are those of a local run."""

import re
from pathlib import Path

import pytest

from tests.conftest import snakemake
from tests.slurm import faults


@pytest.mark.usefixtures("slurm")
def test_whatever_happens_to_jobs_losses_are_those_of_a_local_run(tmp_path: Path) -> None:
    config = faults.tiny()
    local, project = faults.make(tmp_path / "local", config), faults.make(tmp_path / "slurm", config)
    snakemake(local.folder, "--cores", "2", "train", "--configfile", "config/study.yaml")
    told = faults.suffer(project, "train")
    assert len(told) == 6
    for run in project.runs:
        assert project.losses(run) == local.losses(run), (run, told.get(run))
    # Each fault has ended a job as it should, and another has gone on.
    ends = {told.get(run, ""): [state.split()[1] for state in project.states(run)] for run in project.runs}
    expected = {
        faults.kill: "FAILED COMPLETED COMPLETED",
        faults.node_down: "NODE_FAIL COMPLETED COMPLETED",
        faults.cancel: "CANCELLED COMPLETED COMPLETED",
        faults.requeue: "REQUEUED COMPLETED COMPLETED",
        faults.out_of_memory: "(FAILED|OUT_OF_MEMORY) COMPLETED",
        # Of the last two, one is the job that was told to stop by the one that Snakemake started a second time.
        faults.warn: "FAILED COMPLETED FAILED COMPLETED",
    }
    for fault, states in expected.items():
        (found,) = (" ".join(ends[text]) for text in ends if text.startswith(str(fault.__doc__)))
        assert re.fullmatch(states, found), fault.__doc__
    # What was told to stop had saved before; only what was killed outright is trained again.
    replayed = {told.get(run): project.replayed(run) for run in project.runs}
    assert sum(count > 0 for count in replayed.values()) <= 3
    assert max(replayed.values()) <= 50 * 2
