"""The command line: `gemstones …`, the same functions for people without a workflow."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from gemstones import __version__
from gemstones.errors import UserError

# What typer raises for a wrong option; it exports only this subclass of it.
UsageError: Any = typer.BadParameter.__base__


class Commands(TyperGroup):
    """Shows a :class:`UserError`, or what is wrong with an option, as one line, with exit status 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (UserError, UsageError) as error:
            message = error.format_message() if isinstance(error, UsageError) else error
            if not getattr(error, "told", False):
                typer.echo(f"error: {message}", err=True)
            raise typer.Exit(1) from None
        except OSError as error:
            if error.filename is None:
                raise
            typer.echo(f"error: {error.filename}: {error.strerror}", err=True)
            raise typer.Exit(1) from None


# Nothing that takes long to load is imported up here, so that a command pays for its own needs only.
# Exit status of a fit that is not at a minimum; 1 is for what is refused, 2 for a wrong use of options.
NOT_CONVERGED = 3
LAW, DELTA, PENALTY = "params,tokens", 1e-4, 1.0

app = typer.Typer(
    cls=Commands, no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
)

imports = typer.Typer(cls=Commands, no_args_is_help=True, rich_markup_mode=None)
app.add_typer(imports, name="import", help="Make a losses table of what is recorded elsewhere.")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Scaling-law studies of language models over width and depth."""


@app.command()
def train(
    job: Annotated[str, typer.Argument(metavar="JOB_JSON", help="What to train, as JSON or @file.")],
    parents: Annotated[
        list[Path] | None,
        typer.Argument(metavar="MANIFEST", help="Of jobs before this one; cooldowns need their parent's."),
    ] = None,
    *,
    data: Annotated[Path, typer.Option(help="Manifest of the token shards.")],
    until: Annotated[int, typer.Option(help="The step that the run is to reach.")],
    output: Annotated[Path, typer.Option(help="The manifest to write: <folder>/<run>/steps/<step>.json.")],
    settings: Annotated[
        str, typer.Option(metavar="JSON", help="The config's section `training`: strategy, processes, wandb_mode, …")
    ] = "{}",
) -> None:
    """Make a run reach a step: trains what is missing, from the newest checkpoint, and does nothing if all is there.

    JOB_JSON has the run with all its numbers ("run"), runs that are trained first ("before"), and steps whose checkpoints
    are wanted ("checkpoints"); `snakemake -n -p` shows each job's. Checkpoints and metrics of all runs are below <folder>.

    On SIGTERM or SIGUSR1, or when its time is nearly over, it saves and stops with exit status 75: started again, it goes on.

    \b
    Example:
      gemstones train @job.json --data results/mini/training/data/manifest.json \\
        --until 150 --output results/mini/training/64x4/steps/150.json
    """
    from pydantic import ValidationError

    from gemstones.faults import fault_lines
    from gemstones.study import Training
    from gemstones.training import launch

    try:
        chosen = Training.model_validate_json(settings)
    except ValidationError as error:
        raise UserError("; ".join(f"--settings: {line}" for line in fault_lines(error, Training))) from None
    if chosen.processes > launch.processes() == 1:
        raise typer.Exit(launch.run(chosen.processes, launch.again()))
    from gemstones.training import job as jobs
    from gemstones.training.deadline import CONTINUE, OutOfTime

    level = logging.INFO if launch.rank() == 0 else logging.ERROR  # all of them have the same to say
    logging.basicConfig(
        stream=sys.stderr, level=level, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S"
    )
    try:
        jobs.train(
            jobs.parse(job),
            data=data,
            folder=output.parent.parent.parent,
            until=until,
            output=output,
            parents=parents or (),
            settings=chosen,
        )
        status = 0
    except OutOfTime as stopped:
        if launch.rank() == 0:
            typer.echo(f"to be continued: {stopped}", err=True)
        status = CONTINUE
    except RuntimeError as error:
        lost = ("closed by peer", "reset by peer", "remote process exited", "Broken pipe", "Socket closed")
        if launch.processes() == 1 or not any(words in str(error) for words in lost):
            raise
        raise UserError(
            "the connection to another process of this job is lost; if that one has ended, start again, and it goes on from "
            f"the last checkpoint ({str(error).splitlines()[0]})"
        ) from None
    if chosen.compile and launch.processes() > 1:
        # The compiler's threads now and then end a process with an error, after all is done.
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    raise typer.Exit(status)


@app.command()
def status(
    *,
    config: Annotated[Path, typer.Option(metavar="FILE", help="The study's config.")] = Path("config/config.yaml"),
    results: Annotated[Path, typer.Option(metavar="FOLDER", help="Of all studies' results.")] = Path("results"),
    everything: Annotated[bool, typer.Option("--all", help="List runs too that are done, or not yet begun.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Look again and again, until Ctrl-C.")] = False,
    every: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="With --watch; Slurm is asked every 30 at most.")
    ] = 10,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write all of it to standard output as JSON; with --watch, a line each time.")
    ] = False,
) -> None:
    """Show how far a study's runs are: steps, losses, time and node-hours left, jobs in the queue, events.

    Runs are waiting for another job or run, queued in Slurm, running, done, stopped for good, or failed: their last job ended
    before it had saved. Node-hours left are the plan's; those spent are Slurm's or, without it, of the recorded steps.

    \b
    Example:
      gemstones status --config config/frontier.yaml --watch
    """
    from gemstones.cluster import screen
    from gemstones.cluster.config import read

    screen.show_status(
        read(config, trains=True), results, everything=everything, every=every if watch else None, as_json=as_json
    )


@app.command()
def ledger(
    *,
    config: Annotated[Path, typer.Option(metavar="FILE", help="The study's config.")] = Path("config/config.yaml"),
    results: Annotated[Path, typer.Option(metavar="FOLDER", help="Of all studies' results.")] = Path("results"),
    as_json: Annotated[
        bool, typer.Option("--json", help="Write it, with all attempts, to standard output as JSON.")
    ] = False,
) -> None:
    """Account for a study: node-hours planned, spent, kept, lost and left, by run and by phase, also while it trains.

    What sacct says of jobs is kept in results/<study>/cluster/jobs.csv, since its database is purged.

    \b
    Example:
      gemstones ledger --config config/frontier.yaml
    """
    from gemstones.cluster import screen
    from gemstones.cluster.config import read
    from gemstones.cluster.ledger import account_for

    screen.show_ledger(account_for(read(config, trains=True), results), as_json=as_json)


@app.command()
def export(
    manifests: Annotated[
        list[Path], typer.Argument(metavar="MANIFEST...", help="Of training jobs: training/<run>/steps/<step>.json.")
    ],
    *,
    output: Annotated[Path, typer.Option(help="The folder in which <model>/<revision>/ is made.")],
    data: Annotated[
        Path | None, typer.Option(help="Manifest of the token shards; with it, the tokenizer is exported too.")
    ] = None,
) -> None:
    """Write checkpoints as the library transformers loads them, with a model card, and show each one's folder.

    \b
    Example:
      gemstones export results/mini/training/64x4/steps/300.json \\
        --data results/mini/training/data/manifest.json --output results/mini/export
    """
    from gemstones.training.export import export as export_one

    logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(message)s")
    for manifest in manifests:
        typer.echo(export_one(manifest, output, data))


@app.command()
def evaluate(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL...", help="Manifests training/<run>/steps/<step>.json, or folders of Hugging Face."
        ),
    ],
    *,
    data: Annotated[
        list[str],
        typer.Option(help="Manifest of token shards, or texts: a glob of .txt, .json or .jsonl. Repeat for others."),
    ],
    split: Annotated[Literal["validation", "train"], typer.Option(help="Of shards.")] = "validation",
    tokens: Annotated[
        int | None,
        typer.Option(min=1, help="How much of shards: by default as much as evaluations in training take."),
    ] = None,
    least_bytes: Annotated[
        int | None,
        typer.Option("--bytes", min=1, help="How much of texts, to the end of a document: by default all."),
    ] = None,
    context_length: Annotated[
        int | None, typer.Option(min=1, metavar="TOKENS", help="Of the windows; by default each model's own.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, metavar="WINDOWS", help="How many at a time; by default 4,096 tokens.")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(metavar="FILE", help="tokenizer.json of models that have none beside them.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the rows to it: .parquet, .csv or .json.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write the rows to standard output as JSON.")] = False,
) -> None:
    """Measure the loss of models on any text, in nats per token and in bits per byte, which compare across tokenizers.

    \b
    Example:
      gemstones evaluate results/mini/training/64x4/steps/300.json results/mini/export/Gemstone-64x4/step_00000300 \\
        --data results/mini/training/data/manifest.json --data "texts/*.jsonl"
    """
    from gemstones.evaluation.losses import Settings
    from gemstones.evaluation.terminal import show

    settings = Settings(split, tokens, least_bytes, context_length, batch_size, tokenizer)
    show(models, data, settings, output=output, as_json=as_json)


@app.command()
def restore(
    archives: Annotated[
        list[Path], typer.Argument(metavar="ARCHIVE...", help="Of runs: <storage.archive>/<study>/<run>.json.")
    ],
    *,
    results: Annotated[Path, typer.Option(help="The study's folder, such as results/frontier.")],
) -> None:
    """Get archived runs back, such as after a purge, so that they go on or are there again; shows how much was written.

    What is there and intact stays. Call it where the study was started, as manifests name files from there.

    \b
    Example:
      gemstones restore ~/archive/frontier/*.json --results results/frontier
    """
    from gemstones.cluster.restore import restore as restore_one

    logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(message)s")
    for archive in archives:
        typer.echo(f"{archive.stem}: {len(restore_one(archive, results))} files")


@app.command()
def fit(
    file: Annotated[Path, typer.Argument(metavar="FILE", help=".csv, .tsv, .json, .jsonl (also .gz) or .parquet.")],
    law: Annotated[
        str,
        typer.Option(help="Terms of the law: columns (params, tokens, width, depth, …) or products (tokens*params)."),
    ] = LAW,
    delta: Annotated[float, typer.Option(help="Huber delta, in nats of log loss; inf for least squares.")] = DELTA,
    hull: Annotated[
        Literal["flops", "gpu_hours"] | None,
        typer.Option(
            help="No law, but lines through the lower convex hull of the losses over this resource (Approach 1)."
        ),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE=NAME",
            help="The file's column for params, tokens, width, depth, loss, run, flops or "
            "gpu_hours, unless it has that name. Repeat for others.",
        ),
    ] = None,
    query: Annotated[str | None, typer.Option(help="Rows to take: a pandas query over the file's columns.")] = None,
    weights: Annotated[str | None, typer.Option(metavar="NAME", help="Column that weights the rows.")] = None,
    overestimate_penalty: Annotated[
        float, typer.Option(help="Weight of rows whose loss the law overestimates; above 1, it leans to the lowest.")
    ] = PENALTY,
    bootstrap: Annotated[int, typer.Option(min=0, help="Resamples for intervals, such as 2000.")] = 0,
    unit: Annotated[Literal["run", "row"], typer.Option(help="What is resampled.")] = "run",
    level: Annotated[float, typer.Option(help="Level of the intervals.")] = 0.95,
    flops: Annotated[
        list[float] | None,
        typer.Option(help="Budget for which optimal params and tokens are shown. Repeat for others."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Processes for the resamples.")] = 1,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write the fit to standard output as JSON, and nothing else.")
    ] = False,
) -> None:
    """Fit a scaling law L = E + sum of A/x^alpha to a file of losses, one row per run and checkpoint.

    Rows of one run are not independent, so intervals come from resamples of whole runs; name the column that tells the runs
    apart, or rows are resampled one by one, and the intervals are likely too narrow. A fit that is not at a minimum is printed with
    a warning, and ends with status 3.

    \b
    Example:
      gemstones fit losses.csv --law params,tokens --bootstrap 2000 --flops 1e21 \\
        --column params=N --column loss=final_loss --column run=run_name --query "step > 1000"
      gemstones fit losses.csv --law "width,depth,params,tokens*params"
    """
    # Before numpy is loaded: on problems this small its threads only cost time.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from gemstones import terminal

    if hull and (law, delta, weights, overestimate_penalty) != (LAW, DELTA, None, PENALTY):
        raise UserError("--hull fits no law: --law, --delta, --weights and --overestimate-penalty mean nothing with it")
    converged = terminal.fit_file(
        file,
        columns=terminal.mapping(column or ()),
        query=query,
        hull=hull,
        law={
            "covariates": tuple(name.strip() for name in law.split(",")),
            "huber_delta": delta,
            "weights": weights,
            "overestimate_penalty": overestimate_penalty,
        },
        bootstrap={"resamples": bootstrap, "unit": unit, "level": level},
        flops=flops or (),
        seed=seed,
        jobs=jobs,
        as_json=as_json,
    )
    if not converged:
        raise typer.Exit(NOT_CONVERGED)


@app.command()
def prescribe(
    *,
    flops: Annotated[float | None, typer.Option(help="Training FLOPs to spend.")] = None,
    gpu_hours: Annotated[float | None, typer.Option(help="GPU-hours to spend.")] = None,
    node_hours: Annotated[float | None, typer.Option(help="Node-hours to spend.")] = None,
    tokens: Annotated[float | None, typer.Option(help="The budget whose optimum has so many training tokens.")] = None,
    params: Annotated[float | None, typer.Option(help="The budget whose optimum has so many parameters.")] = None,
    law: Annotated[
        str | None,
        typer.Option(
            metavar="FIT|FILE",
            help="A fit of the study, or a law's JSON; by default the fit that predicts unseen runs best (laws/choice.json).",
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The study's config; config/config.yaml by default.")
    ] = None,
    study: Annotated[str | None, typer.Option(metavar="NAME", help="The study by its name, instead.")] = None,
    results: Annotated[Path, typer.Option(metavar="FOLDER", help="Of all studies' results.")] = Path("results"),
    nodes: Annotated[
        int | None, typer.Option(min=1, help="For GPU-hours; by default prescriptions.nodes, or the recorded median.")
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option("--write-config", metavar="FILE", help="Write a config that trains the feasible shape."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write the answer to standard output as JSON, and nothing else.")
    ] = False,
) -> None:
    """Say what to train for a budget: width, depth, tokens and loss by a fitted law, and what rounding the shape costs.

    Name one budget. GPU-hours follow from a model of speed, fitted to what the study's runs recorded. A law's JSON needs no study.

    \b
    Example:
      gemstones prescribe --flops 1e21 --study released
      gemstones prescribe --gpu-hours 5000 --config config/frontier.yaml --write-config config/next.yaml \\
        --law results/released/laws/approach_3_all_width_depth.json
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from gemstones.prescriptions.screen import show_prescription

    show_prescription(
        {"flops": flops, "gpu_hours": gpu_hours, "node_hours": node_hours, "tokens": tokens, "params": params},
        law=law,
        config=config,
        study=study,
        results=results,
        nodes=nodes,
        write=write,
        as_json=as_json,
    )


@imports.command("wandb")
def import_wandb(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="PATH", help="Offline runs: .wandb files, or folders above them.")
    ] = None,
    *,
    output: Annotated[Path, typer.Option(help="The losses table to write, .parquet.")],
    project: Annotated[str | None, typer.Option(help="Project on the wandb server, to read through its API.")] = None,
    entity: Annotated[str | None, typer.Option(help="Whose project; by default your own.")] = None,
    suite: Annotated[str, typer.Option(help="The table's name for whose runs they are.")] = "wandb",
    tag: Annotated[list[str] | None, typer.Option(help="Only runs with one of these: pretrain, cooldown.")] = None,
    name: Annotated[str, typer.Option(metavar="PATTERN", help="Only runs of such names, as in 64x*.")] = "*",
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=REASON", help="A run, or a segment, to leave out. Repeat for others."),
    ] = None,
) -> None:
    """Read the validation losses of runs back from wandb, each stitched over its segments, of which the later one wins.

    What is missing there, such as the last rows of a killed process, is said. The table's metadata names the segments that were
    read, and what was excluded and why.

    \b
    Example:
      gemstones import wandb results/mini/training --output losses.parquet --exclude "64x1=its corpus was wrong"
    """
    from gemstones.losses import table, wandb

    if not (paths or project):
        raise UserError("nothing to import: name a PATH, or a --project")
    reasons = {left: reason.strip() for left, _, reason in (pair.partition("=") for pair in exclude or ())}
    if wrong := [left for left, reason in reasons.items() if not (left and reason)]:
        raise UserError(f"--exclude {wrong[0]}: wanted: NAME=REASON")
    segments = [*wandb.offline(paths or ()), *(wandb.online(project, entity) if project else ())]
    imported = wandb.import_losses(segments, suite, tags=tag or (), name=name, exclude=reasons)
    chosen = {"tags": tag or [], "name": name, "exclusions": reasons}
    table.write(imported.losses, output, {"segments": imported.segments, **chosen, "notes": imported.notes})
    for note in imported.notes:
        typer.echo(note)
    count = sum(map(len, imported.segments.values()))
    typer.echo(f"{output}: {len(imported.losses)} losses of {len(imported.segments)} runs, from {count} segments")


@app.command()
def plan(
    *,
    config: Annotated[Path, typer.Option(help="The study.")] = Path("config/config.yaml"),
    nodes: Annotated[
        list[int] | None,
        typer.Option("--for", min=1, metavar="NODES", help="What if every run had so many nodes? Repeat for others."),
    ] = None,
    queue: Annotated[str | None, typer.Option(help="Plan for this queue of the config, and not for its own.")] = None,
    wait_minutes: Annotated[
        float | None, typer.Option(min=0, help="Assumed wait in the queue, for plan.wait_minutes of the config.")
    ] = None,
    runs: Annotated[bool, typer.Option("--runs", help="Show every run, not every shape.")] = False,
    jobs: Annotated[bool, typer.Option("--jobs", help="Show every job.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write the plan to standard output as JSON, and nothing else.")
    ] = False,
) -> None:
    """Say what a study takes of a cluster, before anything is submitted: node-hours, days and bytes.

    The speed of shapes is measured, or follows from a model fitted to those that are; seconds per step that are not measured
    are marked with ~. Exit status 1 if the plan is beyond plan.budget_node_hours.

    \b
    Example:
      gemstones plan --config config/frontier.yaml --for 16 --for 32 --wait-minutes 30
    """
    from gemstones.cluster import terminal

    detail = "jobs" if jobs else "runs" if runs else "shapes"
    terminal.show_plan(
        config, nodes=nodes or (), queue=queue, wait_minutes=wait_minutes, detail=detail, as_json=as_json
    )
