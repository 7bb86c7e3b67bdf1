"""Losses from a file of one's own (CSV, TSV, JSON, JSON lines, parquet), its columns named as laws name them."""

from __future__ import annotations

import gzip
import json
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from gemstones.errors import UserError
from gemstones.losses.selections import check_one_set, matching

ROLES = ("params", "tokens", "width", "depth", "loss", "run", "flops", "gpu_hours")
NUMBERS = ("params", "tokens", "width", "depth", "flops", "gpu_hours", "step")
SEPARATORS = {".csv": ",", ".tsv": "\t"}
JSON_KINDS = (".json", ".jsonl", ".ndjson")


def read_own(
    path: str | Path, columns: Mapping[str, str] | None = None, query: str | None = None, wanted: Collection[str] = ()
) -> pd.DataFrame:
    """A table for :func:`gemstones.laws.fit_huber` and :func:`gemstones.laws.fit_hull`; its index counts rows from 1.

    Parameters
    ----------
    path : .csv, .tsv, .json (a list of objects), .jsonl (an object a line), each also .gz, or .parquet.
    columns : the file's column for each role among params, tokens, width, depth, loss, run, flops, gpu_hours; a role that is not
        named is read from the column of its own name.
    query : pandas query over the file's columns, for the rows to take.
    wanted : columns that the table must have in the end.

    Raises
    ------
    UserError
        If the file cannot be read, holds no rows, or lacks a column, naming it.
    """
    path, columns = Path(path), dict(columns or {})
    unknown = [role for role in columns if role not in ROLES]
    if unknown:
        raise UserError(f"unknown role '{unknown[0]}'; choose from {', '.join(ROLES)}")
    if not path.is_file():
        raise UserError(f"{path}: {'a folder, not a file' if path.is_dir() else 'no such file'}")
    try:
        with warnings.catch_warnings():
            # Rows longer than the header would lose their last fields with a warning.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = _read(path, columns.get("run", "run"))
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path}: cannot be read: {_one_line(error)}") from None
    strange = [name for name in table.columns if not (str(name).isprintable() and str(name).strip())]
    if strange:
        raise UserError(f"{path}: {str(strange[0])[:40]!r} is no name of a column; wanted: a header line of names")
    table.index += 1
    if query is not None:
        table = matching(table, query, str(path))
    check_one_set(table, str(path))
    if table.empty:
        raise UserError(f"{path}: holds no rows")
    for role, column in columns.items():
        if column not in table:
            raise UserError(f"{path}: no column '{column}' for {role}; it has {', '.join(table.columns)}")
    missing = [name for name in wanted if name not in columns and name not in table]
    if missing:
        hint = f"; name the one that holds it with --column {missing[0]}=NAME" if missing[0] in ROLES else ""
        raise UserError(f"{path}: no column '{missing[0]}'; it has {', '.join(table.columns)}{hint}")
    table = table.assign(**{role: table[column] for role, column in columns.items()})
    # What the law does not use may be text: it is not known then.
    extra = [name for name in NUMBERS if name in table and name not in {*wanted, *columns}]
    return table.assign(**{name: pd.to_numeric(table[name], errors="coerce") for name in extra})


def _read(path: Path, run_column: str) -> pd.DataFrame:
    kind = Path(path.name.lower().removesuffix(".gz")).suffix
    if kind == ".parquet":
        table = pd.read_parquet(path)
        table = table if isinstance(table.index, pd.RangeIndex) else table.reset_index()
        names = [str(name) for name in table.columns]
    elif kind in JSON_KINDS:
        table = pd.DataFrame(_records(path))
        names = [str(name) for name in table.columns]
    elif kind in SEPARATORS:
        form: dict[str, Any] = {"sep": SEPARATORS[kind], "encoding": "utf-8-sig", "index_col": False}
        # pandas would rename a second column of the same name.
        names = pd.read_csv(path, header=None, nrows=1, dtype=str, **form).iloc[0].dropna().tolist()
        table = pd.read_csv(path, dtype={run_column: str}, float_precision="round_trip", low_memory=False, **form)
    else:
        raise UserError(f"{path}: unknown kind of file; wanted: .csv, .tsv, .json, .jsonl (each also .gz) or .parquet")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{path}: two columns are named '{twice[0]}'")
    return table.rename(columns=str)


def _records(path: Path) -> list[dict[str, Any]]:
    with (
        gzip.open(path, "rt", encoding="utf-8-sig")
        if path.suffix == ".gz"
        else open(path, encoding="utf-8-sig") as file
    ):
        text = file.read()
    if text.lstrip().startswith("["):
        records = json.loads(text)
    else:
        records = []
        for number, line in enumerate(text.split("\n"), start=1):
            try:
                records += [json.loads(line)] if line.strip() else []
            except json.JSONDecodeError as error:
                raise UserError(f"{path}: line {number} is no JSON object: {error.msg}") from None
    wrong = [i for i, record in enumerate(records, start=1) if not isinstance(record, dict)]
    if wrong:
        raise UserError(f"{path}: row {wrong[0]} is no JSON object")
    return records


def _one_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
