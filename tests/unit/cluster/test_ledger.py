"""What the ledger makes of real training that was interrupted, and of Slurm's account of it."""

import csv
import json
import os
from pathlib import Path

import pytest
import yaml

from gemstones.cluster import jobs, ledger
from gemstones.cluster.ledger import account_for, attempt_row, node_hours
from gemstones.study import load
from gemstones.suite.runs import all_runs, segments
from gemstones.training import trainer
from tests.conftest import TINY
from tests.unit.training.conftest import build, corpus, make_job, shards, train  # noqa: F401

pytestmark = pytest.mark.usefixtures("no_slurm")


@pytest.fixture(scope="module")
def small():
    """One shape, whose runs the tests' own corpus fits."""
    config = yaml.safe_load(TINY.read_text())
    config["suite"] |= {"vocabulary_size": 300, "targets": {}, "pinned": ["48x2"]}
    del config["suite"]["aspect_ratios"]
    config["data"]["validation_tokens"] = 256
    config["runs"] = {"main": {"steps": 40, "evaluate_every": 10}}
    return load(config, "small")


@pytest.fixture(scope="module")
def trained(small, train, tmp_path_factory):  # noqa: F811
    """Results of a run whose second job died at step 37, and whose first one was told to stop at step 15."""
    results = tmp_path_factory.mktemp("results")
    (run,) = all_runs(small)
    folder, honest = results / "tiny/training", trainer.Trainer.update

    def at(step, act):
        def update(model):
            if model.step == step:
                act()
            return honest(model)

        return update

    def die():
        raise MemoryError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.Trainer, "update", at(14, lambda: os.kill(os.getpid(), 15)))
        with pytest.raises(Exception, match="saved at step 15 of 20"):
            train(folder, 20, make_job(run))
        patch.setattr(trainer.Trainer, "update", honest)
        train(folder, 20, make_job(run))
        patch.setattr(trainer.Trainer, "update", at(37, die))
        with pytest.raises(MemoryError):
            train(folder, 40, make_job(run))
        patch.setattr(trainer.Trainer, "update", honest)
        train(folder, 40, make_job(run))
    return results


