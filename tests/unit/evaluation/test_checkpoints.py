"""Checkpoints of a run on further corpora, as rows of the losses table."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from gemstones.errors import UserError
from gemstones.evaluation.checkpoints import evaluate_run, losses_table
from gemstones.losses import table
from tests.commands import run
from tests.unit.training.conftest import Train, make_cooldown, make_job


@pytest.fixture(scope="module")
def study(train: Train, tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Path:
    """A run with an anchor at step 5, and the cooldown from there, beside their shards."""
    folder = tmp_path_factory.mktemp("study") / "training"
    shutil.copytree(shards.parent, folder / "data")
    data = folder / "data" / "manifest.json"
    main = train(folder, 20, make_job(checkpoints=(5,)), data=data)
    train(folder, 8, make_job(make_cooldown(5, 8)), (main,), data=data)
    return folder


def text(tmp_path: Path) -> str:
    (tmp_path / "page.txt").write_text("abba cede bag " * 30)
    return str(tmp_path / "*.txt")


def test_kept_checkpoints_are_evaluated_on_every_set(study: Path, tmp_path: Path) -> None:
    corpus = text(tmp_path)
    rows = evaluate_run(study / "32x1/steps/20.json", {"one": corpus, "two": corpus})
    assert rows[["run", "step", "validation_set"]].to_numpy().tolist() == [
        ["32x1", step, name] for step in (5, 20) for name in ("one", "two")
    ]
    by_step = rows.groupby("step")["loss"].unique()
    assert all(len(losses) == 1 for losses in by_step)
    assert by_step[5] != by_step[20]
    command = json.loads(run("evaluate", study / "32x1/steps/20.json", "--data", corpus, "--json")[0])
    assert by_step[20] == pytest.approx(command[0]["loss"], abs=1e-6)
    assert evaluate_run(study / "32x1-cooldown-5/steps/8.json", {"one": corpus})["step"].tolist() == [8]


def test_evaluations_are_rows_like_those_of_training(study: Path, tmp_path: Path) -> None:
    rows = evaluate_run(study / "32x1/steps/20.json", {"one": text(tmp_path)})
    common = {"suite": "tiny", "run": "32x1", "phase": "main", "params": 1e4, "flops_per_token": 1e5}
    trained = table.check(
        pd.DataFrame(
            [
                {**common, "step": step, "tokens": 64.0 * step, "flops": 64e5 * step, "validation_set": "validation", "loss": 5}
                for step in (10, 20)
            ]
        ),
        "trained",
    )  # fmt: skip
    found = losses_table([rows], trained)
    # Step 5 is not a row of the study's table.
    assert found[["run", "step", "validation_set"]].to_numpy().tolist() == [["32x1", 20, "one"]]
    assert found["loss"].item() == rows.query("step == 20")["loss"].item()
    assert found["tokens"].item() == 1280


def test_a_set_that_is_not_there_is_named(study: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^evaluation\.sets\.none: no file matches"):
        evaluate_run(study / "32x1/steps/20.json", {"none": str(tmp_path / "*.txt")})


def test_a_last_checkpoint_that_is_gone_is_an_error_and_others_are_left_out(study: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(study, tmp_path / "training"))
    steps = {path.name: path for path in (copy / "32x1/checkpoints").rglob("step-*.pt")}
    sets = {"one": text(tmp_path)}
    steps["step-00000005.pt"].unlink()
    assert evaluate_run(copy / "32x1/steps/20.json", sets)["step"].tolist() == [20]
    steps["step-00000020.pt"].unlink()
    with pytest.raises(UserError, match="the checkpoint is gone"):
        evaluate_run(copy / "32x1/steps/20.json", sets)
