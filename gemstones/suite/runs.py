"""Runs of a study (main, learning-rate ablation, cooldowns) and the segments, or jobs, in which they are trained."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any, Literal

from gemstones.errors import UserError
from gemstones.study import Config, Study
from gemstones.suite import counting, shapes
from gemstones.suite.recipe import cooldown_end, peak_lr, scaling_depth
from gemstones.suite.shapes import architecture, parse

Phase = Literal["main", "lr_ablation", "cooldown"]


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
    def tokens_per_step(self) -> int:
        return self.batch_size * self.context_length

    def identity(self) -> str:
        """Hash of what decides the numbers: a main run may get longer and still be the same run, a cooldown may not."""
        ignored = {"name"} if self.phase == "cooldown" else {"name", "steps"}
        text = json.dumps(self.model_dump(mode="json", exclude=ignored), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Segment:
    """One training job: bring `run` from step `start` to step `stop`, keeping `checkpoints` on the way.

    `before` are runs that the same process trains first (a shape's earlier cooldowns, where they share one job), and
    `after` are the jobs, as (run, stop), whose checkpoints this one starts from.
    """

    run: Run
    start: int
    stop: int
    checkpoints: tuple[int, ...] = ()
    before: tuple[Run, ...] = ()
    after: tuple[tuple[str, int], ...] = ()

    def job(self) -> str:
        """What the training process is told, as JSON: the same text as long as the job's numbers are the same."""
        # A longer main run is no other run, so its jobs do not say how long it will get.
        run = self.run if self.run.phase == "cooldown" else self.run.model_copy(update={"steps": self.stop})
        spec = {"run": run.model_dump(), "before": [member.model_dump() for member in self.before]}
        return json.dumps({**spec, "checkpoints": self.checkpoints})


def _make(study: Study, shape: str, phase: Phase, lr_base: float, steps: int, **more: Any) -> Run:
    assert study.runs is not None
    width, depth = parse(shape)
    suite, recipe = study.suite, study.recipe
    suffix = {"main": "", "lr_ablation": "-lr_ablation", "cooldown": f"-cooldown-{more.get('anchor')}"}[phase]
    shared: dict[str, Any] = recipe.model_dump(
        include={
            "batch_size", "warmup_tokens", "beta1", "beta2", "epsilon", "weight_decay", "gradient_clipping",
            "truncation", "scale_embeddings", "norm_offset", "decay_final_norm", "precision",
        }
    )  # fmt: skip
    return Run(
        name=f"{shape}{suffix}", phase=phase, width=width, depth=depth, scaling_depth=scaling_depth(shape, recipe),
        head_size=suite.head_size, vocabulary_size=suite.vocabulary_size, context_length=suite.context_length,
        lr=peak_lr(shape, recipe, lr_base), seed=study.seed, evaluate_every=study.runs.main.evaluate_every,
        validation_tokens=study.data.validation_tokens, steps=steps, **shared, **more,
    )  # fmt: skip


def main_runs(study: Study) -> list[Run]:
    """The main runs, smallest model first."""
    if study.runs is None:
        return []
    return [
        _make(study, shape, "main", study.recipe.lr_base, study.runs.main.steps)
        for shape in shapes.selected(study.suite)
    ]


def lr_ablation_runs(study: Study) -> list[Run]:
    """The runs with the other learning rate."""
    if study.runs is None or study.runs.lr_ablation is None:
        return []
    ablation = study.runs.lr_ablation
    names = _subset(study, "runs.lr_ablation", ablation.shapes, ablation.exclude)
    return [_make(study, shape, "lr_ablation", ablation.lr_base, ablation.steps) for shape in names]


def cooldown_runs(study: Study) -> list[Run]:
    """The cooldowns, by shape and anchor."""
    if study.runs is None or study.runs.cooldown is None:
        return []
    cooldown = study.runs.cooldown
    return [
        _make(
            study, shape, "cooldown", study.recipe.lr_base, cooldown_end(anchor, cooldown.fraction),
            parent=shape, anchor=anchor,
        )
        for shape in _subset(study, "runs.cooldown", cooldown.shapes, cooldown.exclude)
        for anchor in sorted(cooldown.anchors)
        if anchor not in cooldown.exclude_anchors.get(shape, ())
    ]  # fmt: skip


def all_runs(study: Study) -> list[Run]:
    """Main runs, learning-rate ablation and cooldowns."""
    return [*main_runs(study), *lr_ablation_runs(study), *cooldown_runs(study)]


def segments(study: Study) -> list[Segment]:
    """The plan: every run's jobs, each as long as the recorded walltime allows and ending at an evaluation.

    Raises
    ------
    UserError
        If a shape's speed is not known, or the walltime does not hold the steps between two evaluations.
    """
    cooldowns = cooldown_runs(study)
    anchors: dict[str, list[int]] = {}
    for run in cooldowns:
        anchors.setdefault(str(run.parent), []).append(_start(run))
    chained = [*main_runs(study), *lr_ablation_runs(study)]
    plan = [segment for run in chained for segment in _chain(study, run, anchors.get(run.name, []))]
    parents = [segment for segment in plan if segment.run.phase == "main"]
    if study.runs and study.runs.cooldown and study.runs.cooldown.one_job_per_shape:
        for shape in dict.fromkeys(run.shape for run in cooldowns):
            *before, last = [run for run in cooldowns if run.shape == shape]
            after = dict.fromkeys(_parent(run, parents) for run in (*before, last))
            plan.append(Segment(last, _start(last), last.steps, (), tuple(before), tuple(after)))
    else:
        for run in cooldowns:
            first, *rest = _chain(study, run, [])
            plan += [replace(first, after=(_parent(run, parents),)), *rest]
    return plan


def _start(run: Run) -> int:
    return run.anchor or 0


def _parent(cooldown: Run, parents: list[Segment]) -> tuple[str, int]:
    """The job of the main run that passes the cooldown's anchor."""
    return next(
        (segment.run.name, segment.stop)
        for segment in parents
        if segment.run.name == cooldown.parent and segment.start < _start(cooldown) <= segment.stop
    )


def _chain(study: Study, run: Run, anchors: list[int]) -> list[Segment]:
    _, seconds_per_step = throughput(study, run)
    fitting = int(60 * study.plan.walltime_minutes * study.plan.usable / seconds_per_step)
    length = min(fitting, study.plan.segment_steps or fitting)
    if run.phase != "cooldown":
        # End where an evaluation is due anyway, so that a segment adds no checkpoint of its own.
        length = length // run.evaluate_every * run.evaluate_every
    if length < 1:
        raise UserError(
            f"plan.walltime_minutes: {study.plan.walltime_minutes:g} minutes at {seconds_per_step:g} seconds a step are too "
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


def throughput(study: Study, run: Run) -> tuple[int, float]:
    """Nodes and seconds per step of a run: measured where the config has the shape, else from `flops_per_second`."""
    measured = study.plan.throughput.get(run.shape)
    if measured:
        return measured.nodes, measured.seconds_per_step
    if study.plan.flops_per_second is None:
        raise UserError(f"plan.throughput: no entry for {run.shape}, and plan.flops_per_second is not set either")
    flops = counting.flops_per_token(run.width, run.depth, architecture(study.suite)) * run.tokens_per_step
    return 1, flops / study.plan.flops_per_second


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
    if runs.lr_ablation:
        _subset(study, "runs.lr_ablation", runs.lr_ablation.shapes, runs.lr_ablation.exclude)
    if runs.cooldown:
        _subset(study, "runs.cooldown", runs.cooldown.shapes, runs.cooldown.exclude)
        if len(set(runs.cooldown.anchors)) < len(runs.cooldown.anchors):
            raise UserError("runs.cooldown.anchors: a step is named twice")
        for anchor in runs.cooldown.anchors:
            if anchor > runs.main.steps:
                raise UserError(f"runs.cooldown.anchors: {anchor} lies beyond the main run's {runs.main.steps} steps")
            if cooldown_end(anchor, runs.cooldown.fraction) <= anchor:
                raise UserError(
                    f"runs.cooldown.anchors: a cooldown from step {anchor} would have no step; choose a later one"
                )
        for shape, skipped in runs.cooldown.exclude_anchors.items():
            if shape not in names or set(skipped) - set(runs.cooldown.anchors):
                raise UserError(
                    f"runs.cooldown.exclude_anchors.{shape}: {list(skipped)} names a shape or anchor that is not there"
                )
    segments(study)


def _subset(study: Study, where: str, only: tuple[str, ...], exclude: tuple[str, ...]) -> list[str]:
    names = shapes.selected(study.suite)
    for shape in (*only, *exclude):
        if shape not in names:
            raise UserError(f"{where}: {shape} is not a shape of this suite; it has {', '.join(names)}")
    return [shape for shape in names if (not only or shape in only) and shape not in exclude]
