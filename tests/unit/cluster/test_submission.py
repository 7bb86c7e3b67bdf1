"""What is refused, and what is said, before jobs are submitted."""

from pathlib import Path
from typing import Any

import pytest

from gemstones.cluster import slurm
from gemstones.cluster.slurm import Queued
from gemstones.cluster.submission import check_submission
from gemstones.errors import UserError
from gemstones.study import Study
from gemstones.suite.runs import segments


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> list[Queued]:
    """The user's jobs, as Slurm would say."""
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    jobs: list[Queued] = []
    monkeypatch.setattr(slurm, "queue", lambda: jobs)
    return jobs


def queued(job: str, state: str, log: Path) -> Queued:
    return Queued(job, state, "", None, 0, 1, None, str(log / f"{job}.log"))


def check(study: Study, results: Path, **changes: Any) -> list[str]:
    asked = {"account": None, "most_jobs": 100, "training": segments(study), "logs": None}
    return check_submission(study, results, **{**asked, **changes})


@pytest.mark.usefixtures("queue")
def test_an_account_that_is_not_set_is_named(frontier: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GEMSTONES_ACCOUNT", raising=False)
    for value in (None, "", " "):
        if value is not None:
            monkeypatch.setenv("GEMSTONES_ACCOUNT", value)
        with pytest.raises(UserError, match=r"^GEMSTONES_ACCOUNT: not set; .*export GEMSTONES_ACCOUNT=abc123"):
            check(frontier, tmp_path, account="$GEMSTONES_ACCOUNT")
    monkeypatch.setenv("GEMSTONES_ACCOUNT", "abc123")
    assert check(frontier, tmp_path, account="$GEMSTONES_ACCOUNT") == []
    assert check(frontier, tmp_path, account="abc123") == []


def test_no_more_jobs_than_the_queue_takes(frontier: Study, tmp_path: Path, queue: list[Queued]) -> None:
    with pytest.raises(
        UserError, match=r"--jobs: 101 jobs, and 0 .* more than 'batch' takes of one user, 100 .*most 100$"
    ):
        check(frontier, tmp_path, most_jobs=101)
    queue += [queued(str(number), "PENDING", tmp_path / "another") for number in range(30)]
    with pytest.raises(UserError, match=r"100 jobs, and 30 others of yours in the queue, .* choose at most 70$"):
        check(frontier, tmp_path)
    assert check(frontier, tmp_path, most_jobs=70) == []


def test_jobs_of_an_earlier_snakemake_are_named(frontier: Study, tmp_path: Path, queue: list[Queued]) -> None:
    """Those that wait would start later, and do again what is submitted now; those at work are taken over."""
    (tmp_path / "disk").mkdir()
    results = tmp_path / "results"
    results.symlink_to(tmp_path / "disk")
    logs = "logs/slurm/rule_train_main/256x23_7155"
    queue.append(queued("7", "RUNNING", results / logs))
    (warning,) = check(frontier, results)  # and there is room for a hundred
    assert warning.endswith("scancel 7")
    queue += [
        queued("8", "PENDING", tmp_path / "other/logs/slurm/rule_train_main/256x23_7155"),
        queued("9", "PENDING", tmp_path / "disk" / logs),
        queued("10", "RUNNING", results / "logs/slurm/rule_data"),  # which nobody takes over
    ]
    with pytest.raises(UserError, match=r"2 jobs of an earlier Snakemake are still there.*scancel 9 10$"):
        check(frontier, results, most_jobs=1)


@pytest.mark.usefixtures("queue")
def test_the_budget_holds_for_what_is_spent_and_what_these_jobs_take(frontier: Study, tmp_path: Path) -> None:
    def with_budget(node_hours: float) -> Study:
        return frontier.model_copy(update={"plan": frontier.plan.model_copy(update={"budget_node_hours": node_hours})})

    results = tmp_path / "frontier"
    assert check(with_budget(30_300), results) == []
    with pytest.raises(UserError, match=r"0 node-hours spent and 30,208 still planned are 30,208, of 30,000"):
        check(with_budget(30_000), results)
    # A first segment alone takes little.
    first = [segment for segment in segments(frontier) if segment.run.name == "256x23"][:1]
    assert check(with_budget(16), results, training=first) == []
    with pytest.raises(UserError, match=r"0 node-hours spent and 15\.6 still planned"):
        check(with_budget(15), results, training=first)
    # What has been trained is not planned any more, wherever jobs ended.
    metrics = results / "training/3072x12/metrics/0123.jsonl"
    metrics.parent.mkdir(parents=True)
    metrics.write_text('{"kind": "train", "step": 80000, "seconds": 3.0}\n')
    with pytest.raises(UserError, match=r"node-hours spent and 28,0\d\d still planned"):
        check(with_budget(20_000), results)


@pytest.mark.usefixtures("queue")
def test_logs_are_where_the_ledger_looks_for_them(frontier: Study, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"--slurm-logdir: .* say --slurm-logdir {tmp_path}/logs/slurm, "):
        check(frontier, tmp_path, logs=tmp_path / "other")
    assert check(frontier, tmp_path, logs=tmp_path / "logs/slurm") == []


@pytest.mark.usefixtures("queue")
def test_a_machine_without_slurm_is_told(frontier: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(UserError, match="sbatch: not found"):
        check(frontier, tmp_path, logs=tmp_path / "logs/slurm")
    assert check(frontier, tmp_path) == []  # another kind of cluster
