"""The losses that the authors of the Gemstones paper released, as rows of the losses table.

Source: github.com/mcleish7/gemstone-scaling-laws (MIT License), pinned by commit and by each file's SHA-256. The points of
Hoffmann et al. (2022), Figure 4, were extracted by Epoch AI (Besiroglu et al., arXiv 2404.10102) and are in the same place.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
import pooch

from gemstones.errors import UserError
from gemstones.files import sha256
from gemstones.losses import table
from gemstones.study import Study
from gemstones.suite import counting
from gemstones.suite.recipe import cooldown_end, peak_lr
from gemstones.suite.shapes import architecture

COMMIT = "5f420478f6057b0cbb4d13405fb10ca64675bccb"
BASE_URL = f"https://raw.githubusercontent.com/mcleish7/gemstone-scaling-laws/{COMMIT}/"
MAIN = "wandb_dfs/wandb_df_for_fitting_hot_100b+_477.jsonl"
LR_ABLATION = "wandb_dfs/wandb_df_for_fitting_lr_ablation_hot_477.jsonl"
COOLDOWN_START = "wandb_dfs/wandb_df_for_fitting_cool_begin.jsonl"
COOLDOWN_END = "wandb_dfs/wandb_df_for_fitting_cool_end.jsonl"
HOFFMANN = "data/epoch_chinchilla_svg_extracted_data.csv"
INDUSTRY = "data/our_val_loss_data.json"
PREFLIGHT = "data/preflight_mup_olmo_variant.csv"
# Losses of the main runs on other held-out sets: one file for all models or, where there is none, one for each.
OTHER_SETS = {
    "fineweb_edu": "benchmarks/fineweb_edu_losses_combined.jsonl",
    "dclm": "benchmarks/fineweb_dclm_losses_combined.jsonl",
    "fineweb": "other_validation_losses/fineweb_losses/Gemstone-{shape}.json",
}
# How files name the last checkpoint, of 350B tokens; all others are `step_<8 digits>`.
LAST_CHECKPOINT, LAST_STEP = "main", 83_475
# SHA-256 of every file that is used, as `sha256sum` writes and checks them.
HASHES = Path(__file__).with_name("released.sha256")
REGISTRY = {name: digest for digest, name in map(str.split, HASHES.read_text().splitlines())}
# The folder that holds the authors' files already, laid out as upstream, for work without a network.
DATA_FOLDER = "GEMSTONES_DATA"
# Steps of the main runs from which the authors' cooldowns branched, 10B tokens apart, and their relative length.
ANCHORS = [*range(2385, 21_466, 2385), 23_840]
COOLDOWN_FRACTION = 0.1
# "hot" runs and the learning-rate ablation differ in lr_base (paper, section 3.2).
LR_BASE = {"main": 5.0, "lr_ablation": 2.5, "cooldown": 5.0}


def fetch(name: str, folder: str | Path) -> Path:
    """Path of one of the authors' files, from `GEMSTONES_DATA` or downloaded to `folder`, its hash checked.

    Raises
    ------
    UserError
        If the file is absent, cannot be downloaded, or is not the one that was released.
    """
    given = os.environ.get(DATA_FOLDER)
    if given:
        path = Path(given) / name
        if not path.is_file():
            raise UserError(f"{path}: not found; {DATA_FOLDER} must name a folder laid out as the authors' repository")
        if sha256(path) != REGISTRY[name]:
            raise UserError(f"{path}: not the released file (its SHA-256 should be {REGISTRY[name]}); fetch it again")
        return path
    try:
        path = pooch.retrieve(BASE_URL + quote(name), known_hash=REGISTRY[name], fname=name, path=Path(folder))
    except Exception as error:
        raise UserError(
            f"{BASE_URL}{quote(name)}: download failed ({error}); without a network, set {DATA_FOLDER} to a folder "
            "that holds the file"
        ) from None
    return Path(path)


def released_losses(study: Study, folder: str | Path) -> pd.DataFrame:
    """All losses that the authors released, and the points of Hoffmann et al., in the losses table's schema.

    Parameters
    ----------
    study : gives architecture, recipe (patched shapes) and devices per node.
    folder : where downloaded files are kept.
    """
    main = _authors(study, fetch(MAIN, folder), "main")
    parts = [
        main,
        *(_on_another_set(main, name, folder) for name in OTHER_SETS),
        _authors(study, fetch(LR_ABLATION, folder), "lr_ablation"),
        _authors(study, fetch(COOLDOWN_START, folder), "cooldown"),
        _authors(study, fetch(COOLDOWN_END, folder), "cooldown"),
        _hoffmann(fetch(HOFFMANN, folder)),
    ]
    return table.check(pd.concat(parts, ignore_index=True), "the authors' released losses")


def industry_models(folder: str | Path) -> pd.DataFrame:
    """Industry models with their loss on the authors' validation set.

    Returns
    -------
    DataFrame with name, width, depth, params, params_no_embeddings, vocabulary_size, loss (nats per token of the
    model's own tokenizer, so losses of different families do not compare).
    """
    frame = pd.DataFrame(json.loads(fetch(INDUSTRY, folder).read_text()))
    names = {"hf_name": "name", "non_emb_params": "params_no_embeddings", "vocab_size": "vocabulary_size"}
    frame = frame.rename(columns=names)
    return frame.assign(name=frame["name"].str.split("/").str[-1]).sort_values("name", ignore_index=True)


def preflight_runs(folder: str | Path) -> pd.DataFrame:
    """Short runs of four shapes at six learning rates, by which the authors chose the rule for the rate (their Figure 3).

    Their steps and tokens are not known, nor whether the loss, `global_loss` in the file, is that of one batch: the authors'
    training logs name the training loss so. Runs of another initialisation, which the authors leave out, are left out.

    Returns
    -------
    DataFrame with shape, width, depth, lr (peak), loss (training, at the end, nats per token), by width, depth and lr.
    """
    path = fetch(PREFLIGHT, folder)
    raw = pd.read_csv(path)
    raw = raw[~raw["Name"].str.contains("inverse_sqrt_n_embd")]
    found = raw["Name"].str.extract(r"-(?P<width>\d+)x(?P<depth>\d+)_.*_lr(?P<lr>[\de.+-]+)_")
    found = found.astype({"width": int, "depth": int, "lr": float})
    found.insert(0, "shape", found["width"].astype(str) + "x" + found["depth"].astype(str))
    return found.assign(loss=raw["scaling/global_loss"]).sort_values(["width", "depth", "lr"], ignore_index=True)


def step_of(checkpoint: str) -> int:
    """Optimizer steps of a checkpoint by its name in the authors' files."""
    return LAST_STEP if checkpoint == LAST_CHECKPOINT else int(checkpoint.removeprefix("step_"))


def _on_another_set(main: pd.DataFrame, name: str, folder: str | Path) -> pd.DataFrame:
    """Rows of the main runs with their losses on another held-out set."""
    pattern = OTHER_SETS[name]
    losses: dict[tuple[str, int], float] = {}
    if "{shape}" in pattern:
        for shape in main["run"].unique():
            checkpoints = json.loads(fetch(pattern.format(shape=shape), folder).read_text())
            losses |= {(shape, step_of(checkpoint)): loss for checkpoint, loss in checkpoints.items()}
    else:
        raw = pd.read_json(fetch(pattern, folder), lines=True, precise_float=True)
        runs = raw["run_name"].str.removeprefix("Gemstone-")
        losses |= dict(zip(zip(runs, raw["step"], strict=True), raw["final_loss"], strict=True))
    checkpoints = zip(main["run"], main["step"], strict=True)
    rows = main.assign(validation_set=name, loss=[losses.pop(checkpoint, np.nan) for checkpoint in checkpoints])
    if losses:
        run, step = min(losses)
        raise UserError(f"{pattern}: run {run} at step {step} is no checkpoint of the main runs")
    return rows[rows["loss"].notna()]


def _authors(study: Study, path: Path, phase: str) -> pd.DataFrame:
    try:
        raw = pd.read_json(path, lines=True, precise_float=True)
        width, depth, step = raw["width"], raw["depth"], raw["step"]
    except (ValueError, KeyError) as error:
        raise UserError(f"{path}: not the authors' losses, one JSON object a line: {error}") from None
    arch = architecture(study.suite)
    shape = width.astype(str) + "x" + depth.astype(str)
    anchor = _anchors(step) if phase == "cooldown" else pd.Series(pd.NA, index=raw.index, dtype="Int64")
    suffix = {"main": "", "lr_ablation": "-lr_ablation", "cooldown": "-cooldown-" + anchor.astype("string")}[phase]
    params = np.array([counting.params(w, d, arch) for w, d in zip(width, depth, strict=True)], dtype=float)
    wrong = raw["params_active_precise"].to_numpy() != params
    if wrong.any():
        raise UserError(
            f"{path}: row {int(wrong.argmax())}: parameters differ from our count of {params[wrong][0]:.0f}"
        )
    tokens = step * float(study.recipe.batch_size * arch.context_length)
    flops_per_token = counting.flops_per_token(width.to_numpy(float), depth.to_numpy(float), arch)
    gpus = raw["num_nodes"] * study.plan.gpus_per_node
    embedding = float(arch.vocabulary_size) * width
    return pd.DataFrame(
        {
            "suite": "gemstones",
            "run": shape + suffix,
            "phase": phase,
            "parent": shape if phase == "cooldown" else None,
            "anchor": anchor,
            "width": width,
            "depth": depth,
            "heads": width // arch.head_size,
            "params": params,
            "params_no_input_embedding": params - embedding,
            "params_no_embeddings": params - 2 * embedding,
            "flops_per_token": flops_per_token,
            "step": step,
            "tokens": tokens,
            "flops": flops_per_token * tokens,
            "lr": [peak_lr(name, study.recipe, LR_BASE[phase]) for name in shape],
            "num_nodes": raw["num_nodes"],
            "gpus": gpus,
            "seconds_per_step": raw["seconds_per_step"],
            "gpu_hours": raw["seconds_per_step"] * step * gpus / 3600,
            "validation_set": "dolma",
            "loss": raw["final_loss"],
        }
    )


def _anchors(steps: pd.Series) -> pd.Series:
    """The anchor of each cooldown row: its own step at the start, the step it branched from at the end."""
    by_end = {cooldown_end(anchor, COOLDOWN_FRACTION): anchor for anchor in ANCHORS}
    return steps.replace(by_end).astype("Int64")


def _hoffmann(path: Path) -> pd.DataFrame:
    """Points of Hoffmann et al., Figure 4: model size, FLOPs = 6·N·T and training loss; neither run nor shape is known."""
    try:
        raw = pd.read_csv(path)
        params, flops = raw["Model Size"], raw["Training FLOP"]
    except (ValueError, KeyError) as error:
        raise UserError(f"{path}: not the extracted points of Hoffmann et al.: {error}") from None
    return pd.DataFrame(
        {
            "suite": "hoffmann",
            "params": params,
            "flops_per_token": 6 * params,
            "tokens": flops / (6 * params),
            "flops": flops,
            "validation_set": "massivetext",
            "loss": raw["loss"],
        }
    )
