"""The state of a study: what each run does and waits for, from ends of files, the queue and the remembered account."""

import fcntl
import json
import os
import time
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from gemstones.cli import app
from gemstones.cluster import status as module
from gemstones.cluster.screen import duration, status_view
from gemstones.cluster.status import Slurm, status
from tests.conftest import TINY

pytestmark = pytest.mark.usefixtures("no_slurm")

LONG_AGO = 1_000_000


@pytest.fixture
def results(tmp_path):
    return tmp_path / "results"


def run_to(results, name, step, *, first=0, manifest=None, stopped=None, age=None, saved=False, rows=None):
    """A run's folder as training leaves it; with an age of its metrics in seconds, or else long over."""
    folder = results / "tiny/training" / name
    metrics = folder / "metrics/k.jsonl"
    metrics.parent.mkdir(parents=True, exist_ok=True)
    lines = [{"kind": "start", "step": first, "time": LONG_AGO, "slurm_job_id": None, "num_nodes": 1, "gpus": 1}]
    lines += [{"kind": "train", "step": at, "loss": 5 - at / 100, "seconds": 2.0} for at in range(first + 1, step + 1)]
    lines += [{"kind": "validation", "step": step, "loss": 4.5, "validation_set": "validation"}] if step > first else []
    metrics.write_text("".join(json.dumps(row) + "\n" for row in rows or lines))
    written = LONG_AGO if age is None else time.time() - age
    os.utime(metrics, (written, written))
    (folder / "checkpoints/k").mkdir(parents=True, exist_ok=True)
    if saved:
        (folder / f"checkpoints/k/step-{step:08d}.json").write_text("{}")
    if manifest:
        path = folder / f"steps/{manifest}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"run": name, "step": manifest, "key": "k", "stopped": stopped}))
        os.utime(path, (written + 1, written + 1) if age is None else (LONG_AGO, LONG_AGO))
    return folder


def states(study, results):
    return {row["run"]: (row["state"], row["reason"]) for row in status(study, results)["runs"]}


def one(study, results, name="48x2", **more):
    return next(row for row in status(study, results, **more)["runs"] if row["run"] == name)


def test_a_study_in_which_nothing_ran(tiny, results):
    found = states(tiny, results)
    assert found["48x2"] == ("to be started", "")
    assert found["48x2-cooldown-20"] == ("waiting", "for step 20 of 48x2")
    summary = status(tiny, results)["summary"]
    assert summary["node_hours_spent"] == 0
    assert summary["node_hours_left"] == summary["node_hours_planned"] > 0
    assert summary["eta_seconds"] is None
    assert (summary["jobs_running"], summary["slurm"]) == (None, "squeue: not found")


def test_states_of_local_runs(tiny, results):
    run_to(results, "16x1", 40, manifest=40)
    run_to(results, "16x2", 20, manifest=20)
    run_to(results, "48x1", 25, manifest=20)
    run_to(results, "32x3", 25, manifest=20, age=5)
    run_to(results, "48x2", 25, manifest=20, saved=True)
    run_to(results, "48x2-lr_ablation", 0)
    found = states(tiny, results)
    assert {name: state for name, (state, _) in found.items()} == {
        "16x1": "done", "16x2": "waiting", "48x1": "failed", "32x3": "running", "48x2": "waiting",
        "16x2-seed_1": "to be started", "48x2-lr_ablation": "failed", "48x2-cooldown-20": "to be started",
        "48x2-cooldown-40": "waiting",
    }  # fmt: skip
    assert found["48x2"][1] == "saved at step 25, to be continued"
    assert found["16x2"][1] == "for its next job"
    summary = status(tiny, results)["summary"]
    assert summary["states"]["done"] == 1
    assert summary["eta_seconds"] >= 15 * 2


