"""A study's config that trains what was prescribed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from gemstones.cluster.memory import planned_memory_bytes
from gemstones.errors import UserError
from gemstones.files import write_text
from gemstones.prescriptions.source import Source
from gemstones.study import load
from gemstones.suite.runs import main_runs

# An evaluation after about this share of the steps, where the study says nothing of its own.
EVALUATIONS = 50
COPIED = ("recipe", "plan", "data", "training", "storage")


def write_config(source: Source, found: Mapping[str, Any], path: Path) -> list[str]:
    """Write the config of a study that trains the feasible shape for the tokens that were prescribed.

    Parameters
    ----------
    found : as :func:`gemstones.prescriptions.answer.answer` gives it.

    Returns
    -------
    What a reader must know of it, a sentence each.

    Raises
    ------
    UserError
        If there is no study to take recipe, plan and data from, the file is there already or its folder is not, or a plan is not possible, such as one
        whose jobs are too short for the steps between two checkpoints.
    """
    if source.study is None:
        raise UserError("--write-config: name the study that recipe, plan and data are taken from: --config or --study")
    if source.study.runs is None:
        where = f"results/{source.study.study}/laws/{source.name}.json" if source.fitted else source.name
        raise UserError(
            f"--write-config: {source.study.study} trains nothing, so that recipe, strategy and data are unknown; take them from a "
            f"study that does, with this law: --config config/frontier.yaml --law {where}"
        )
    if path.exists():
        raise UserError(f"{path}: is there already; name another file, or remove it")
    if not path.parent.is_dir():
        raise UserError(f"--write-config {path}: there is no folder {path.parent}")
    feasible = found["feasible"]
    config = trained_config(source, feasible)
    try:
        notes = _fit_into_memory(config, str(path))
        run = main_runs(load(config, str(path)))[0]
    except UserError as error:
        hint = "; with more --nodes, steps take less time" if "walltime" in str(error) else ""
        raise UserError(f"--write-config: {error}{hint}") from None
    write_text(_text(source, found, config), path)
    tokens = run.steps * run.tokens_per_step
    notes[:0] = [
        f"{path}: trains {run.name} for {run.steps:,} steps, {tokens:,} tokens: {tokens - feasible['tokens']:,.0f} more than "
        "prescribed, so that steps are whole.",
        f"Look at it, with the starts of its jobs: gemstones plan --config {path}; train it: snakemake -c2 --configfile {path}",
    ]
    if tokens < run.warmup_tokens:
        notes.append(f"It ends before the learning rate is warmed up, at {run.warmup_tokens:,} tokens.")
    return notes


def trained_config(source: Source, feasible: Mapping[str, Any]) -> dict[str, Any]:
    """The config as plain data: what the study has, but for one shape, one run and that run's speed."""
    study = source.study
    assert study is not None
    shape = f"{feasible['width']:.0f}x{feasible['depth']:.0f}"
    kept = study.model_dump(mode="json", exclude_defaults=True)
    suite = {key: kept["suite"][key] for key in _ARCHITECTURE if key in kept.get("suite", {})}
    steps = math.ceil(feasible["tokens"] / source.tokens_per_step)
    main = study.runs.main if study.runs else None
    evaluate_every = min(steps, main.evaluate_every if main else math.ceil(steps / EVALUATIONS))
    sections = {name: dict(kept[name]) for name in COPIED if name in kept}
    # Patches name shapes of the study's suite; the rule for others is the ratio of width to depth.
    if shape not in (study.recipe.patched or ()):
        sections.get("recipe", {}).pop("patched", None)
    if speed := _throughput(source, feasible):
        plan = {key: value for key, value in sections.get("plan", {}).items() if key != "flops_per_second"}
        sections["plan"] = plan | {"throughput": {shape: speed}}
    elif study.plan.flops_per_second is None:
        raise UserError("--write-config: no speed is known; set plan.flops_per_second in the study's config")
    return {
        "study": f"{study.study}_{shape}",
        "seed": study.seed,
        "suite": {**suite, "pinned": [shape]},
        "runs": {"main": {"steps": steps, "evaluate_every": evaluate_every}},
        **{name: section for name, section in sections.items() if section},
        "losses": {"sources": ["trained"]},
        "selections": {"all": "phase == 'main'"},
        "figures": {"loss_curves": {"kind": "loss_curves", "selection": "all"}},
    }


def _fit_into_memory(config: dict[str, Any], source: str) -> list[str]:
    """Halve the micro-batch until a step fits, since the study's own may be for smaller shapes; says so."""
    plan = config.get("plan", {})
    if (limit := plan.get("gpu_memory_gb")) is None:
        return []
    study = load(config | {"plan": {key: value for key, value in plan.items() if key != "gpu_memory_gb"}}, source)
    run = main_runs(study)[0]
    first = size = study.training.micro_batch_size or run.batch_size
    while size > 1 and planned_memory_bytes(study, run, size) > 1e9 * limit:
        size //= 2
    if size == first:
        return []
    config["training"] = {**config.get("training", {}), "micro_batch_size": size}
    return [f"training.micro_batch_size is {size}, so that a step fits into {limit:g} GB."]


_ARCHITECTURE = ("head_size", "vocabulary_size", "context_length")


def _throughput(source: Source, feasible: Mapping[str, Any]) -> dict[str, Any] | None:
    speeds = source.speeds
    if speeds is None:
        return None
    per_token = 3600 * feasible["gpu_hours"] / feasible["tokens"] / (speeds.nodes * speeds.model.gpus_per_node)
    return {"nodes": speeds.nodes, "seconds_per_step": float(f"{per_token * source.tokens_per_step:.4g}")}


def _text(source: Source, found: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    asked = ", ".join(f"{value:.4g} {name}" for name, value in found["asked"].items())
    feasible, speed = found["feasible"], found["speed"]
    head = [
        f"# Trains what {source.name} prescribes for {asked}: {feasible['tokens']:.4g} tokens, a loss of "
        f"{feasible['loss']:.4f} expected.",
        f"# All else is as in {source.config}.",
    ]
    if found["extrapolated"]:
        head.append("# This is beyond the data that the law was fitted to.")
    if speed:
        error = 100 * speed["relative_error"]
        head.append(f"# Seconds per step are not measured, but a model's, which is typically off by {error:.1f} %.")
    return "\n".join([*head, yaml.safe_dump(dict(config), sort_keys=False, default_flow_style=None, width=120)])
