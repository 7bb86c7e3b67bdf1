"""What is refused, and what is said, before jobs are submitted."""

from pathlib import Path
from typing import Any

import pytest

from gemstones.cluster.submission import check_submission
from gemstones.errors import UserError
from gemstones.study import Study


def check(study: Study, results: Path, **changes: Any) -> list[str]:
    return check_submission(study, results, **{"account": None, "most_jobs": 100, "logs": None, **changes})


def test_an_account_that_is_not_set_is_named(frontier: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GEMSTONES_ACCOUNT", raising=False)
    with pytest.raises(UserError, match=r"^GEMSTONES_ACCOUNT: not set; .*export GEMSTONES_ACCOUNT=abc123"):
        check(frontier, tmp_path, account="$GEMSTONES_ACCOUNT")
    monkeypatch.setenv("GEMSTONES_ACCOUNT", "abc123")
    assert check(frontier, tmp_path, account="$GEMSTONES_ACCOUNT") == []
    assert check(frontier, tmp_path, account="abc123") == []


def test_no_more_jobs_than_the_queue_takes(frontier: Study, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--jobs: 101 are more than 'batch' takes of one user, 100"):
        check(frontier, tmp_path, most_jobs=101)


def test_the_budget_holds_for_what_is_spent_and_what_is_left(frontier: Study, tmp_path: Path) -> None:
    def with_budget(node_hours: float) -> Study:
        return frontier.model_copy(update={"plan": frontier.plan.model_copy(update={"budget_node_hours": node_hours})})

    assert check(with_budget(30_300), tmp_path) == []
    with pytest.raises(UserError, match=r"0 node-hours spent and 30,2\d\d still planned are 30,2\d\d, of 30,000"):
        check(with_budget(30_000), tmp_path)
    # A job that has been done is not planned any more.
    manifest = tmp_path / "training/3072x12/steps/83475.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")
    with pytest.raises(UserError, match=r"30,1\d\d still planned"):
        check(with_budget(30_000), tmp_path)


def test_logs_elsewhere_are_missed_by_the_ledger(frontier: Study, tmp_path: Path) -> None:
    (warning,) = check(frontier, tmp_path, logs=tmp_path / "other")
    assert f"--slurm-logdir {tmp_path}/logs/slurm" in warning
    assert check(frontier, tmp_path, logs=tmp_path / "logs/slurm") == []
