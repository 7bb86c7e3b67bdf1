"""Real runs of two segments with a replay: continuous as they are, not when tampered with, and the same from wandb."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pyarrow.parquet
import pytest
import yaml
from typer.testing import CliRunner

from gemstones.cli import app
from gemstones.errors import UserError
from gemstones.losses import wandb
from gemstones.losses.trained import read_curves, trained_losses
from gemstones.study import Study, load
from gemstones.suite.runs import all_runs
from gemstones.training.job import Job
from tests.conftest import TINY

from .conftest import Train


@pytest.fixture(scope="module")
def study() -> Study:
    """A main run and a cooldown."""
    config = yaml.safe_load(TINY.read_text())
    config = {name: config[name] for name in ("study", "suite", "recipe", "runs", "plan", "data")}
    config["suite"] |= {"targets": {}, "aspect_ratios": {}}
    config["runs"] |= {"cooldown": {"anchors": [25], "fraction": 0.2}}
    del config["runs"]["lr_ablation"]
    del config["runs"]["replicates"]
    return load(config)


@pytest.fixture(scope="module")
def training(study: Study, train: Train, build: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stage's folder; the main run was trained to its end, lost its last checkpoints, and went on from step 20."""
    folder = tmp_path_factory.mktemp("training")
    data = build(tmp_path_factory.mktemp("tiny"), study.suite.vocabulary_size)
    main, cooldown = all_runs(study)
    settings: dict[str, Any] = {"data": data, "wandb_mode": "offline", "keep_checkpoints": "all"}
    job = Job(run=main, checkpoints=(25,))
    train(folder, 40, job, **settings)
    for path in folder.glob("48x2/checkpoints/*/*"):
        if any(f"{step:08d}" in path.name for step in (25, 30, 40)):
            path.unlink()
    manifest = train(folder, 40, job, **settings)
    train(folder, cooldown.steps, Job(run=cooldown), parents=(manifest,), **settings)
    return folder


