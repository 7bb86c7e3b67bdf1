"""lm-eval's results as rows of the table of benchmarks; where it is installed (`make test-eval`), also a real run of it."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from gemstones.errors import UserError
from gemstones.evaluation.harness import benchmark_rows, evaluate_checkpoint, run_lm_eval
from gemstones.losses import benchmarks
from tests.unit.training.conftest import Train, make_job, make_run

FOLDER = Path(__file__).parent
# Of lm-eval 0.4.13 on a checkpoint of tests/tiny.yaml, less what it says of the machine.
RESULT: dict[str, Any] = json.loads((FOLDER / "lm_eval.json").read_text())


@pytest.fixture
def trained() -> pd.DataFrame:
    row = {
        "suite": "tiny",
        "run": "32x3",
        "step": 40,
        "tokens": 5120.0,
        "flops": 5e8,
        "params": 6e4,
        "width": 48,
        "depth": 2,
    }
    return pd.DataFrame([row, {**row, "step": 20, "tokens": 2560.0}])


def test_a_result_becomes_rows(trained: pd.DataFrame) -> None:
    table = benchmark_rows([RESULT], ["continuations"], trained)
    (row,) = table.to_dict("records")
    assert (row["suite"], row["run"], row["step"], row["tokens"]) == ("tiny", "32x3", 40, 5120.0)
    of_task = RESULT["results"]["continuations"]
    assert row["accuracy"] == of_task["acc_norm,none"] != of_task["acc,none"]
    assert row["standard_error"] == pytest.approx((row["accuracy"] * (1 - row["accuracy"]) / 19) ** 0.5)
    assert row["source"] == "lm-eval 0.4.13"
    assert pd.isna(row["random_chance"])
    assert list(table) == list(benchmarks.COLUMNS)


def test_tasks_have_the_names_of_the_released_table(trained: pd.DataFrame) -> None:
    names = {"arc_easy": "arc:easy", "arc_challenge": "arc:challenge", "social_iqa": "siqa", "hellaswag": "hellaswag"}
    result = {**RESULT, "results": {name: {"acc,none": 0.5, "acc_stderr,none": "N/A"} for name in names}}
    table = benchmark_rows([result], list(names), trained).set_index("task")
    assert set(table.index) == set(names.values())
    assert table.loc["siqa", "random_chance"] == pytest.approx(1 / 3)
    assert table["standard_error"].isna().all()


def test_a_task_without_an_accuracy_is_named(trained: pd.DataFrame) -> None:
    with pytest.raises(UserError, match="continuation of run 32x3 is not among the results"):
        benchmark_rows([RESULT], ["continuation"], trained)
    result = {**RESULT, "results": {"lambada": {"perplexity,none": 9.0}}}
    with pytest.raises(UserError, match="lambada of run 32x3 has perplexity,none; wanted: a task with acc"):
        benchmark_rows([result], ["lambada"], trained)


def test_a_program_that_is_not_there_or_fails_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'no/lm_eval' is not there; make eval installs it"):
        run_lm_eval("no/lm_eval", tmp_path, ["arc_easy"])
    program = tmp_path / "lm_eval"
    program.write_text("#!/bin/sh\necho starting\necho ValueError: no task named $7 >&2\necho 0%\nexit 1\n")
    program.chmod(0o755)
    with pytest.raises(UserError, match=r"^lm-eval failed: ValueError: no task named arc_easy$"):
        run_lm_eval(str(program), tmp_path, ["arc_easy"])


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="lm-eval is not installed: run make test-eval")
def test_lm_eval_answers_questions_of_a_task_of_ones_own(
    train: Train, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = tmp_path / "task"
    shutil.copytree(FOLDER / "task", task)
    described = (task / "continuations.yaml").read_text()
    (task / "continuations.yaml").write_text(described.replace("tests/unit/evaluation/task", str(task)))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    # An answer has to fit into the context.
    manifest, command = (
        train(tmp_path, 10, make_job(make_run(context_length=128))),
        str(Path(sys.executable).with_name("lm_eval")),
    )
    found = evaluate_checkpoint(manifest, shards, command, ["continuations"], str(task))
    assert (found["run"], found["step"]) == ("32x1", 10)
    assert found["n-samples"]["continuations"]["effective"] == 20
    assert 0 <= found["results"]["continuations"]["acc,none"] <= 1
    assert found["results"].keys() == RESULT["results"].keys()
    assert found["lm_eval_version"] == RESULT["lm_eval_version"]
