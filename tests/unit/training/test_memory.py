"""The planner's memory of a step is what torch allocates, for every strategy, in real processes."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gemstones.cluster.memory import step_memory_bytes
from gemstones.suite.counting import Architecture
from gemstones.training import launch

VOCABULARY, CONTEXT, BATCH, HEAD = 4096, 128, 8, 64


def case(shape: tuple[int, int], precision: str, strategy: str = "single", micro: int | None = None) -> dict[str, Any]:
    width, depth = shape
    run = {
        "width": width, "depth": depth, "scaling_depth": depth, "head_size": HEAD, "vocabulary_size": VOCABULARY,
        "context_length": CONTEXT, "batch_size": BATCH, "validation_tokens": CONTEXT, "precision": precision,
    }  # fmt: skip
    return {"strategy": strategy, "micro_batch_size": micro, "run": run}


def measured(cases: list[dict[str, Any]], processes: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    splits = {}
    for split in ("train", "validation"):
        tokens = np.random.default_rng(0).integers(0, VOCABULARY, 20_000).astype("uint16")
        tokens.tofile(folder / f"{split}.bin")
        splits[split] = {"shards": [{"file": f"{split}.bin", "tokens": len(tokens)}]}
    content = {"dtype": "uint16", "splits": splits, "tokens_sha256": "", "vocabulary_size": VOCABULARY}
    (folder / "manifest.json").write_text(json.dumps(content))
    (folder / "cases").write_text(json.dumps(cases))
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    paths = [str(folder / name) for name in ("manifest.json", "cases", ".")]
    assert launch.run(processes, [sys.executable, "-m", "tests.unit.training.memory", *paths]) == 0
    return [float(folder.joinpath(f"{number}.json").read_text()) for number in range(len(cases))]


def predicted(case: dict[str, Any], processes: int) -> float:
    run, strategy = case["run"], case["strategy"]
    share = BATCH if strategy == "tp" else BATCH // processes
    sequences = case["micro_batch_size"] or share
    return step_memory_bytes(
        run["width"], run["depth"], Architecture(HEAD, VOCABULARY, CONTEXT), sequences=sequences,
        low_precision=run["precision"] == "bf16-mixed", strategy=strategy, processes=processes,
        accumulates=sequences < share,
    )  # fmt: skip


def test_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [
        case((256, 8), "32-true"), case((256, 8), "bf16-mixed"), case((512, 2), "32-true"),
        case((512, 2), "bf16-mixed"), case((192, 2), "bf16-mixed"), case((256, 4), "bf16-mixed", micro=1),
    ]  # fmt: skip
    for item, bytes_measured in zip(cases, measured(cases, 1, tmp_path, monkeypatch), strict=True):
        assert predicted(item, 1) == pytest.approx(bytes_measured, rel=0.03), item


@pytest.mark.parametrize("processes", [2, 4])
def test_of_several_processes(processes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strategies = {
        2: ("ddp", "fsdp2", "tp", "axonn(1,1,2)", "axonn(2,1,1)", "axonn(1,2,1)"),
        4: ("fsdp2", "tp", "axonn(1,1,4)", "axonn(1,1,2)"),
    }
    cases = [case((256, 8), "bf16-mixed", strategy) for strategy in strategies[processes]]
    for item, bytes_measured in zip(cases, measured(cases, processes, tmp_path, monkeypatch), strict=True):
        print(item["strategy"], predicted(item, processes) / bytes_measured)
        assert predicted(item, processes) == pytest.approx(bytes_measured, rel=0.15), item
