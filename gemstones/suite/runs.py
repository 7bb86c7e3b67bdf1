"""Runs of a study (main, learning-rate ablation and transfer, cooldowns) and the jobs, or segments, that train them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

from gemstones.cluster.throughput import speed
from gemstones.errors import UserError
from gemstones.study import Branches, Config, Study
from gemstones.suite import shapes
from gemstones.suite.recipe import cooldown_end, peak_lr, scaling_depth
from gemstones.suite.shapes import parse

Phase = Literal["main", "replicate", "lr_ablation", "lr_transfer", "cooldown", "cooldown_ablation"]


class Run(Config):
    """One training run, with every number that decides its weights and its recorded losses."""

    name: str
    phase: Phase
    width: int
    depth: int
    scaling_depth: int
    head_size: int
    vocabulary_size: int
    context_length: int
    scale_embeddings: bool
    norm_offset: bool = False
    decay_final_norm: bool = False
    truncation: float
    batch_size: int
    lr: float
    warmup_tokens: int
    beta1: float
    beta2: float
    epsilon: float
    weight_decay: float
    gradient_clipping: float
    precision: Literal["32-true", "bf16-mixed"]
    seed: int
    evaluate_every: int
    validation_tokens: int
    steps: int
    parent: str | None = None
    anchor: int | None = None

    @property
    def shape(self) -> str:
        return f"{self.width}x{self.depth}"

    @property
    def is_cooldown(self) -> bool:
        return self.anchor is not None

    @property
    def tokens_per_step(self) -> int:
        return self.batch_size * self.context_length

    def identity(self) -> str:
        """Hash of what decides the numbers: a main run may get longer and still be the same run, a cooldown may not."""
        ignored = {"name"} if self.is_cooldown else {"name", "steps"}
        text = json.dumps(self.model_dump(mode="json", exclude=ignored), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Segment:
    """One training job: bring `run` from step `start` to step `stop`, keeping `checkpoints` on the way.

    `before` are runs that the same process trains first (a shape's other cooldowns, where they share one job), and
    `after` are the jobs, as (run, stop), whose checkpoints this one starts from.
    """

    run: Run
    start: int
    stop: int
    checkpoints: tuple[int, ...] = ()
    before: tuple[Run, ...] = ()
    after: tuple[tuple[str, int], ...] = ()

    @property
    def steps(self) -> int:
        """All that the job trains, also of the runs before."""
        return self.stop - self.start + sum(run.steps - _start(run) for run in self.before)

    def job(self) -> str:
        """What the training process is told, as JSON: the same text as long as the job's numbers are the same."""
        # A longer main run is no other run, so its jobs do not say how long it will get.
        run = self.run if self.run.is_cooldown else self.run.model_copy(update={"steps": self.stop})
        spec = {"run": run.model_dump(), "before": [member.model_dump() for member in self.before]}
        return json.dumps({**spec, "checkpoints": self.checkpoints})


def _make(study: Study, shape: str, phase: Phase, suffix: str, lr_base: float, steps: int, **more: Any) -> Run:
    assert study.runs is not None
    width, depth = parse(shape)
    suite, recipe = study.suite, study.recipe
    own = study.runs.lr_transfer if phase == "lr_transfer" else study.runs.main
    assert own is not None
    shared: dict[str, Any] = recipe.model_dump(
        include={
            "batch_size", "warmup_tokens", "beta1", "beta2", "epsilon", "weight_decay", "gradient_clipping",
            "truncation", "scale_embeddings", "norm_offset", "decay_final_norm", "precision",
        }
    )  # fmt: skip
    return Run(
        name=f"{shape}{suffix}", phase=phase, width=width, depth=depth, scaling_depth=scaling_depth(shape, recipe),
        head_size=suite.head_size, vocabulary_size=suite.vocabulary_size, context_length=suite.context_length,
        lr=peak_lr(shape, recipe, lr_base), seed=more.pop("seed", study.seed), evaluate_every=own.evaluate_every,
        validation_tokens=study.data.validation_tokens, steps=steps, **shared, **more,
    )  # fmt: skip


def main_runs(study: Study) -> list[Run]:
    """The main runs, smallest model first."""
    if study.runs is None or study.runs.main is None:
        return []
    return [
        _make(study, shape, "main", "", study.recipe.lr_base, study.runs.main.steps)
        for shape in shapes.selected(study.suite)
    ]


def replicate_runs(study: Study) -> list[Run]:
    """The main runs from other seeds, by shape and seed."""
    if study.runs is None or study.runs.main is None or study.runs.replicates is None:
        return []
    spec, steps = study.runs.replicates, study.runs.main.steps
    return [
        _make(study, shape, "replicate", f"-seed_{seed}", study.recipe.lr_base, steps, seed=seed)
        for shape in _subset(study, "runs.replicates", spec.shapes, ())
        for seed in sorted(spec.seeds)
    ]


def lr_ablation_runs(study: Study) -> list[Run]:
    """The runs with the other learning rate."""
    if study.runs is None or study.runs.lr_ablation is None:
        return []
    ablation = study.runs.lr_ablation
    names = _subset(study, "runs.lr_ablation", ablation.shapes, ablation.exclude)
    suffix = "-lr_ablation"
    return [_make(study, shape, "lr_ablation", suffix, ablation.lr_base, ablation.steps) for shape in names]


def lr_transfer_runs(study: Study) -> list[Run]:
    """The runs that compare learning rates, by shape and then in the config's order of rates."""
    if study.runs is None or study.runs.lr_transfer is None:
        return []
    transfer = study.runs.lr_transfer
    return [
        _make(study, shape, "lr_transfer", f"-lr-{place}", lr_base, transfer.steps)
        for shape in _subset(study, "runs.lr_transfer", transfer.shapes, ())
        for place, lr_base in enumerate(transfer.lr_bases, start=1)
    ]


def cooldown_runs(study: Study) -> list[Run]:
    """The cooldowns, by shape and anchor."""
    if study.runs is None or study.runs.cooldown is None:
        return []
    return _branches(study, "cooldown", study.runs.cooldown, {study.runs.cooldown.fraction: ""})


def cooldown_ablation_runs(study: Study) -> list[Run]:
    """The cooldowns that vary in start and length, by shape, anchor and length."""
    if study.runs is None or study.runs.cooldown_ablation is None:
        return []
    ablation = study.runs.cooldown_ablation
    suffixes = {fraction: f"-{100 * fraction:.0f}" for fraction in sorted(ablation.fractions)}
    return _branches(study, "cooldown_ablation", ablation, suffixes)


def _branches(study: Study, phase: Phase, section: Branches, suffixes: dict[float, str]) -> list[Run]:
    """Cooldowns of every shape and anchor; `suffixes` end their names, by the fraction that is their length."""
    return [
        _make(
            study, shape, phase, f"-cooldown-{anchor}{suffix}", study.recipe.lr_base, cooldown_end(anchor, fraction),
            parent=shape, anchor=anchor,
        )
        for shape in _subset(study, f"runs.{phase}", section.shapes, section.exclude)
        for anchor, (fraction, suffix) in product(sorted(section.anchors), suffixes.items())
        if anchor not in section.exclude_anchors.get(shape, ())
    ]  # fmt: skip


def all_runs(study: Study) -> list[Run]:
    """Every run of the study: main and its replicates, learning-rate ablation and transfer, cooldowns and their ablation."""
    chained = [*main_runs(study), *replicate_runs(study), *lr_ablation_runs(study), *lr_transfer_runs(study)]
    return [*chained, *cooldown_runs(study), *cooldown_ablation_runs(study)]


def segments(study: Study) -> list[Segment]:
    """The plan: every run's jobs, each as long as the recorded walltime allows and ending at an evaluation.

    Raises
    ------
    UserError
        If a shape's speed is not known, or the walltime does not hold the steps between two evaluations.
    """
    if study.runs is None:
        return []
    anchors: dict[str, set[int]] = {}
    for run in (*cooldown_runs(study), *cooldown_ablation_runs(study)):
        anchors.setdefault(str(run.parent), set()).add(_start(run))
    chained = [*main_runs(study), *lr_ablation_runs(study)]
    plan = [segment for run in chained for segment in _chain(study, run, sorted(anchors.get(run.name, ())))]
    parents: dict[str, list[Segment]] = {}
    for segment in plan:
        if segment.run.phase == "main":
            parents.setdefault(segment.run.name, []).append(segment)
    for section, runs in (
        (study.runs.replicates, replicate_runs(study)),
        (study.runs.lr_transfer, lr_transfer_runs(study)),
        (study.runs.cooldown, cooldown_runs(study)),
        (study.runs.cooldown_ablation, cooldown_ablation_runs(study)),
    ):
        if section and section.one_job_per_shape:
            plan += _one_job_per_shape(runs, parents)
            continue
        for run in runs:
            first, *rest = _chain(study, run, [])
            plan += [replace(first, after=_parents([run], parents)), *rest]
    return plan


def _start(run: Run) -> int:
    return run.anchor or 0


def _one_job_per_shape(runs: list[Run], parents: dict[str, list[Segment]]) -> list[Segment]:
    of_shape: dict[str, list[Run]] = {}
    for run in runs:
        of_shape.setdefault(run.shape, []).append(run)
    return [
        Segment(
            members[-1], _start(members[-1]), members[-1].steps, (), tuple(members[:-1]), _parents(members, parents)
        )
        for members in of_shape.values()
    ]


def _parents(runs: list[Run], parents: dict[str, list[Segment]]) -> tuple[tuple[str, int], ...]:
    """The jobs of main runs, by name, that pass the anchors of cooldowns; other runs have none."""
    found = [
        (segment.run.name, segment.stop)
        for run in runs
        for segment in parents.get(run.parent or "", ())
        if segment.start < _start(run) <= segment.stop
    ]
    return tuple(dict.fromkeys(found))


def _chain(study: Study, run: Run, anchors: list[int]) -> list[Segment]:
    nodes, seconds_per_step, _ = speed(study, run)
    walltime = study.plan.walltime(nodes)
    usable = walltime - min(study.plan.start_minutes, walltime / 2)
    # A job stops by itself before its end (see training.deadline).
    minutes = usable - min(study.training.save_minutes_before, usable / 2)
    fitting = int(60 * minutes / seconds_per_step)
    length = min(fitting, study.plan.segment_steps or fitting)
    if not run.is_cooldown:
        # End where an evaluation is due anyway, so that a segment adds no checkpoint of its own.
        length = length // run.evaluate_every * run.evaluate_every
    if length < 1:
        raise UserError(
            f"plan.walltime_minutes: {walltime:g} minutes at {seconds_per_step:g} seconds a step are too "
            f"short for the {run.evaluate_every} steps between two checkpoints of {run.name}"
        )
    stops = [*range(_start(run) + length, run.steps, length), run.steps]
    return [
        Segment(
            run, first, stop, tuple(anchor for anchor in anchors if first < anchor <= stop),
            after=((run.name, first),) if first > _start(run) else (),
        )
        for first, stop in zip([_start(run), *stops[:-1]], stops, strict=True)
    ]  # fmt: skip


def check_runs(study: Study) -> None:
    """Fail early on runs that cannot be: raises UserError with the config key at fault."""
    runs = study.runs
    if runs is None:
        return
    names = shapes.selected(study.suite)
    possible = shapes.feasible(study.suite).values()
    for target, count in study.suite.targets.items():
        if study.suite.aspect_ratios and count not in possible:
            raise UserError(
                f"suite.targets.{target}: no feasible shape has {count:,} parameters within {100 * study.suite.tolerance:g} %; "
                "widen tolerance, width_range or depth_range, or remove the target"
            )
    if not names:
        raise UserError(
            "suite: no shape is selected; give suite.shapes, suite.pinned, or suite.aspect_ratios with targets"
        )
    for patched in study.recipe.patched or ():
        if patched not in names:
            raise UserError(f"recipe.patched: {patched} is not a shape of this suite")
    for shape in study.plan.throughput:
        if shape not in names:
            raise UserError(f"plan.throughput: {shape} is not a shape of this suite; it has {', '.join(names)}")
    if runs.replicates:
        _subset(study, "runs.replicates", runs.replicates.shapes, ())
        if study.seed in runs.replicates.seeds:
            raise UserError(f"runs.replicates.seeds: {study.seed} is the study's own; wanted: others")
    if runs.lr_ablation:
        _subset(study, "runs.lr_ablation", runs.lr_ablation.shapes, runs.lr_ablation.exclude)
    if runs.lr_transfer:
        _subset(study, "runs.lr_transfer", runs.lr_transfer.shapes, ())
        if len(set(runs.lr_transfer.lr_bases)) < len(runs.lr_transfer.lr_bases):
            raise UserError("runs.lr_transfer.lr_bases: a rate is named twice")
    if runs.main and runs.cooldown:
        _check_branches(study, "runs.cooldown", runs.cooldown, (runs.cooldown.fraction,), runs.main.steps)
    if runs.main and runs.cooldown_ablation:
        fractions = runs.cooldown_ablation.fractions
        percents = [round(100 * fraction) for fraction in fractions]
        for fraction, percent in zip(fractions, percents, strict=True):
            if abs(100 * fraction - percent) > 1e-9 or percents.count(percent) > 1:
                raise UserError(
                    f"runs.cooldown_ablation.fractions: {fraction:g} is no whole percent, or named twice: percents name runs"
                )
        _check_branches(study, "runs.cooldown_ablation", runs.cooldown_ablation, fractions, runs.main.steps)
    segments(study)


def _check_branches(study: Study, where: str, section: Branches, fractions: tuple[float, ...], steps: int) -> None:
    _subset(study, where, section.shapes, section.exclude)
    if len(set(section.anchors)) < len(section.anchors):
        raise UserError(f"{where}.anchors: a step is named twice")
    for anchor in section.anchors:
        if anchor > steps:
            raise UserError(f"{where}.anchors: {anchor} lies beyond the main run's {steps} steps")
        if cooldown_end(anchor, min(fractions)) <= anchor:
            raise UserError(f"{where}.anchors: a cooldown from step {anchor} would have no step; choose a later one")
        if anchor * study.recipe.batch_size * study.suite.context_length < study.recipe.warmup_tokens:
            raise UserError(
                f"{where}.anchors: {anchor} lies within the warm-up of the learning rate; choose a later step"
            )
    for shape, skipped in section.exclude_anchors.items():
        if shape not in shapes.selected(study.suite) or set(skipped) - set(section.anchors):
            raise UserError(
                f"{where}.exclude_anchors.{shape}: {list(skipped)} names a shape or anchor that is not there"
            )


def _subset(study: Study, where: str, only: tuple[str, ...], exclude: tuple[str, ...]) -> list[str]:
    names = shapes.selected(study.suite)
    for shape in (*only, *exclude):
        if shape not in names:
            raise UserError(f"{where}: {shape} is not a shape of this suite; it has {', '.join(names)}")
    return [shape for shape in names if (not only or shape in only) and shape not in exclude]
