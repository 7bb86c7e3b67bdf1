"""The command line: `gemstones …`, the same functions for people without a workflow."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from gemstones import __version__
from gemstones.errors import UserError
from gemstones.study import KeepCheckpoints, Training, WandbMode


class Commands(TyperGroup):
    """Shows a :class:`UserError` as one line, with exit status 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=Commands, no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
)


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
    keep_checkpoints: Annotated[KeepCheckpoints, typer.Option(help="Which checkpoints are not pruned.")] = "milestones",
    wandb_mode: Annotated[WandbMode, typer.Option(help="Whether and where rows are mirrored to wandb.")] = "offline",
    wandb_project: Annotated[str, typer.Option(help="Name of the project there.")] = "gemstones",
) -> None:
    """Make a run reach a step: trains what is missing, from the newest checkpoint, and does nothing if all is there.

    JOB_JSON has the run with all its numbers ("run"), runs that are trained first ("before"), and steps whose checkpoints
    are wanted ("checkpoints"); `snakemake -n -p` shows each job's. Checkpoints and metrics of all runs are below <folder>.

    \b
    Example:
      gemstones train @job.json --data results/mini/training/data/manifest.json \\
        --until 150 --output results/mini/training/64x4/steps/150.json
    """
    from gemstones.training import job as jobs

    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S"
    )
    jobs.train(
        jobs.parse(job),
        data=data,
        folder=output.parent.parent.parent,
        until=until,
        output=output,
        parents=parents or (),
        settings=Training(keep_checkpoints=keep_checkpoints, wandb_mode=wandb_mode, wandb_project=wandb_project),
    )