def rows_of(training: Path) -> list[dict[str, Any]]:
    (path,) = training.glob("48x2/metrics/*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def tampered(
    training: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    """From the second segment on, training losses of the main run are changed, as they are read."""
    rows = rows_of(training)
    second = [number for number, row in enumerate(rows) if row["kind"] == "start"][1]
    rows[second:] = [change(row) if row["kind"] == "train" else row for row in rows[second:]]
    monkeypatch.setattr(
        "gemstones.losses.trained.read_metrics",
        lambda path: rows if "48x2/metrics" in str(path) else [json.loads(line) for line in path.open()],
    )


def test_a_real_replay_is_continuous_and_one_that_is_off_by_a_tenth_is_not(
    study: Study, training: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [row["step"] for row in rows_of(training) if row["kind"] == "start"] == [0, 20]
    curve = read_curves(study, training)["48x2"]
    assert curve[curve["kind"] == "train"]["step"].tolist() == list(range(1, 41))
    tampered(training, monkeypatch, lambda row: {**row, "loss": row["loss"] + 0.1})
    with pytest.raises(
        UserError,
        match=r"^run 48x2: the train loss of steps 21 to 40, repeated after a resume, changed by \+0\.1 nats, \d+\.\d sigma of ",
    ):
        read_curves(study, training)


def command(training: Path, output: Path, *options: str) -> Any:
    return CliRunner().invoke(app, ["import", "wandb", str(training), "--output", str(output), *options])


def test_the_table_from_wandb_is_the_trained_one(study: Study, training: Path, tmp_path: Path) -> None:
    result = command(training, tmp_path / "losses.parquet", "--suite", "tiny")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{tmp_path / 'losses.parquet'}: 7 losses of 2 runs, from 3 segments\n"
    trained = trained_losses(study, read_curves(study, training))
    imported = pd.read_parquet(tmp_path / "losses.parquet")
    assert imported[imported["run"] == "48x2"]["step"].tolist() == [10, 20, 25, 30, 40]
    pd.testing.assert_frame_equal(imported, trained, rtol=0, atol=1e-9)


def test_the_later_segment_wins_by_time_and_not_by_name(study: Study, training: Path) -> None:
    first, second = sorted(
        (segment for segment in wandb.offline([training]) if segment.group == "48x2"),
        key=lambda segment: segment.config["start"]["step"],
    )
    for row in second.history:
        row.update({name: row[name] + 1 for name in ("val_loss", "global_loss") if name in row})
    imported = wandb.import_losses([second, first], "tiny")
    losses = imported.losses.set_index("step")["loss"]
    assert losses[30] == pytest.approx(
        1 + next(row["val_loss"] for row in first.history if "val_loss" in row and row["optimizer_step"] == 30)
    )
    assert losses[20] == next(
        row["val_loss"] for row in first.history if "val_loss" in row and row["optimizer_step"] == 20
    )
    assert any(note.startswith("48x2: not continuous: the train loss of steps 21 to 40") for note in imported.notes)

    # The same rows from one process are a roll-back's, and may differ.
    rolled_back = wandb.import_losses([replace(first, history=[*first.history, *second.history])], "tiny")
    assert rolled_back.notes == []
    assert rolled_back.losses.equals(imported.losses)


def test_exclusions_and_filters_are_said_and_recorded(training: Path, tmp_path: Path) -> None:
    output = tmp_path / "losses.parquet"
    result = command(training, output, "--exclude", "48x2-cooldown-25=its corpus was wrong")
    assert "excluded: 48x2-cooldown-25: its corpus was wrong\n" in result.stdout
    assert set(pd.read_parquet(output)["run"]) == {"48x2"}
    made_by = json.loads(pyarrow.parquet.read_schema(output).metadata[b"gemstones"])
    assert made_by["specification"]["exclusions"] == {"48x2-cooldown-25": "its corpus was wrong"}
    assert len(made_by["specification"]["segments"]["48x2"]) == 2
    assert command(training, output, "--tag", "cooldown").exit_code == 0
    assert set(pd.read_parquet(output)["run"]) == {"48x2-cooldown-25"}
    assert command(training, output, "--name", "48x?").exit_code == 0
    assert set(pd.read_parquet(output)["run"]) == {"48x2"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--exclude", "48x2"], "--exclude 48x2: wanted: NAME=REASON"),
        (["--exclude", "64x1=gone"], "--exclude 64x1: no run or segment has this name"),
        (["--name", "64x*"], "wandb: no run is left to import"),
    ],
)
def test_wrong_options_are_one_line(training: Path, tmp_path: Path, options: list[str], message: str) -> None:
    result = command(training, tmp_path / "losses.parquet", *options)
    assert (result.exit_code, result.stderr) == (1, f"error: {message}\n")


def test_what_a_kill_kept_from_wandb_is_said(training: Path, tmp_path: Path) -> None:
    (whole,) = training.glob("48x2-cooldown-25/wandb/offline*/*.wandb")
    torn = tmp_path / "torn.wandb"
    torn.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (segment,) = wandb.offline([torn])
    last = max(row["optimizer_step"] for row in segment.history)
    end = segment.config["steps"]
    assert 25 < last < end
    result = command(torn, tmp_path / "losses.parquet")
    assert result.exit_code == 0, result.output
    assert "torn.wandb: reached the end of an incomplete .wandb file" in result.stdout
    assert f"48x2-cooldown-25: no training loss at {end - last} steps: {last + 1} to {end}\n" in result.stdout
    assert f"48x2-cooldown-25: no validation loss at step {end}\n" in result.stdout
    assert pd.read_parquet(tmp_path / "losses.parquet")["step"].tolist() == [25]


def test_a_path_without_runs_and_a_file_that_is_none_are_named(tmp_path: Path) -> None:
    result = command(tmp_path, tmp_path / "losses.parquet")
    assert (result.exit_code, result.stderr) == (1, f"error: {tmp_path}: no .wandb file there\n")
    (tmp_path / "a.wandb").write_bytes(b"not a run")
    result = command(tmp_path, tmp_path / "losses.parquet")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {tmp_path / 'a.wandb'}: cannot be read: ")


def test_through_the_api_it_is_the_same_table(training: Path) -> None:
    """Of the server's API, which needs a network, only the attributes that are used are here, with what it would give."""
    found = list(wandb.offline([training]))
    asked = []

    def runs(path: str) -> list[SimpleNamespace]:
        asked.append(path)
        return [
            SimpleNamespace(
                path=["me", "gemstones", str(number)], name=segment.name, group=segment.group, tags=list(segment.tags),
                config=dict(segment.config), scan_history=lambda segment=segment: iter(segment.history),
            )
            for number, segment in enumerate(found)
        ]  # fmt: skip

    through_api = wandb.import_losses(wandb.online("gemstones", "me", SimpleNamespace(runs=runs)), "tiny")
    assert asked == ["me/gemstones"]
    pd.testing.assert_frame_equal(through_api.losses, wandb.import_losses(found, "tiny").losses)
    assert through_api.segments["48x2-cooldown-25"] == ["me/gemstones/2"]