def copy(trained: Path, folder: Path, change=lambda rows: rows) -> Path:
    """Metrics and manifests alone, with changed rows."""
    for path in trained.rglob("*"):
        if path.suffix == ".jsonl" or path.parent.name == "steps":
            target = folder / path.relative_to(trained)
            target.parent.mkdir(parents=True, exist_ok=True)
            text = path.read_text()
            if path.parent.name == "metrics":
                rows = change([json.loads(line) for line in text.splitlines()])
                text = "".join(json.dumps(row) + "\n" for row in rows)
            target.write_text(text)
            os.utime(target, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    return folder


def in_slurm(*ids, apart=1000):
    """Gives start rows job ids in turn, and each a time of its own."""

    def change(rows):
        starts = [row for row in rows if row["kind"] == "start"]
        for number, (row, job_id) in enumerate(zip(starts, ids, strict=True)):
            row |= {"slurm_job_id": job_id, "time": 1_000_000.0 + apart * number, "num_nodes": 2, "gpus": 16}
        for row in rows:
            if row["kind"] == "train":
                row["seconds"] = 10.0
        return rows

    return change


def submit(results, *names):
    for name in names:
        path = results / "tiny/logs/slurm" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_without_slurm_attempts_are_those_of_the_metrics(small, trained):
    found = account_for(small, trained)
    rows = [attempt_row(attempt) for attempt in found.attempts]
    assert [(row["first_step"], row["last_step"], row["stop_step"], row["outcome"]) for row in rows] == [
        (1, 15, 20, "continued"), (16, 20, 20, "finished"), (21, 37, 40, "failed"), (31, 40, 40, "finished"),
    ]  # fmt: skip
    assert [row["replayed_steps"] for row in rows] == [0, 0, 0, 7]
    assert [row["lost_steps"] for row in rows] == [0, 0, 7, 0]
    assert [row["new_steps"] for row in rows] == [15, 5, 17, 3]
    assert all(
        row["start"] and row["end"] >= row["start"] and row["elapsed_hours"] >= row["step_hours"] for row in rows
    )
    (run,) = found.runs
    assert (run["step"], run["attempts"], run["failed_attempts"], run["left_node_hours"]) == (40, 4, 1, 0)
    assert run["kept_node_hours"] + run["lost_node_hours"] == pytest.approx(run["spent_node_hours"])
    assert 0 < run["replayed_node_hours"] < run["lost_node_hours"]
    assert found.phases[-1]["spent_node_hours"] == run["spent_node_hours"]
    assert found.phases[-1]["done"] == 1
    assert found.source == "metrics"
    assert not jobs.memory_path(trained / "tiny").exists()


def test_slurms_account_tells_what_was_taken_and_why_it_ended(small, trained, tmp_path, facility):
    results = copy(trained, tmp_path / "results", in_slurm("11", "12", "14", "15"))
    submit(
        results,
        *(
            f"rule_train_main/48x2_{step}/{job}.log"
            for job, step in zip(range(11, 16), (20, 20, 40, 40, 40), strict=True)
        ),
    )
    submit(results, "rule_data/10.log")
    facility.account(
        "10|COMPLETED|3600|1|1|999000|1002600|0:0",
        "11|FAILED|200|2|1|999950|1000150|1:0",
        "12|COMPLETED|100|2|1|1000950|1001050|0:0",
        "13|NODE_FAIL|60|2|1|1001100|1001160|0:0",
        "14|TIMEOUT|400|2|1|1001950|1002350|0:0",
        "15|COMPLETED|200|2|1|1002950|1003150|0:0",
    )
    found = account_for(small, results)
    assert [(attempt.job_id, attempt.outcome) for attempt in found.attempts] == [
        ("11", "continued"), ("12", "finished"), ("13", "node failure"), ("14", "out of time"), ("15", "finished"),
        ("10", "finished"),
    ]  # fmt: skip
    run, data = found.runs
    assert run["spent_node_hours"] == pytest.approx(960 * 2 / 3600)
    assert run["kept_node_hours"] == pytest.approx(400 * 2 / 3600)
    assert run["replayed_node_hours"] == pytest.approx(70 * 2 / 3600)
    assert run["failed_node_hours"] == pytest.approx(60 * 2 / 3600)
    assert run["overhead_node_hours"] == pytest.approx((960 - 400 - 70 - 60) * 2 / 3600)
    assert run["efficiency"] == pytest.approx(400 / 960)
    assert run["gpu_hours"] == pytest.approx((900 * 16 + 60 * 2) / 3600)  # a local node of the plan has one device
    assert (data["run"], data["phase"], data["spent_node_hours"], data["efficiency"]) == ("data", "other", 1, 1)
    assert node_hours(small, results, {})[0] == pytest.approx(found.phases[-1]["spent_node_hours"])

    # Later, sacct's database is purged and the logs are gone.
    facility.account()
    for log in results.rglob("*.log"):
        log.unlink()
    assert account_for(small, results) == found


def test_a_job_that_trains_several_runs_is_shared_among_them(tiny, tmp_path, facility):
    folder = tmp_path / "results/tiny/training"
    segment = next(each for each in segments(tiny) if each.before)
    for number, run in enumerate((*segment.before, segment.run)):
        start = {"kind": "start", "step": run.anchor, "time": 100.0 + 300 * number, "slurm_job_id": "7", "num_nodes": 4}
        steps = [{"kind": "train", "step": step, "seconds": 10.0} for step in range(run.anchor + 1, run.steps + 1)]
        path = folder / run.name / "metrics/k.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in (start, *steps)))
    submit(tmp_path / "results", f"rule_train_cooldown/{segment.run.name}_{segment.stop}/7.log")
    facility.account("7|COMPLETED|500|4|1|50|550|0:0")
    found = account_for(tiny, tmp_path / "results")
    assert [(attempt.run, attempt.elapsed_seconds) for attempt in found.attempts] == [
        (segment.before[0].name, 350), (segment.run.name, 150),
    ]  # fmt: skip
    assert found.phases[-1]["spent_node_hours"] == pytest.approx(500 * 4 / 3600)
    assert node_hours(tiny, tmp_path / "results", {})[0] == pytest.approx(500 * 4 / 3600)


def test_a_job_that_was_put_back_did_its_steps_when_it_ran(tiny, tmp_path, facility):
    """Not while it waited in between; and what it had not saved is lost."""
    path = tmp_path / "results/tiny/training/48x2/metrics/k.jsonl"
    path.parent.mkdir(parents=True)
    rows = []
    for began in (1000.0, 9000.0):
        rows += [{"kind": "start", "step": 0, "time": began, "slurm_job_id": "7", "num_nodes": 1}]
        rows += [{"kind": "train", "step": step, "seconds": 45.0} for step in range(1, 21)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    submit(tmp_path / "results", "rule_train_main/48x2_20/7.log")
    facility.account("7|REQUEUED|1000|1|1|1000|2000|0:0", "7|COMPLETED|1000|1|1|9000|10000|0:0")
    found = account_for(tiny, tmp_path / "results")
    assert [(each.outcome, each.start, each.elapsed_seconds) for each in found.attempts] == [
        ("failed", 1000, 1000), ("finished", 9000, 1000),
    ]  # fmt: skip
    run = next(row for row in found.runs if row["run"] == "48x2")
    assert run["kept_node_hours"] == pytest.approx(20 * 45 / 3600)
    assert run["replayed_node_hours"] == pytest.approx(20 * 45 / 3600)
    assert run["efficiency"] == pytest.approx(0.45)


def test_torn_lines_are_left_out(small, trained, tmp_path):
    results = copy(trained, tmp_path / "results")
    (path,) = results.rglob("metrics/*.jsonl")
    whole = [attempt_row(attempt) for attempt in account_for(small, results).attempts]
    lines = path.read_text().splitlines()
    lines.insert(5, '{"kind": "train", "st')
    path.write_text("\n".join([*lines, '{"kind": "sta']))
    torn = [attempt_row(attempt) for attempt in account_for(small, results).attempts]
    assert [row["lost_steps"] for row in torn] == [row["lost_steps"] for row in whole]


def test_what_another_recipe_trained_is_lost(small, trained, tmp_path):
    results = copy(trained, tmp_path / "results")
    (path,) = results.rglob("metrics/*.jsonl")
    former = path.with_name("former.jsonl")
    former.write_text(path.read_text())
    os.utime(former, (1, 1))
    found = account_for(small, results)
    assert len(found.attempts) == 8
    assert found.runs[0]["lost_steps"] == 7 + 47
    assert {attempt.part.key for attempt in found.attempts if not attempt.kept_node_hours} == {"former"}


def test_the_ledger_is_a_table_and_a_page(small, trained, tmp_path):
    ledger.write(account_for(small, trained), tmp_path / "ledger.csv", tmp_path / "ledger.html", "Ledger")
    with (tmp_path / "ledger.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["last_step"] for row in rows] == ["15", "20", "37", "40"]
    page = (tmp_path / "ledger.html").read_text()
    assert [page.index(f"<h2>{name}</h2>") for name in ("Phases", "Runs", "Attempts")] == sorted(
        page.index(f"<h2>{name}</h2>") for name in ("Phases", "Runs", "Attempts")
    )


def test_a_study_in_which_nothing_ran_has_an_empty_ledger(small, tmp_path):
    found = account_for(small, tmp_path)
    assert found.attempts == []
    assert found.phases[-1]["left_node_hours"] == found.phases[-1]["planned_node_hours"] > 0
    assert node_hours(small, tmp_path, {})[0] == 0
    ledger.write(found, tmp_path / "ledger.csv", tmp_path / "ledger.html", "Ledger")
