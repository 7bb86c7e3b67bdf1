"""Losses of a run's checkpoints on further sets, as rows of the losses table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd

from gemstones.errors import UserError
from gemstones.evaluation.losses import Settings, evaluate_model
from gemstones.evaluation.models import best_device, open_checkpoint
from gemstones.evaluation.sets import Set
from gemstones.losses import table
from gemstones.training.export import Trained, read_trained


def milestones(manifest: Path) -> list[Trained]:
    """The checkpoints that a manifest names and that are kept, by step; the last one also if it is gone, which is an error later.

    Steps at which runs end or others branch off are kept; see `training.checkpoint`.
    """
    last = read_trained(manifest)
    entries = {int(step): entry for step, entry in last.content["checkpoints"].items()}
    entries[last.step] = last.content["checkpoint"]
    found = []
    for step, entry in sorted(entries.items()):
        path = last.checkpoint.with_name(Path(entry["path"]).name)
        if path.is_file() or step == last.step:
            found.append(replace(last, step=step, checkpoint=path, content={**last.content, "checkpoint": entry}))
    return found


def evaluate_run(manifest: Path, sets: Mapping[str, str], least_bytes: int | None = None) -> pd.DataFrame:
    """Losses of a run's checkpoints on all sets: run, step, validation_set and the fields of `losses.Evaluation`.

    Parameters
    ----------
    manifest : of the run's last job, beside its study's shards.
    sets : corpora by name.
    least_bytes : of each set; see :func:`gemstones.evaluation.sets.of_texts`.

    Raises
    ------
    UserError
        If a checkpoint, the tokenizer or a corpus is gone or damaged.
    """
    rows, device = [], best_device()
    encoded: dict[Any, Set] = {}
    for trained in milestones(manifest):
        model = open_checkpoint(trained, manifest, device)
        for name, corpus in sets.items():
            try:
                found = evaluate_model(model, corpus, Settings(bytes=least_bytes), device, encoded)
            except UserError as error:
                raise UserError(str(error).replace("--data", f"evaluation.sets.{name}")) from None
            rows.append({"run": trained.run.name, "step": trained.step, "validation_set": name, **asdict(found)})
    return pd.DataFrame(rows)


def losses_table(evaluated: Sequence[pd.DataFrame], trained: pd.DataFrame) -> pd.DataFrame:
    """Rows of the losses table for evaluations, each as that of its run and step but for the set and the loss.

    Parameters
    ----------
    evaluated : tables of :func:`evaluate_run`.
    trained : the losses table of the study's runs; checkpoints at steps that it has not are left out.
    """
    rows = pd.concat(evaluated, ignore_index=True)[["run", "step", "validation_set", "loss"]]
    known = trained.drop(columns=["validation_set", "loss"]).drop_duplicates(["run", "step"])
    return table.check(rows.merge(known, on=["run", "step"]), "the evaluated checkpoints")
