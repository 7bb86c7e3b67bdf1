"""A small synthetic study: fifteen shapes whose losses follow a known law, with an ablation and cooldowns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gemstones.figures.inputs import Tables
from gemstones.laws.comparison import compare_laws
from gemstones.laws.downstream import fit_downstream
from gemstones.laws.early_stopping import early_stopping
from gemstones.laws.fit import HuberFit, fit_huber
from gemstones.laws.hull import HullFit, fit_hull
from gemstones.laws.power_law import PowerLaw
from gemstones.laws.published import PublishedLaw, compare
from gemstones.laws.resampling import resample
from gemstones.laws.slopes import slopes
from gemstones.laws.uncertainty import Uncertainty
from gemstones.losses import benchmarks
from gemstones.losses.selections import select
from gemstones.losses.table import check
from gemstones.prescriptions.optimum import budgets, prescribe
from gemstones.prescriptions.overspend import overspend
from gemstones.prescriptions.study import overtraining_of
from gemstones.study import Bootstrap, Figure, Study, load
from gemstones.suite.shapes import architecture
from gemstones.suite.tables import shapes_table

TOKENS_PER_STEP = 1024
LR_BASES = [0.1, 0.5, 2.0, 8.0, 32.0, 128.0]
BEST_LR_BASE = 1.0  # of all shapes in the synthetic losses
CONFIG: dict[str, Any] = {
    "study": "small",
    "suite": {
        "head_size": 16,
        "vocabulary_size": 1024,
        "context_length": 64,
        "targets": {"95k": 95_000, "180k": 180_000, "300k": 300_000, "480k": 480_000, "750k": 750_000},
        "tolerance": 0.13,
        "width_range": [32, 256],
        "depth_range": [1, 40],
        "aspect_ratios": {"standard": 16, "wide": 64, "deep": 4},
        "pinned": ["32x1", "32x3"],
    },
    "recipe": {"batch_size": 16, "lr_base": 1.0, "warmup_tokens": 40_960, "precision": "32-true"},
    "runs": {
        "main": {"steps": 450, "evaluate_every": 45},
        "lr_ablation": {"lr_base": 0.5, "steps": 450, "shapes": ["32x2", "64x1", "64x3", "96x2"]},
        "lr_transfer": {"lr_bases": LR_BASES, "steps": 90, "evaluate_every": 45, "shapes": ["32x2", "64x1", "96x2"]},
        "cooldown": {"anchors": [225, 405], "shapes": ["32x2", "64x1", "64x3", "96x2"]},
    },
    "plan": {"flops_per_second": 2e10, "gpus_per_node": 1, "segment_steps": 225},
    "losses": {"validation_set": "held_out"},
    "selections": {
        "all": "phase == 'main'",
        "late": "phase == 'main' and step >= 180",
        "cooldown_end": "phase == 'cooldown' and step > anchor",
    },
    "fits": {
        "approach_1_all": {"approach": 1, "selection": "all"},
        "approach_1_all_gpu_hours": {"approach": 1, "selection": "all", "resource": "gpu_hours"},
        "approach_3_all": {"approach": 3, "selection": "all"},
        "approach_3_late": {"approach": 3, "selection": "late"},
        "approach_3_all_width_depth": {
            "approach": 3, "selection": "all", "covariates": ["width", "depth", "params", "tokens"],
        },
        "approach_3_all_interaction": {"approach": 3, "selection": "all", "covariates": ["params", "tokens*params"]},
    },
    "comparisons": ["all", "late"],
    "early_stopping": {"selections": ["all"], "huber_deltas": [1e-3, 1e-4], "starts": 12},
    "simulation": {
        "steps": 450, "evaluate_every": 45, "laws": {}, "scenarios": {}, "flops": [3e21], "ahead": ["64x3", 1_000_000],
    },
    "prescriptions": {
        "fits": ["approach_3_all", "approach_3_all_width_depth"], "flops_range": [1e11, 1e15], "budgets": 17,
    },
    "overspend": {"selection": "all", "step": 450},
    "overtraining": {"fits": ["approach_3_all_width_depth"], "flops": [3e11, 1e12, 1e13], "gpu_hours": [0.02]},
}  # fmt: skip


def true_loss(params: Any, tokens: Any, aspect_ratio: Any) -> Any:
    """The law behind the synthetic losses, in nats per token."""
    return 1.8 + 80 / params**0.35 + 350 / tokens**0.45 + 0.02 * np.log(aspect_ratio / 16) ** 2


def small_losses(study: Study) -> pd.DataFrame:
    """Losses of every run that the study plans."""
    arch = architecture(study.suite)
    shapes = shapes_table(study.suite)
    noise = np.random.default_rng(7)
    rows = []
    for shape in shapes[shapes["selected"]].itertuples():
        runs: list[tuple[str, str, float, int | None, list[int]]] = [("", "main", 1.0, None, [*range(45, 451, 45)])]
        if shape.shape in study.runs.lr_ablation.shapes:
            runs.append(("-lr_ablation", "lr_ablation", 0.5, None, [*range(45, 451, 45)]))
        if shape.shape in study.runs.cooldown.shapes:
            runs += [(f"-cooldown-{a}", "cooldown", 1.0, a, [a, round(a * 1.1)]) for a in study.runs.cooldown.anchors]
        if shape.shape in study.runs.lr_transfer.shapes:
            # The last rate stops every run before its end, and the one before ends above the loss of guessing.
            scale = 1e3 / (shape.width * shape.depth**0.5)
            runs += [
                (f"-lr-{i}", "lr_transfer", b * scale, None, [45, 90] if b < 128 else [45])
                for i, b in enumerate(LR_BASES, 1)
            ]
        for suffix, phase, lr, anchor, steps in runs:
            for step in steps:
                tokens = float(step * TOKENS_PER_STEP)
                loss = true_loss(shape.params, tokens, shape.aspect_ratio) + 0.004 * noise.standard_normal()
                if phase == "lr_transfer":
                    loss = (
                        4
                        + shape.width / 500
                        + 0.3 * np.log(lr * 1e-3 * shape.width * shape.depth**0.5 / BEST_LR_BASE) ** 2
                    )
                loss += 0.03 if phase == "lr_ablation" else -0.06 if anchor and step > anchor else 0
                rows.append(
                    {
                        "suite": "small", "run": shape.shape + suffix, "phase": phase, "anchor": anchor,
                        "parent": shape.shape if anchor else None, "width": shape.width, "depth": shape.depth,
                        "heads": shape.width // arch.head_size, "params": shape.params,
                        "params_no_input_embedding": shape.params_no_input_embedding,
                        "params_no_embeddings": shape.params_no_embeddings, "flops_per_token": shape.flops_per_token,
                        "step": step, "tokens": tokens, "flops": tokens * shape.flops_per_token, "lr": lr * 1e-3,
                        "num_nodes": 1, "gpus": 1, "seconds_per_step": shape.flops_per_token / 2e7 + 0.01,
                        "gpu_hours": (shape.flops_per_token / 2e7 + 0.01) * step / 3600, "validation_set": "held_out",
                        "loss": loss,
                    }
                )  # fmt: skip
    return check(pd.DataFrame(rows), "synthetic losses")


def small_tables(kind: str, **extra: Any) -> Tables:
    """Tables for a figure of some kind; what the config says of a figure goes there, the rest to the tables."""
    study = load(CONFIG)
    figure = {key: extra.pop(key) for key in ("fits", "selection", "panels", "binning") if key in extra}
    given: dict[str, Any] = {"losses": small_losses(study), "shapes": shapes_table(study.suite), **extra}
    return Tables(study=study, figure=Figure.model_validate({"kind": kind, **figure}), **given)


@pytest.fixture(scope="session")
def losses() -> pd.DataFrame:
    return small_losses(load(CONFIG))


def small_laws(study: Study, losses: pd.DataFrame, names: list[str]) -> dict[str, HullFit | HuberFit]:
    """Fits of the synthetic losses."""
    laws: dict[str, HullFit | HuberFit] = {}
    for name in names:
        fit = study.fits[name]
        rows = select(losses, study.selections[fit.selection], fit.selection)
        if fit.approach == 1:
            laws[name] = fit_hull(rows, fit.resource, fit.param_count, fit.selection)
        else:
            laws[name] = fit_huber(rows, fit.covariates, fit.param_count, fit.huber_delta, 0, fit.selection)
    return laws


def small_coverage() -> pd.DataFrame:
    """Coverage of two methods in two scenarios, of which one has another quantity."""
    quantities = {
        "many": ["exponent_params", "log_optimal_params_3e+21"],
        "few": ["exponent_params", "hull_slope_params"],
    }
    rows = [
        {"scenario": scenario, "quantity": quantity, "method": method, "suites": 40, "coverage": coverage,
         "coverage_low": 0.94 * coverage, "coverage_high": min(1.05 * coverage, 1)}
        for scenario, names in quantities.items()
        for quantity in names
        for method, coverage in (("by run", 0.95), ("by row", 0.4), ("always", 1.0))
    ]  # fmt: skip
    return pd.DataFrame(rows)


def small_benchmarks(losses: pd.DataFrame) -> pd.DataFrame:
    """Three tasks whose accuracies at the main runs' checkpoints follow a logistic law of the loss, with some noise."""
    main = losses[(losses["phase"] == "main") & (losses["validation_set"] == "held_out")]
    noise = np.random.default_rng(3)
    parts = [
        main[["suite", "run", "step", "tokens", "flops", "params", "width", "depth"]].assign(
            task=task,
            accuracy=chance + 0.4 / (1 + np.exp(3 * (main["loss"] - middle))) + 0.005 * noise.standard_normal(len(main)),
            standard_error=0.01, random_chance=chance, source="nobody",
        )
        for task, chance, middle in (("arc:easy", 0.25, 3.2), ("piqa", 0.5, 3.0), ("siqa", 1 / 3, 3.4))
    ]  # fmt: skip
    return benchmarks.check(pd.concat(parts, ignore_index=True), "synthetic benchmarks")


