"""The command `gemstones evaluate`: losses of models, as a table on a terminal, as JSON or in a file."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemstones import files
from gemstones.errors import UserError
from gemstones.evaluation.losses import Settings, evaluate, records

if TYPE_CHECKING:
    import pandas as pd

# Of a file or a pipe; a terminal says its own.
WIDTH = 120
KINDS = (".parquet", ".csv", ".json")


def show(
    models: Sequence[Path], data: Sequence[str], settings: Settings, *, output: Path | None, as_json: bool
) -> None:
    """Print models' losses on data and, with `output`, write them to a file by its kind.

    Raises
    ------
    UserError
        If an option, a model or the data are at fault, before anything is printed.
    """
    if output and output.suffix not in KINDS:
        raise UserError(f"--output {output}: wanted: {', '.join(KINDS[:-1])} or {KINDS[-1]}")
    if output and not output.parent.is_dir():
        raise UserError(f"--output {output}: there is no folder {output.parent}")
    if settings.tokenizer and not settings.tokenizer.is_file():
        raise UserError(f"--tokenizer {settings.tokenizer}: no such file")
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(message)s")
    rows = records(evaluate(models, data, settings, _progress))
    if output:
        _write(rows, output)
    if as_json:
        print(json.dumps(rows, indent=2, allow_nan=False))
    else:
        _print(rows)


def _progress(batches: Sequence[Any], what: str) -> Iterable[Any]:
    if not sys.stderr.isatty():
        return batches
    from rich.console import Console
    from rich.progress import track

    return track(batches, what, console=Console(stderr=True), transient=True)


def _write(rows: Sequence[dict[str, Any]], output: Path) -> None:
    if output.suffix == ".json":
        return files.write_json(rows, output)
    import pandas as pd

    table: pd.DataFrame = pd.DataFrame(rows).astype({"bytes": "Int64", "split": "string", "bits_per_byte": "float64"})
    (files.write_parquet if output.suffix == ".parquet" else files.write_csv)(table, output)


def _print(rows: Sequence[dict[str, Any]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("model", "data"):
        table.add_column(name, overflow="fold")
    for name in ("tokens", "nats/token", "bytes", "bits/byte", "context"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row["model"],
            f"{row['data']} ({row['split']})" if row["split"] else row["data"],
            f"{row['tokens']:,}",
            f"{row['loss']:.4f}",
            f"{row['bytes']:,}" if row["bytes"] else "–",
            f"{row['bits_per_byte']:.4f}" if row["bits_per_byte"] is not None else "–",
            f"{row['context_length']:,}",
        )
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = WIDTH
    console.print(table)
