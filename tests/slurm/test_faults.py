"""A study on a real Slurm, through the profile of Frontier: whatever happens to its jobs, its losses are those of a local run."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, TINY, snakemake
from tests.slurm import faults

# They share the nodes.
pytestmark = pytest.mark.xdist_group("slurm")


@pytest.mark.usefixtures("slurm")
def test_whatever_happens_to_jobs_losses_are_those_of_a_local_run(tmp_path: Path) -> None:
    config = faults.tiny()
    local, project = faults.make(tmp_path / "local", config), faults.make(tmp_path / "slurm", config)
    snakemake(local.folder, "--cores", "2", "train", "--configfile", "config/study.yaml")
    told = faults.suffer(project, "train")
    assert len(told) == 6
    for run in project.runs:
        assert project.losses(run) == local.losses(run), (run, told.get(run))
    # Each fault has ended its run's first job as it should, and another has gone on; later ones ended with Snakemake, too.
    expected = {
        faults.kill: "FAILED",
        faults.node_down: "NODE_FAIL",
        faults.cancel: "CANCELLED",
        faults.requeue: "REQUEUED",
        faults.out_of_memory: "(FAILED|OUT_OF_MEMORY)",
        # Its second job was cancelled by Snakemake, the one after it told to stop by that of the third Snakemake.
        faults.warn: "FAILED COMPLETED (CANCELLED|FAILED) FAILED",
    }
    for fault, states in expected.items():
        (run,) = (run for run in told if told[run].startswith(str(fault.__doc__)))
        found = " ".join(state.split()[1] for state in project.states(run))
        assert re.fullmatch(rf"{states}( \w+)+", found), fault.__doc__
    # No step was trained by two jobs: not by that of the first Snakemake and its successor's, nor after a signal or Ctrl-C.
    (taken_over,) = (run for run in told if told[run].startswith(str(faults.warn.__doc__)))
    assert project.replayed(taken_over) == 0
    # What was told to stop had saved before; only what was killed outright is trained again.
    replayed = {told.get(run): project.replayed(run) for run in project.runs}
    assert sum(count > 0 for count in replayed.values()) <= 3
    assert max(replayed.values()) <= 50 * 2


@pytest.mark.usefixtures("slurm")
def test_a_job_ends_before_its_walltime_and_one_that_cannot_go_on_costs_seconds(tmp_path: Path) -> None:
    steps, retries = 16_000, 6  # more than a job of a minute gets through, and less than seven
    config = faults.tiny()
    config["suite"] |= {"shapes": [], "targets": {}, "aspect_ratios": {}, "pinned": ["16x1"]}
    config["runs"] = {
        "main": {"steps": steps, "evaluate_every": 1000},
        "lr_ablation": {"lr_base": 1e30, "steps": 300},
    }
    config["plan"] = {"walltime_minutes": 1, "gpus_per_node": 1, "flops_per_second": 1e15}
    config["training"] = {"wandb_mode": "disabled", "save_minutes_before": 0.5}
    for section in ("selections", "fits", "comparisons", "prescriptions", "overspend", "overtraining", "figures"):
        config.pop(section)
    project = faults.make(tmp_path / "slurm", config)
    process = project.start("train", retries=retries)
    assert process.wait(faults.LONGEST) != 0  # for the ablation
    # Planned as one job; each saved by itself, half a minute before Slurm would have ended it, and no step was lost.
    manifest = json.loads((project.training / f"16x1/steps/{steps}.json").read_text())
    assert manifest["step"] == steps
    *before, last = [state.split()[1] for state in project.states("16x1")]
    assert (set(before), last) == ({"FAILED"}, "COMPLETED")
    assert project.replayed("16x1") == 0
    # The run that diverges is trained once; retries find the marker.
    assert [state.split()[1] for state in project.states("16x1-lr_ablation")] == ["FAILED"] * (1 + retries)
    assert len(project.rows("16x1-lr_ablation", "start")) == 1
    assert "by an earlier job: non finite" in (project.folder / "snakemake.log").read_text()


@pytest.mark.usefixtures("slurm")
def test_srun_starts_processes_on_several_nodes(tmp_path: Path, finished: Path) -> None:
    config = yaml.safe_load(TINY.read_text())
    config["plan"] |= {"gpus_per_node": 2, "throughput": {"48x2": {"nodes": 2, "seconds_per_step": 1.0}}}
    config["training"] |= {"strategy": "axonn(1,1,2)"}
    project = faults.make(tmp_path / "slurm", config)
    assert project.start("results/tiny/training/48x2/steps/20.json").wait(faults.LONGEST) == 0, (
        project.folder / "snakemake.log"
    )
    (start,) = project.rows("48x2", "start")
    assert (start["num_nodes"], start["gpus"], start["slurm_job_id"]) == (2, 4, project.states("48x2")[0].split()[0])
    alone = faults.Project(finished, config).losses("48x2")
    for kind, losses in project.losses("48x2").items():
        assert list(losses.values()) == pytest.approx([alone[kind][step] for step in losses], rel=1e-5)


@pytest.mark.usefixtures("slurm")
def test_the_profile_for_any_cluster_trains_as_well(tmp_path: Path, finished: Path) -> None:
    config = yaml.safe_load(TINY.read_text())
    project = faults.make(tmp_path / "slurm", config)
    target = "results/tiny/training/48x2/steps/20.json"
    assert project.start(target, profile="profiles/slurm").wait(faults.LONGEST) == 0, project.folder / "snakemake.log"
    manifests = [json.loads((folder / target).read_text()) for folder in (project.folder, finished)]
    assert manifests[0]["checkpoint"]["sha256"] == manifests[1]["checkpoint"]["sha256"]
    assert [state.split()[1] for state in project.states("48x2")] == ["COMPLETED"]


@pytest.mark.slow
@pytest.mark.usefixtures("slurm")
def test_the_mini_study_shortened_with_all_faults(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.slurm.faults", "--folder", str(tmp_path / "faults")]
    done = subprocess.run(
        [*command, "--config", "config/config.yaml", "--step", "20"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
