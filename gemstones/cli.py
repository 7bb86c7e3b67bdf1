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
        list[Path] | None, typer.Argument(metavar="[MANIFEST]...", help="More manifests, as with --parent.")
    ] = None,
    *,
    data: Annotated[Path, typer.Option(help="Manifest of the token shards.")],
    until: Annotated[int, typer.Option(help="The step that the run is to reach.")],
    output: Annotated[Path, typer.Option(help="The manifest to write: <folder>/<run>/steps/<step>.json.")],
    folder: Annotated[
        Path | None, typer.Option(help="Folder of all runs' checkpoints and metrics; by default that of OUTPUT.")
    ] = None,
    parent: Annotated[
        list[Path] | None, typer.Option(help="Manifest of a job that a cooldown's parent has done; repeatable.")
    ] = None,
) -> None:
    """Make a run reach a step: trains what is missing, from the newest checkpoint, and does nothing if all is there.

    JOB_JSON has the run with all its numbers ("run"), runs that are trained first ("before"), steps whose checkpoints
    are wanted ("checkpoints"), and may have "keep_checkpoints", "wandb_mode" and "wandb_project".

    \b
    Example:
      gemstones train @job.json --data results/mini/training/data/manifest.json \\
        --until 225 --output results/mini/training/64x3/steps/225.json
    """
    from gemstones.training import job as jobs

    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S"
    )
    jobs.train(
        jobs.parse(job),
        data=data,
        folder=folder or output.parent.parent.parent,
        until=until,
        output=output,
        parents=[*(parents or ()), *(parent or ())],
    )