def test_a_run_whose_lock_is_held_is_running(tiny, results):
    folder = run_to(results, "48x2", 25, manifest=20)
    with (folder / "checkpoints/k/lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert states(tiny, results)["48x2"][0] == "running"
        file.write("17")  # of a Slurm job, which is for Slurm to say
        file.flush()
        assert states(tiny, results)["48x2"][0] == "failed"
    assert states(tiny, results)["48x2"][0] == "failed"


def test_numbers_of_a_run(tiny, results):
    run_to(results, "48x2", 25, manifest=20, age=5)
    row = one(tiny, results)
    assert (row["step"], row["target"], row["steps"]) == (25, 40, 40)
    assert (row["loss"], row["validation_loss"]) == (4.75, 4.5)
    assert (row["segments"], row["segments_left"]) == (2, 1)
    assert row["seconds_per_step"] == 2
    assert row["eta_seconds"] == 15 * 2
    assert row["node_hours_spent"] == pytest.approx(25 * 2 / 3600)
    # As charged: two jobs each take half a minute to start, and both have.
    assert row["node_hours_left"] == pytest.approx((row["node_hours_planned"] - 2 * 0.5 / 60) * 15 / 40)
    cooldown = one(tiny, results, "48x2-cooldown-40")
    assert cooldown["eta_seconds"] > 15 * 2  # its anchor comes first


def test_only_the_end_of_a_file_is_read(tiny, results, monkeypatch):
    folder = run_to(results, "48x2", 25, manifest=20, age=5)
    path = folder / "metrics/k.jsonl"
    ended = path.stat().st_mtime
    end = path.read_bytes()
    with path.open("wb") as file:
        file.truncate(1 << 34)  # 16 GiB of nothing, which take no room
        file.seek(0, 2)
        file.write(b"\n" + end + b'{"kind": "train", "step": 26, "lo')
    os.utime(path, (ended, ended))
    row = one(tiny, results)
    assert (row["step"], row["loss"], row["validation_loss"], row["state"]) == (25, 4.75, 4.5, "running")


def test_an_evaluation_is_found_further_back(tiny, results):
    evaluation = {"kind": "validation", "step": 10, "loss": 4.25}
    rows = [{"kind": "train", "step": step, "loss": 3.0, "seconds": 1.0, "pad": "x" * 200} for step in range(400)]
    run_to(results, "48x2", 25, rows=[*rows[:100], evaluation, *rows[100:]])
    assert one(tiny, results)["validation_loss"] == 4.25


def test_runs_that_were_stopped_say_why(tiny, results):
    run_to(results, "16x1", 30, manifest=40, stopped={"step": 30, "reason": "divergence: mean loss 9"})
    folder = run_to(results, "48x2", 25, manifest=20)
    fault = {"run": "48x2", "step": 26, "reason": "non finite: loss nan"}
    (folder / "checkpoints/k/fault.json").write_text(json.dumps(fault))
    found = states(tiny, results)
    assert found["16x1"] == ("stopped", "at step 30: divergence: mean loss 9")
    assert found["48x2"] == ("stopped", "at step 26: non finite: loss nan")
    assert one(tiny, results)["node_hours_left"] == 0


def test_events_of_the_present_recipe_are_counted(tiny, results):
    folder = run_to(results, "48x2", 25, age=5)
    kinds = [("k", "spike"), ("old", "spike"), ("k", "spike"), ("k", "roll_back")]
    lines = [json.dumps({"key": key, "kind": kind, "step": step}) for step, (key, kind) in enumerate(kinds)]
    (folder / "events.jsonl").write_text("\n".join(lines) + '\n{"key": "k", "ki')
    row = one(tiny, results)
    assert row["events"] == {"spike": 2, "roll_back": 1}
    assert row["last_event"] == {"key": "k", "kind": "roll_back", "step": 3}


def test_another_recipe_begins_afresh(tiny, results):
    folder = run_to(results, "48x2", 40, manifest=40)
    assert states(tiny, results)["48x2"][0] == "done"
    (folder / "metrics/new.jsonl").write_text(
        '{"kind": "start", "step": 0}\n{"kind": "train", "step": 1, "loss": 6, "seconds": 1}\n'
    )
    row = one(tiny, results)
    assert (row["step"], row["state"], row["segments_left"]) == (1, "running", 2)


def queue_of(results, *jobs):
    """Lines of the queue, of jobs as (id, state, reason, log)."""
    logs = (results / "tiny/logs/slurm").resolve()
    return [
        (job_id, state, reason, "1:30:00", "30:00", "8", "N/A", f"{logs}/{log}") for job_id, state, reason, log in jobs
    ]


def test_the_queue_is_known_by_the_paths_of_logs(tiny, results, facility):
    run_to(results, "48x2", 25, manifest=20)
    facility.queue(
        *queue_of(
            results,
            ("7", "RUNNING", "None", "rule_train_main/48x2_40/%j.log"),
            ("8", "PENDING", "Priority", "rule_train_main/16x1_20/%j.log"),
            ("9", "PENDING", "Resources", "rule_law/approach_3_all/%j.log"),
        ),
        ("10", "RUNNING", "None", "1:00", "1:00", "64", "N/A", "/somebody/else/%j.log"),
    )
    found = states(tiny, results)
    assert (found["48x2"], found["16x1"]) == (("running", ""), ("queued", "Priority"))
    assert one(tiny, results)["job"] == {
        "id": "7", "state": "RUNNING", "reason": "None", "seconds_left": 5400, "expected_start": None, "nodes": 8,
    }  # fmt: skip
    summary = status(tiny, results)["summary"]
    assert (summary["jobs_running"], summary["jobs_queued"], summary["slurm"]) == (1, 2, "ok")


def test_runs_of_one_job_wait_for_each_other(tiny, results, facility):
    run_to(results, "48x2", 40, manifest=40)
    log = "rule_train_cooldown/48x2-cooldown-40_47/%j.log"
    facility.queue(*queue_of(results, ("7", "PENDING", "Priority", log)))
    assert states(tiny, results)["48x2-cooldown-20"] == ("queued", "Priority")
    facility.queue(*queue_of(results, ("7", "RUNNING", "None", log)))
    run_to(results, "48x2-cooldown-20", 22, first=20, age=1)
    found = states(tiny, results)
    assert found["48x2-cooldown-20"][0] == "running"
    assert found["48x2-cooldown-40"] == ("waiting", "for other runs of its job")


def test_what_a_job_of_several_runs_took_is_theirs_by_their_steps(tiny, results, facility):
    log = results / "tiny/logs/slurm/rule_train_cooldown/48x2-cooldown-40_47/7.log"
    log.parent.mkdir(parents=True)
    log.touch()
    facility.account("7|COMPLETED|3600|1|1|2|3602|0:0")
    rows = {row["run"]: row for row in status(tiny, results)["runs"]}
    short, long = rows["48x2-cooldown-20"], rows["48x2-cooldown-40"]
    steps = [short["steps"] - 20, long["steps"] - 40]
    assert steps[0] < steps[1]
    spent = [row["node_hours_spent"] for row in (short, long)]
    assert spent == pytest.approx([each / sum(steps) for each in steps])


def test_each_job_to_come_waits_in_the_queue(tiny, results):
    def eta(study):
        return next(row["eta_seconds"] for row in status(study, results)["runs"] if row["run"] == "48x2")

    slow = tiny.model_copy(update={"plan": tiny.plan.model_copy(update={"wait_minutes": 60})})
    assert eta(slow) - eta(tiny) == pytest.approx(2 * 3600)


def test_what_slurms_account_says_is_spent_and_why_a_run_failed(tiny, results, facility):
    run_to(results, "48x2", 25, manifest=20)
    for job, log in (
        ("1", "rule_train_main/48x2_20"),
        ("2", "rule_train_main/48x2_40"),
        ("3", "rule_train_main/16x1_20"),
    ):
        path = results / "tiny/logs/slurm" / log / f"{job}.log"
        path.parent.mkdir(parents=True)
        path.touch()
    facility.account(
        "1|COMPLETED|3600|2|1|2|3602|0:0", "2|NODE_FAIL|1800|2|1|2|1802|0:0", "3|OUT_OF_MEMORY|36|1|1|2|38|0:125"
    )
    row = one(tiny, results)
    assert (row["state"], row["reason"]) == ("failed", "job 2: node fail")
    assert row["node_hours_spent"] == pytest.approx(3)
    assert states(tiny, results)["16x1"] == ("failed", "job 3: out of memory")


def test_a_run_whose_job_was_killed_a_moment_ago_is_not_running(tiny, results, facility):
    start = {"kind": "start", "step": 0, "slurm_job_id": "4", "num_nodes": 1}
    run_to(results, "48x2", 5, rows=[start, {"kind": "train", "step": 5, "loss": 4.0, "seconds": 1.0}], age=5)
    facility.account("4|RUNNING|30|1|1|2|Unknown|0:0")
    assert states(tiny, results)["48x2"][0] == "running"
    facility.account("4|CANCELLED by 0|30|1|1|2|32|0:0")
    assert states(tiny, results)["48x2"] == ("failed", "job 4: cancelled")


def test_a_facility_is_asked_twice_a_minute_at_most(tiny, results, facility, monkeypatch):
    seen = Slurm(results / "tiny")
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    for now[0] in (100, 110, 120, 129, 131):
        status(tiny, results, seen)
    assert len(facility.calls("squeue")) == 2


def test_a_facility_that_does_not_answer_is_said_and_not_waited_for(tiny, results, facility):
    facility.broken("squeue")
    run_to(results, "48x2", 5, rows=[{"kind": "start", "step": 0, "slurm_job_id": "4", "num_nodes": 1}])
    facility.account("4|RUNNING|30|1|1|2|Unknown|0:0")
    assert states(tiny, results)["48x2"] == ("running", "job 4, by sacct")
    assert status(tiny, results)["summary"]["slurm"] == "squeue: Problem talking to the database"


@pytest.fixture
def call(results):
    def _call(*arguments):
        return CliRunner().invoke(app, [*arguments, "--results", str(results)])

    return _call


def test_the_command_gives_json(call, results):
    run_to(results, "48x2", 25, manifest=20, age=5)
    done = call("status", "--config", str(TINY), "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert found["study"] == "tiny"
    assert len(found["runs"]) == found["summary"]["runs"] == 9
    accounted = json.loads(call("ledger", "--config", str(TINY), "--json").output)
    assert [row["run"] for row in accounted["attempts"]] == ["48x2"]
    assert {row["phase"] for row in accounted["phases"]} == {"main", "replicate", "lr_ablation", "cooldown", "all"}


def test_the_table_fits_a_terminal_and_folds_what_is_done(call, results):
    run_to(results, "48x2", 25, manifest=20, age=5)
    run_to(results, "16x1", 40, manifest=40)
    shown = call("status", "--config", str(TINY)).output
    assert max(map(len, shown.splitlines())) <= 120
    assert "16x1" not in shown
    assert "1 main run " in shown
    assert "1 running" in shown
    everything = call("status", "--config", str(TINY), "--all").output
    assert "16x1" in everything
    assert "48x2-cooldown-40" in everything
    assert "48x2" in call("ledger", "--config", str(TINY)).output


def test_a_config_that_is_not_there_or_not_yaml_is_one_line(call, tmp_path):
    done = call("status", "--config", str(tmp_path / "none.yaml"))
    assert done.exit_code == 1
    assert done.output.strip().splitlines() == [
        f"error: {tmp_path}/none.yaml: No such file or directory; wanted: a study's config, such as config/config.yaml"
    ]
    Path(tmp_path / "bad.yaml").write_text("a: [")
    done = call("ledger", "--config", str(tmp_path / "bad.yaml"))
    assert done.exit_code == 1
    assert done.output.startswith(f"error: {tmp_path}/bad.yaml:2: no valid YAML: ")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (12, "12 s"), (90, "2 min"), (3599, "60 min"), (5400, "1.5 h"), (100_000, "1.2 d")],
)
def test_durations_are_short(seconds, text):
    assert duration(seconds) == text


def test_a_view_is_made_of_any_state(tiny, results):
    assert status_view(status(tiny, results), Console(width=80)).renderables