def with_other_sets(losses: pd.DataFrame) -> pd.DataFrame:
    """The losses and, of the main runs, losses on two other sets: at each second checkpoint, at the last two."""
    main = losses[losses["phase"] == "main"]
    parts = [
        losses,
        main[main["step"] % 90 == 0].assign(validation_set="web", loss=1.04 * main["loss"]),
        main[main["step"] > 400].assign(validation_set="books", loss=main["loss"] ** 1.02),
    ]
    return check(pd.concat(parts, ignore_index=True), "synthetic losses on several sets")


def published(study: Study, losses: pd.DataFrame, laws: dict[str, HullFit | HuberFit]) -> pd.DataFrame:
    """Fits beside what stands for the authors' law of one of them: the true one."""
    law = PowerLaw(("params", "tokens"), (0.35, 0.45), (float(np.log(80)), float(np.log(350))), 1.8)
    return compare(study, losses, laws, {"approach_3_all": PublishedLaw(law, 0.01)})


def compared(study: Study, losses: pd.DataFrame) -> pd.DataFrame:
    """Laws compared on selections; one of them stands for the authors' law."""
    rows = {name: select(losses, study.selections[name], name) for name in study.comparisons}
    theirs = {"all": [PowerLaw(("params", "tokens"), (0.35, 0.45), (float(np.log(80)), float(np.log(350))), 1.8)]}
    return pd.concat([compare_laws(rows[name], name, theirs.get(name, [])) for name in rows], ignore_index=True)


