"""Losses of our own runs: each run's metrics, stitched over its segments, as rows of the losses table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gemstones.errors import UserError
from gemstones.losses import table
from gemstones.study import Study
from gemstones.suite import counting
from gemstones.suite.runs import Run, all_runs, cooldown_runs
from gemstones.suite.shapes import architecture

# Training losses on each side of a joint that are compared, and how many standard errors they may lie apart.
JOINT_WINDOW = 20
JOINT_SIGMAS = 6.0


def trained_losses(study: Study, training: str | Path) -> pd.DataFrame:
    """Validation losses of every run of the study, in the losses table's schema.

    Parameters
    ----------
    training : the stage's folder, with `<run>/steps/<last step>.json` of every run.

    Raises
    ------
    UserError
        If a run has not reached its last step, an evaluation is missing, or a joint between segments is not continuous.
    """
    parts = []
    anchors: dict[str, set[int]] = {}
    for run in cooldown_runs(study):
        anchors.setdefault(str(run.parent), set()).add(int(run.anchor or 0))
    for run in all_runs(study):
        path = Path(training) / run.name / "steps" / f"{run.steps}.json"
        if not path.is_file():
            raise UserError(f"{path}: not found; the run {run.name} has not reached its last step")
        manifest = json.loads(path.read_text())
        metrics = Path(manifest["metrics"])
        curve = stitch(metrics, study.losses.continuity_tolerance, run.steps)
        # Evaluations at steps that are no longer asked for, such as a former anchor, are left out.
        parts.append(_rows(study, run, curve, anchors.get(run.name, set()), _machine(metrics)))
    return table.check(pd.concat(parts, ignore_index=True), f"the losses under {training}")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Rows of a metrics file; a torn last line, left by a kill, is dropped.

    Raises
    ------
    UserError
        If any other line is not a JSON object, naming the line.
    """
    lines = path.read_text(errors="replace").split("\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            if number < len(lines):
                raise UserError(f"{path}: line {number} is not JSON: {line[:60]}") from None
    return rows


def stitch(path: Path, tolerance: float, last_step: int) -> pd.DataFrame:
    """One continuous curve from a metrics file whose segments may overlap: the later segment wins.

    Parameters
    ----------
    tolerance : nats by which a loss may differ from the one that it repeats.
    last_step : rows after it are left out.

    Returns
    -------
    DataFrame with kind (`train` or `validation`), step, loss, seconds and validation_set, by kind and step.

    Raises
    ------
    UserError
        Naming file and step, if a repeated loss differs by more than the tolerance, or the training loss jumps at a joint
        by more than six standard errors and more than the tolerance.
    """
    rows = read_metrics(path)
    joints = [row["step"] for row in rows if row["kind"] == "start"]
    frame = pd.DataFrame([row for row in rows if row["kind"] in ("train", "validation") and row["step"] <= last_step])
    for column in ("seconds", "validation_set"):
        if column not in frame:
            frame[column] = None
    key = ["kind", "validation_set", "step"]
    spread = frame.groupby(key, dropna=False)["loss"].agg(lambda losses: losses.max() - losses.min())
    if len(spread) and spread.max() > tolerance:
        kind, _, step = spread.idxmax()
        raise UserError(
            f"{path}: the {kind} loss at step {step} was repeated after a resume and differs by {spread.max():.3g} nats "
            f"(losses.continuity_tolerance is {tolerance:g})"
        )
    frame = frame.drop_duplicates(key, keep="last").sort_values(key, ignore_index=True)
    train = frame[frame["kind"] == "train"].set_index("step")["loss"]
    for joint in joints:
        before, after = train[train.index <= joint].tail(JOINT_WINDOW), train[train.index > joint].head(JOINT_WINDOW)
        if min(len(before), len(after)) < JOINT_WINDOW:
            continue
        jump = after.mean() - before.mean()
        noise = JOINT_SIGMAS * np.sqrt((before.var() + after.var()) / JOINT_WINDOW)
        if jump > max(noise, tolerance):
            raise UserError(
                f"{path}: the training loss jumps by {jump:.3g} nats where the run was resumed at step {joint}"
            )
    return frame


def _machine(path: Path) -> tuple[int, int]:
    """Nodes and devices that a run was trained on, as its last process recorded them."""
    starts = [row for row in read_metrics(path) if row["kind"] == "start"]
    return starts[-1]["num_nodes"], starts[-1]["gpus"]


def _rows(study: Study, run: Run, curve: pd.DataFrame, anchors: set[int], machine: tuple[int, int]) -> pd.DataFrame:
    losses = curve[curve["kind"] == "validation"]
    start = run.anchor or 0
    grid = range(run.evaluate_every, run.steps, run.evaluate_every)
    due = {start, run.steps} if run.phase == "cooldown" else {*grid, run.steps}
    missing = due - set(losses["step"])
    if missing:
        raise UserError(f"run {run.name}: no validation loss at step {min(missing)}")
    losses = losses[losses["step"].isin(due | anchors)]
    arch = architecture(study.suite)
    nodes, gpus = machine
    # The median ignores the slow first steps of a process.
    seconds = float(curve.loc[(curve["kind"] == "train") & (curve["step"] > start), "seconds"].median())
    flops_per_token = counting.flops_per_token(run.width, run.depth, arch)
    step = losses["step"].to_numpy()
    tokens = step * float(run.tokens_per_step)
    return pd.DataFrame(
        {
            "suite": study.study,
            "run": run.name,
            "phase": run.phase,
            "parent": run.parent,
            "anchor": pd.Series(run.anchor, index=losses.index, dtype="Int64"),
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
            "num_nodes": nodes,
            "gpus": gpus,
            "seconds_per_step": seconds,
            "gpu_hours": seconds * step * gpus / 3600,
            "validation_set": losses["validation_set"].to_numpy(),
            "loss": losses["loss"].to_numpy(),
        }
    )
