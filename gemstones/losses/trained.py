"""Losses of our own runs: each run's metrics, stitched over its segments, as rows of the losses table and of every step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from gemstones.errors import UserError
from gemstones.losses import table
from gemstones.losses.stitch import discontinuity, segmented, stitch
from gemstones.study import Study
from gemstones.suite import counting
from gemstones.suite.counting import Architecture
from gemstones.suite.runs import Run, all_runs
from gemstones.training.metrics import read_metrics

STEP_COLUMNS = [
    "run", "phase", "segment", "step", "tokens", "loss", "lr", "gradient_norm", "seconds", "tokens_per_second", "memory_bytes",
]  # fmt: skip


def read_curves(study: Study, training: str | Path) -> dict[str, pd.DataFrame]:
    """Every run's stitched metrics (see :func:`gemstones.losses.stitch.stitch`) up to its last step, by the run's name.

    Where a run was stopped before its end, `attrs["stopped"]` says at which step, and why.

    Parameters
    ----------
    training : the stage's folder, with `<run>/steps/<last step>.json` of every run.

    Raises
    ------
    UserError
        If a run has not reached its last step, or is not continuous where it was resumed.
    """
    curves = {}
    for run in all_runs(study):
        path = Path(training) / run.name / "steps" / f"{run.steps}.json"
        if not path.is_file():
            raise UserError(f"{path}: not found; the run {run.name} has not reached its last step")
        manifest = json.loads(path.read_text())
        metrics = Path(manifest["metrics"])
        segments = segmented(read_metrics(metrics), run.steps)
        if fault := discontinuity(segments, study.losses.continuity_sigmas):
            raise UserError(f"run {run.name}: {fault}: {metrics}")
        curves[run.name] = stitch(segments)
        curves[run.name].attrs["stopped"] = manifest.get("stopped")
    return curves


def trained_losses(study: Study, curves: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Validation losses of every run of the study, in the losses table's schema.

    Raises
    ------
    UserError
        If an evaluation is missing.
    """
    parts = []
    runs = all_runs(study)
    for run in runs:
        # Evaluations at steps that are no longer asked for, such as a former anchor, are left out.
        curve, stopped = curves[run.name], curves[run.name].attrs["stopped"]
        steps = {step for step in due(run) if not stopped or step < stopped["step"]}
        if missing := steps - set(curve.query("kind == 'validation'")["step"]):
            raise UserError(f"run {run.name}: no validation loss at step {min(missing)}")
        if steps:
            parts.append(run_rows(study.study, run, curve, steps | anchors(run, runs)))
    return table.check(pd.concat(parts, ignore_index=True), "the losses of the study's runs")


def trained_steps(study: Study, curves: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Every training step of every run, with the columns STEP_COLUMNS: one row a step, by run and step."""
    parts = [
        curves[run.name].query("kind == 'train'").assign(run=run.name, phase=run.phase).reindex(columns=STEP_COLUMNS)
        for run in all_runs(study)
    ]
    return pd.concat(parts, ignore_index=True)


def due(run: Run) -> set[int]:
    """Steps at which a run is evaluated whatever branches from it."""
    if run.anchor is not None:
        return {run.anchor, run.steps}
    return {*range(run.evaluate_every, run.steps, run.evaluate_every), run.steps}


def anchors(run: Run, runs: list[Run]) -> set[int]:
    """Steps at which cooldowns branch from a run, but not those of their ablation: it gives main runs no rows."""
    return {other.anchor for other in runs if other.parent == run.name and other.phase == "cooldown" and other.anchor}


def run_rows(suite: str, run: Run, curve: pd.DataFrame, steps: set[int]) -> pd.DataFrame:
    """The losses table's rows of a run: its evaluations at `steps`, with nodes and devices of its last segment."""
    losses = curve[(curve["kind"] == "validation") & curve["step"].isin(steps)]
    start = run.anchor or 0
    arch = Architecture(run.head_size, run.vocabulary_size, run.context_length)
    machine = curve.loc[curve["segment"].idxmax()]
    # The median ignores the slow first steps of a process.
    seconds = float(curve.loc[(curve["kind"] == "train") & (curve["step"] > start), "seconds"].median())
    flops_per_token = counting.flops_per_token(run.width, run.depth, arch)
    step = losses["step"].to_numpy()
    tokens = step * float(run.tokens_per_step)
    return pd.DataFrame(
        {
            "suite": suite,
            "run": run.name,
            "phase": run.phase,
            "parent": run.parent,
            "anchor": pd.Series(run.anchor, index=losses.index, dtype="Int64"),
            "seed": run.seed,
            "width": run.width,
            "depth": run.depth,
            "heads": counting.heads(run.width, arch.head_size),
            "params": counting.params(run.width, run.depth, arch),
            "params_no_input_embedding": counting.params_no_input_embedding(run.width, run.depth, arch),
            "params_no_embeddings": counting.params_no_embeddings(run.width, run.depth, arch),
            "flops_per_token": flops_per_token,
            "step": step,
            "tokens": tokens,
            "flops": flops_per_token * tokens,
            "lr": run.lr,
            "num_nodes": machine["num_nodes"],
            "gpus": machine["gpus"],
            "seconds_per_step": seconds,
            "gpu_hours": seconds * step * machine["gpus"] / 3600,
            "validation_set": losses["validation_set"].to_numpy(),
            "loss": losses["loss"].to_numpy(),
        }
    )
