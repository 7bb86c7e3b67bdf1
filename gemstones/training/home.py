"""Where a run's state is, for one recipe and corpus, and the manifests that name it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemstones import __version__
from gemstones.errors import UserError
from gemstones.suite.runs import Run
from gemstones.training import checkpoint
from gemstones.training.checkpoint import Checkpoint
from gemstones.training.metrics import last_validation_loss


@dataclass(frozen=True)
class Parent:
    """The checkpoint from which a cooldown branches, and its run's key."""

    checkpoint: Checkpoint
    key: str


@dataclass(frozen=True)
class Home:
    """Where a run's state is, for one recipe and corpus."""

    folder: Path
    key: str

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints" / self.key

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics" / f"{self.key}.jsonl"

    @property
    def lock(self) -> Path:
        return self.checkpoints / "lock"

    @property
    def fault(self) -> Path:
        """Says why the run was stopped for good, so that later attempts end at once."""
        return self.checkpoints / "fault.json"


def key(run: Run, data_sha256: str, parent_key: str = "") -> str:
    """Short hash of what decides a run's numbers: its recipe, the tokens and, for a cooldown, its parent's key."""
    return hashlib.sha256(f"{run.identity()} {data_sha256} {parent_key}".encode()).hexdigest()[:12]


def read_manifest(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        content["run"], content["key"], content["checkpoints"].get
    except FileNotFoundError:
        raise UserError(f"{path}: not found; train what it stands for first") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: not a manifest of a training job") from None
    return content


def find_parent(run: Run, data_sha256: str, manifests: Sequence[Path]) -> Parent | None:
    """A cooldown's parent checkpoint, from the manifests of the parent's jobs."""
    if run.anchor is None:
        return None
    for path in manifests:
        content = read_manifest(path)
        entry = content["checkpoints"].get(str(run.anchor)) if content["run"] == run.parent else None
        if entry is None:
            continue
        if content["data_sha256"] != data_sha256:
            raise UserError(f"{path}: {run.parent} was trained on other tokens than {run.name} is to be")
        found = {item.step: item for item in checkpoint.available(Path(entry["path"]).parent)}
        if run.anchor not in found:
            raise UserError(
                f"{entry['path']}: the checkpoint is gone or damaged; train {run.parent} to step {run.anchor} again"
            )
        return Parent(found[run.anchor], content["key"])
    raise UserError(
        f"{run.name}: none of the given manifests has a checkpoint of {run.parent} at step {run.anchor}; "
        f"ask for it in the checkpoints of {run.parent}"
    )


def manifest(
    run: Run,
    until: int,
    asked: Iterable[int],
    home: Home,
    parent: Parent | None,
    data_sha256: str,
    stopped: dict[str, Any] | None,
) -> dict[str, Any]:
    found = {item.step: item for item in checkpoint.available(home.checkpoints)}
    reached = None if stopped else min(step for step in found if step >= until)
    for step in {*asked, reached} if reached is not None else ():
        found[step] = checkpoint.keep(found[step], end=step not in asked)

    def entry(item: Checkpoint) -> dict[str, Any]:
        return {"path": item.path.as_posix(), "step": item.step, "sha256": item.sha256}

    return {
        "run": run.name,
        "phase": run.phase,
        "step": until,
        "tokens": until * run.tokens_per_step,
        "key": home.key,
        "checkpoint": None if reached is None else entry(found[reached]),
        "checkpoints": {str(step): entry(item) for step, item in found.items() if item.milestone and step <= until},
        "metrics": home.metrics.as_posix(),
        "parent": {"run": run.parent, "key": parent.key, **entry(parent.checkpoint)} if parent else None,
        "validation_loss": None if stopped else last_validation_loss(home.metrics, until),
        "stopped": stopped,
        "specification": run.model_dump(mode="json"),
        "data_sha256": data_sha256,
        "gemstones_version": __version__,
    }