def small_overspend(study: Study, losses: pd.DataFrame) -> pd.DataFrame:
    rows = select(losses, study.selections["all"], "all")
    return pd.concat([overspend(rows, study.overspend.step), overspend(rows)], ignore_index=True)


def small_anomalies() -> pd.DataFrame:
    """One run that trained on other nodes than those of its width."""
    row = {
        "suite": "small",
        "run": "64x3",
        "step": None,
        "validation_set": None,
        "kind": "throughput",
        "quantity": "num_nodes",
        "expected": 2.0,
    }
    return pd.DataFrame([row])


def small_study(kind: str, fits: list[str]) -> Tables:
    """Tables with the laws of some fits and everything that follows from them."""
    study = load(CONFIG)
    losses = small_losses(study)
    laws = small_laws(study, losses, list(study.fits))
    resamples = {}
    for name in dict.fromkeys([*fits, *study.overtraining.fits]):
        rows = select(losses, study.selections[study.fits[name].selection], name)
        resamples[name] = resample(laws[name], rows, Bootstrap(resamples=40))
        intervals = Uncertainty(laws[name], resamples[name]).to_json()
        laws[name] = replace(laws[name], evidence={"intervals": intervals})
    theirs = published(study, losses, laws)
    prescriptions = {
        name: prescribe(laws[name], budgets(study.prescriptions), study.suite, name)
        for name in fits
        if name in study.prescriptions.fits
    }
    accuracies = small_benchmarks(losses)
    study = study.model_copy(update={"bootstrap": study.bootstrap.model_copy(update={"resamples": 20})})
    downstream = fit_downstream(losses, accuracies, study)
    return small_tables(
        kind,
        fits=fits,
        losses=with_other_sets(losses),
        laws={name: laws[name] for name in fits},
        resamples=resamples,
        prescriptions=prescriptions,
        others={
            "overspend": small_overspend(study, losses),
            "anomalies": small_anomalies(),
            "published": theirs,
            "slopes": slopes(study, laws, theirs),
            "early_stopping": early_stopping(
                select(losses, study.selections["all"], "all"), "all", study.early_stopping.huber_deltas, 12
            ),
            "comparison": compared(study, losses),
            "coverage": small_coverage(),
            "benchmarks": accuracies,
            "downstream": downstream.laws,
            "downstream_points": downstream.points,
            "downstream_resamples": downstream.resamples,
            "overtraining": pd.concat(
                overtraining_of(study, name, laws[name], resamples[name], losses) for name in study.overtraining.fits
            ),
        },
    )
