"""A corpus of a few pages as token shards, and a run so small that a step takes milliseconds."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before torch is imported: its threads would fight with those of the tests beside.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch

from gemstones.study import Data, Training
from gemstones.suite.runs import Run
from gemstones.training import job as jobs
from gemstones.training import shards as shards_of
from gemstones.training.job import Job

Train = Callable[..., Path]

VOCABULARY = 300


def make_run(**changes: Any) -> Run:
    run = Run(
        name="32x1", phase="main", width=32, depth=1, scaling_depth=1, head_size=16, vocabulary_size=VOCABULARY,
        context_length=16, scale_embeddings=True, truncation=3.0, batch_size=4, lr=0.01, warmup_tokens=256, beta1=0.9,
        beta2=0.95, epsilon=1e-8, weight_decay=0.1, gradient_clipping=1.0, precision="32-true", seed=0,
        evaluate_every=5, validation_tokens=256, steps=20,
    )  # fmt: skip
    return run.model_copy(update=changes)


def make_cooldown(anchor: int, steps: int) -> Run:
    return make_run(name=f"32x1-cooldown-{anchor}", phase="cooldown", parent="32x1", anchor=anchor, steps=steps)


def make_job(run: Run | None = None, **more: Any) -> Job:
    return Job(run=run or make_run(), **more)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("corpus")
    generator = np.random.default_rng(0)
    words = ["".join(generator.choice(list("abcdefgh"), size)) for size in generator.integers(1, 8, 100)]
    for number in range(60):
        folder.joinpath(f"page-{number:02d}.txt").write_text(" ".join(generator.choice(words, 150)) + "\n")
    return str(folder / "*.txt")


@pytest.fixture(scope="session")
def build(corpus: str) -> Callable[..., Path]:
    def _build(folder: Path, vocabulary_size: int = VOCABULARY, **changes: Any) -> Path:
        settings = {"corpus": corpus, "validation_fraction": 0.2, "validation_tokens": 256, "shard_tokens": 1000}
        shards_of.build(
            Data.model_validate(settings | changes),
            vocabulary_size,
            manifest=folder / "manifest.json",
            tokenizer=folder / "tokenizer.json",
            shards=folder / "shards",
        )
        return folder / "manifest.json"

    return _build


@pytest.fixture(scope="session")
def shards(build: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def train(shards: Path) -> Train:
    def _train(
        folder: Path,
        until: int,
        job: Job | None = None,
        parents: tuple[Path, ...] = (),
        data: Path = shards,
        **settings: Any,
    ) -> Path:
        job = job or make_job()
        output = folder / job.run.name / "steps" / f"{until}.json"
        jobs.train(
            job,
            data=data,
            folder=folder,
            until=until,
            output=output,
            parents=parents,
            settings=Training(**{"wandb_mode": "disabled", **settings}),
        )
        return output

    return _train


def losses(manifest: Path, kind: str = "validation") -> dict[int, float]:
    """Loss by step, from the metrics that a job's manifest names; of repeated rows the later one."""
    path = Path(json.loads(manifest.read_text())["metrics"])
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {row["step"]: row["loss"] for row in rows if row["kind"] == kind}


def state(manifest: Path) -> dict[str, Any]:
    """The checkpoint that a job's manifest names."""
    content: dict[str, Any] = torch.load(json.loads(manifest.read_text())["checkpoint"]["path"], weights_only=True)
    return content


def assert_same_state(first: Path, second: Path) -> None:
    """Weights, moments and steps of two jobs' checkpoints are equal to the last bit, and so are their files."""
    a, b = state(first), state(second)
    assert a["step"] == b["step"]
    assert a["model"].keys() == b["model"].keys()
    for name in a["model"]:
        assert torch.equal(a["model"][name], b["model"][name]), name
    for name, moments in a["optimizer"].items():
        for kind, tensor in moments.items():
            assert torch.equal(tensor, b["optimizer"][name][kind]), (name, kind)
    assert len({json.loads(manifest.read_text())["checkpoint"]["sha256"] for manifest in (first, second)}) == 1
