"""Every strategy trains as one process does, in real processes over gloo, and goes on from every other's checkpoints."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gemstones.errors import UserError
from gemstones.study import Training
from gemstones.training import launch, parallel
from tests.unit.training import strategies

from .conftest import Train, losses, make_job, make_run, state

TWO = ("ddp", "axonn(1,1,2)", "fsdp2", "axonn(2,1,1)", "tp", "axonn(1,2,1)", "axonn(1,1,1)")
FOUR = ("fsdp2", "axonn(1,1,4)", "ddp", "axonn(2,1,2)", "tp", "axonn(1,2,2)", "axonn(2,2,1)", "axonn(1,1,2)")


@pytest.fixture(scope="module")
def single(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what one process finds, and its state after six steps."""
    folder = tmp_path_factory.mktemp("single")
    strategies.run(shards, folder, ["single"])
    folder.joinpath("0.pt").rename(folder / "single.pt")
    strategies.run(shards, folder, ["single"])
    return folder


@pytest.fixture
def together(shards: Path, single: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    def run(processes: int, *arguments: str) -> list[Any]:
        tmp_path.joinpath("single.pt").write_bytes(single.joinpath("single.pt").read_bytes())
        monkeypatch.setenv("PYTHONPATH", os.getcwd())
        monkeypatch.setenv("PYTHONWARNINGS", "ignore")
        command = [sys.executable, "-m", "tests.unit.training.strategies", str(shards), str(tmp_path), *arguments]
        assert launch.run(processes, command) == 0
        return [
            json.loads(tmp_path.joinpath(f"{i}.json").read_text()) for i in range(len(list(tmp_path.glob("*.json"))))
        ]

    return run


def assert_same(found: list[Any], single: Path, names: tuple[str, ...]) -> None:
    wanted = json.loads(single.joinpath("0.json").read_text())
    norms = [norm for _, norm in wanted["first"]]
    assert min(norms) < strategies.CLIPPING < max(norms)
    assert [item["strategy"] for item in found] == list(names)
    for item in found:
        for part in ("first", "second"):
            for ours, theirs in zip(item[part], wanted[part], strict=True):
                assert ours == pytest.approx(theirs, rel=1e-5), (item["strategy"], part)
        assert item["validation"] == pytest.approx(wanted["validation"], rel=1e-5), item["strategy"]


def test_two_processes_train_as_one_does(together: Callable[..., list[Any]], single: Path, tmp_path: Path) -> None:
    assert_same(together(2, *TWO), single, TWO)
    # What a strategy saves is the full state, under the same names.
    alone = torch.load(single / "single.pt", weights_only=True)
    for number, name in enumerate(TWO):
        state = torch.load(tmp_path / f"{number}.pt", weights_only=True)
        assert list(state["model"]) == list(alone["model"]), name
        for weight, tensor in alone["model"].items():
            torch.testing.assert_close(state["model"][weight], tensor, rtol=1e-4, atol=1e-5)
            for moment in ("exp_avg", "exp_avg_sq", "step"):
                ours, theirs = state["optimizer"][weight][moment], alone["optimizer"][weight][moment]
                torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


def test_four_processes_train_as_one_does(together: Callable[..., list[Any]], single: Path) -> None:
    assert_same(together(4, *FOUR), single, FOUR)


def test_gradients_of_small_parts_add_up(together: Callable[..., list[Any]], single: Path) -> None:
    names = ("ddp", "fsdp2", "axonn(1,1,2)", "tp")
    assert_same(together(2, "--micro", *names), single, names)


def test_mixed_precision_is_that_of_one_process_but_for_rounding(
    together: Callable[..., list[Any]], shards: Path, tmp_path: Path
) -> None:
    names = ("ddp", "fsdp2", "tp", "axonn(1,1,2)", "axonn(2,1,1)", "axonn(1,2,1)")
    (tmp_path / "alone").mkdir()
    strategies.run(shards, tmp_path / "alone", ["single"], precision="bf16-mixed")
    wanted = json.loads((tmp_path / "alone/0.json").read_text())["first"]
    found = together(2, "--mixed", *names)
    assert [item["strategy"] for item in found] == list(names)
    for item in found:
        for step, ((loss, norm), (their_loss, their_norm)) in enumerate(zip(item["first"], wanted, strict=True)):
            assert loss == pytest.approx(their_loss, rel=3e-3), item["strategy"]
            if step < 3:  # rounding grows from step to step
                assert norm == pytest.approx(their_norm, rel=1e-2), item["strategy"]


def test_every_strategy_goes_on_from_its_own_jobs_and_from_others(train: Train, shards: Path, tmp_path: Path) -> None:
    """As jobs do: an evaluation comes before each checkpoint, and the next job starts from that."""
    chain = ("fsdp2", "fsdp2", "tp", "tp", "axonn(1,1,2)", "axonn(1,1,2)", "ddp", "ddp", "single")
    run = make_run(steps=5 * len(chain), depth=2, scaling_depth=2)
    straight = train(tmp_path / "straight", run.steps, make_job(run))
    for number, strategy in enumerate(chain, start=1):
        output = tmp_path / f"32x1/steps/{5 * number}.json"
        settings = {"wandb_mode": "disabled", "strategy": strategy, "processes": 1 if strategy == "single" else 2}
        command = [
            sys.executable, "-m", "gemstones", "train", make_job(run).model_dump_json(), "--data", str(shards),
            "--until", str(5 * number), "--output", str(output), "--settings", json.dumps(settings),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found = state(output)
        assert list(found["optimizer"]) == list(found["model"]), strategy
    for kind in ("validation", "train"):
        ours, theirs = losses(output, kind), losses(straight, kind)
        assert list(ours) == list(theirs)
        assert list(ours.values()) == pytest.approx(list(theirs.values()), rel=1e-5)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
class TestCompiled:
    def test_one_process(self, shards: Path, single: Path, tmp_path: Path) -> None:
        tmp_path.joinpath("single.pt").write_bytes(single.joinpath("single.pt").read_bytes())
        strategies.run(shards, tmp_path, ["single"], compiled=True)
        assert_same([json.loads(tmp_path.joinpath("0.json").read_text())], single, ("single",))

    @pytest.mark.slow
    def test_two_processes(self, together: Callable[..., list[Any]], single: Path) -> None:
        names = ("ddp", "fsdp2", "tp")
        assert_same(together(2, "--compile", *names), single, names)

    def test_axonn_says_that_it_cannot(self) -> None:
        with pytest.raises(ValueError, match="the layers of AxoNN cannot be compiled; choose fsdp2"):
            Training(strategy="axonn(1,1,2)", compile=True)


def test_a_strategy_that_does_not_fit_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ("axon(1,1,2)", "axonn(1,1,0)"):
        with pytest.raises(ValueError, match=r"choose one of single, ddp, fsdp2, tp, axonn\(rows,columns,depth\)"):
            Training(strategy=wrong)
    for alone in ("ddp", "fsdp2", "tp", "axonn(1,1,1)"):
        with pytest.raises(UserError, match=r"this is the only one; set training\.processes"):
            parallel.of(alone)


def test_a_process_that_fails_ends_the_others(tmp_path: Path) -> None:
    code = "import os, sys, time; time.sleep(600) if os.environ['RANK'] == '0' else sys.exit(75)"
    assert launch.run(2, [sys.executable, "-c", code]) == 75
