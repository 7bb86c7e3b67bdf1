"""The metrics file survives kills, and wandb cannot end a run."""

import json
import logging
from pathlib import Path

import pytest

from gemstones.errors import UserError
from gemstones.study import Training
from gemstones.training.metrics import Metrics, Mirror, last_validation_loss

from .conftest import make_run


def test_a_torn_last_line_is_cut_off_and_rows_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "metrics" / "a.jsonl"
    Metrics(path).write({"step": 1})
    with path.open("a") as file:
        file.write('{"step": 2, "lo')
    record = Metrics(path)
    record.write({"step": 2})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"step": 1}, {"step": 2}]


def test_rows_are_on_file_at_once(tmp_path: Path) -> None:
    record = Metrics(tmp_path / "a.jsonl")
    record.write({"step": 1})
    assert (tmp_path / "a.jsonl").read_text() == '{"step": 1}\n'
    record.close()


def test_the_last_evaluation_up_to_a_step_counts_and_its_later_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [("validation", 5, 4.0), ("train", 6, 1.0), ("validation", 10, 3.0), ("validation", 5, 4.5)]
    path.write_text("".join(json.dumps({"kind": k, "step": s, "loss": loss}) + "\n" for k, s, loss in rows))
    assert last_validation_loss(path, 9) == 4.5
    assert last_validation_loss(path, 10) == 3.0
    with pytest.raises(UserError, match=r"a\.jsonl: no validation loss up to step 4"):
        last_validation_loss(path, 4)


def test_a_failure_of_wandb_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import wandb

    def broken(**_: object) -> None:
        raise RuntimeError("no service")

    monkeypatch.setattr(wandb, "init", broken)
    with caplog.at_level(logging.WARNING):
        mirror = Mirror(make_run(), tmp_path / "metrics" / "a.jsonl", Training(), {"step": 0})
        mirror.write({"kind": "validation", "step": 1, "tokens": 64, "loss": 1.0})
        mirror.close()
    assert "no service" in caplog.text
