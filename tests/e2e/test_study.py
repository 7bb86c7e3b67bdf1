"""The whole study of tests, run for real."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import gemstones
from tests.conftest import snakemake


def test_every_stage_has_its_files(finished):
    results = finished / "results/tiny"
    for path in (
        "suite/shapes.csv", "suite/plan.csv", "suite/plan.html", "training/data/manifest.json", "losses/losses.parquet",
        "losses/excluded.csv", "losses/anomalies.html", "laws/without_anomalies.html",
        "laws/approach_1_all.json", "laws/approach_3_all.json", "laws/approach_1_all.html", "laws/approach_3_all.html",
        "prescriptions/approach_3_all.parquet",
        "prescriptions/overspend.parquet", "prescriptions/overtraining.parquet", "cluster/ledger.csv",
        *(f"figures/rainbow.{suffix}" for suffix in ("svg", "pdf", "png", "csv", "html")),
    ):  # fmt: skip
        assert (results / path).stat().st_size > 0, path
    assert not list(results.rglob("*.tmp"))


def test_losses_fall_and_cooldowns_help(finished):
    losses = pd.read_parquet(finished / "results/tiny/losses/losses.parquet")
    main = losses[losses["phase"] == "main"].pivot(index="run", columns="step", values="loss")
    assert (main.diff(axis=1).iloc[:, 1:] < 0).to_numpy().mean() > 0.9
    cooldown = losses[losses["phase"] == "cooldown"]
    for anchor, rows in cooldown.groupby("anchor"):
        start, end = rows.sort_values("step")["loss"]
        parent = losses[(losses["run"] == rows["parent"].iloc[0]) & (losses["step"] == anchor)]["loss"].item()
        assert start == parent  # it starts from the very weights
        assert end < start
    assert np.isfinite(losses["gpu_hours"]).all()


def test_the_smaller_learning_rate_is_another_run_on_the_same_data(finished):
    losses = pd.read_parquet(finished / "results/tiny/losses/losses.parquet").set_index(["run", "step"])
    assert losses.loc[("48x2-lr_ablation", 40), "lr"] == losses.loc[("48x2", 40), "lr"] / 2
    assert losses.loc[("48x2-lr_ablation", 40), "loss"] != losses.loc[("48x2", 40), "loss"]


def test_fits_have_converged_and_say_what_they_saw(finished):
    law = json.loads((finished / "results/tiny/laws/approach_3_all.json").read_text())
    assert law["converged"]
    assert law["n_rows"] == 5 * 4
    assert law["n_runs"] == 5
    assert law["card"]["Training"]["How many models are trained, and of which sizes?"].startswith("5 runs of 5 shapes")
    assert "sotu" in law["card"]["Training"]["On which data are they trained, and do data repeat?"]
    assert law["provenance"]["specification"]["selection"] == "all"


def test_every_parquet_says_what_made_it(finished):
    found = sorted((finished / "results/tiny").rglob("*.parquet"))
    assert len(found) == 6 + 3  # of them three tables of resamples
    for path in found:
        made_by = json.loads(pq.read_schema(path).metadata[b"gemstones"])
        assert made_by["version"] == gemstones.__version__
        assert made_by["specification"], path


def test_a_purged_study_comes_back_from_its_archive(project, tmp_path):
    """Cooldowns that share a job too; and nothing is trained for it."""
    training, archive = project / "results/tiny/training", tmp_path / "archive"
    settings = ("--configfile", "config/tiny.yaml", "--config", f"storage={{archive: {archive}, purge_days: 90}}")
    checkpoints = {path: path.read_bytes() for path in training.rglob("*.pt")}
    os.utime(next((training / "48x2/metrics").iterdir()), (0, 0))
    shown = snakemake(project, "-c2", "archive", *settings)
    assert "48x2: 1 files" in shown.stdout + shown.stderr
    assert "are purged from 1970-04-01 on: not in an archive" in shown.stdout + shown.stderr
    archives = sorted((archive / "tiny").glob("*.json"))
    runs = sorted(path for path in training.iterdir() if path.name != "data")
    assert {path.stem for path in archives} == {path.name for path in runs}
    assert "48x2-cooldown-20" in {path.stem for path in archives}
    for run in runs:
        shutil.rmtree(run)
    command = [sys.executable, "-m", "gemstones", "restore", *map(str, archives), "--results", "results/tiny"]
    subprocess.run(command, cwd=project, check=True)
    milestones = {path: path.read_bytes() for path in training.rglob("*.pt")}
    assert milestones
    assert milestones.items() <= checkpoints.items()
    shown = snakemake(project, "-n", "all", *settings)
    assert "Nothing to be done" in shown.stdout + shown.stderr
    # Again, with nothing new.
    before = {path: path.stat().st_mtime_ns for path in (archive / "tiny").glob("*.tar")}
    snakemake(project, "-c2", "archive", *settings)
    assert {path: path.stat().st_mtime_ns for path in (archive / "tiny").glob("*.tar")} == before


def test_two_processes_under_axonn_give_the_same_losses(project, finished):
    """As the same rule of the same graph, told so by the config."""
    shutil.rmtree(project / "results/tiny/training/48x2")
    target = "results/tiny/training/48x2/steps/40.json"
    before = json.loads((finished / target).read_text())
    settings = "{strategy: 'axonn(1,1,2)', processes: 2, wandb_mode: disabled}"
    snakemake(project, "-c2", target, "--configfile", "config/tiny.yaml", "--config", f"training={settings}")
    after = json.loads((project / target).read_text())
    assert after["key"] == before["key"]
    for kind in ("train", "validation"):
        one, two = (
            losses_of(folder / manifest["metrics"], kind) for folder, manifest in ((finished, before), (project, after))
        )
        assert list(one) == list(two)
        assert list(two.values()) == pytest.approx(list(one.values()), rel=1e-5)
    start = (project / after["metrics"]).read_text().splitlines()[0]
    assert '"strategy": "axonn(1,1,2)"' in start
    assert '"gpus": 2' in start


def losses_of(metrics, kind):
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    return {row["step"]: row["loss"] for row in rows if row["kind"] == kind}
