"""The losses table: one row per run, step and validation set. Every producer writes it, every later stage reads it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from gemstones.errors import UserError
from gemstones.files import write_parquet
from gemstones.losses.columns import COLUMNS, KEY, PHASES

if TYPE_CHECKING:
    import pandera.pandas as pa


@cache
def schema() -> pa.DataFrameSchema:
    """Of the losses table. Made when a table is checked: who only reads one does not wait for the library."""
    import pandera.pandas as pa

    positive = pa.Check(lambda column: column > 0, error="must be greater than 0")
    finite = pa.Check(lambda column: np.isfinite(column.astype(float)), error="must be finite")
    columns = {
        name: pa.Column(
            column.dtype,
            [pa.Check.isin(PHASES)]
            if name == "phase"
            else []
            if column.dtype == "string" or name == "seed"
            else [positive, finite],
            nullable=column.nullable,
            description=column.description,
        )
        for name, column in COLUMNS.items()
    }
    return pa.DataFrameSchema(columns, strict=True, ordered=True, coerce=True)


def check(table: pd.DataFrame, source: str) -> pd.DataFrame:
    """Validate and sort a losses table.

    Parameters
    ----------
    table : rows with any of the schema's columns; missing nullable ones are added as null.
    source : how messages name the table, such as a file's path.

    Raises
    ------
    UserError
        Naming the source, the first row and the column at fault: a missing column, a wrong type, a loss that is not
        a finite positive number, or two rows of one run, step and validation set.
    """
    table = conform(table, schema(), source)
    known = table["run"].notna()
    # Rows that name no run are told apart by all that they say.
    duplicated = table.duplicated(KEY).where(known, table.duplicated())
    if duplicated.any():
        row = table[duplicated].iloc[0]
        what = (
            f"run {row['run']} at step {row['step']} on {row['validation_set']}"
            if pd.notna(row["run"])
            else "another row"
        )
        raise UserError(
            f"{source}: row {table.index[duplicated][0]} repeats {what}; a run has one loss per step and validation set"
        )
    return table.sort_values([*KEY, "flops", "params"], ignore_index=True)


def conform(table: pd.DataFrame, schema: pa.DataFrameSchema, source: str) -> pd.DataFrame:
    """A table with a schema's columns and types; missing nullable ones are added as null.

    Parameters
    ----------
    schema : each of its columns has a description; the table has a run and a step.
    source : how messages name the table, such as a file's path.

    Raises
    ------
    UserError
        Naming the source, the first row and the column at fault: a missing column, a wrong type, a value that cannot be.
    """
    from pandera.errors import SchemaError, SchemaErrors

    missing = [name for name, column in schema.columns.items() if name not in table and not column.nullable]
    if missing:
        raise UserError(f"{source}: no column {', '.join(missing)}; it has {', '.join(map(str, table.columns))}")
    table = table.reindex(columns=list(schema.columns)).reset_index(drop=True)
    try:
        return schema.validate(table)
    except SchemaError as error:
        raise UserError(f"{source}: {_fault(error, table, schema)}") from None
    except SchemaErrors as error:  # a column that is not of its type is reported this way
        raise UserError(f"{source}: {_fault(error.schema_errors[0], table, schema)}") from None


def _fault(error: pa.errors.SchemaError, table: pd.DataFrame, schema: pa.DataFrameSchema) -> str:
    name = str(getattr(error.schema, "name", None) or "?")
    column = schema.columns.get(name)
    wanted = f"wanted: {column.description}" if column else ""
    cases = error.failure_cases
    if isinstance(cases, pd.DataFrame) and len(cases) and pd.notna(cases["index"].iloc[0]):
        index, value = int(cases["index"].iloc[0]), cases["failure_case"].iloc[0]
        run, step = table.loc[index, "run"], table.loc[index, "step"]
        where = f"row {index}" + (f" (run {run}, step {step})" if pd.notna(run) else "")
        if pd.isna(value):
            return f"{where}: column '{name}' is missing or not a number; {wanted}"
        reason = getattr(error.check, "error", None) or f"is no {getattr(column, 'dtype', 'value of its type')}"
        return f"{where}: column '{name}' is {value}, {reason}; {wanted}"
    return f"column '{name}': {str(error).splitlines()[0]}; {wanted}"


def read(path: str | Path) -> pd.DataFrame:
    """Read a losses table that this project wrote: a parquet, or the CSV of excluded rows.

    Raises
    ------
    UserError
        If the file is damaged, or lacks a column.
    """
    try:
        if Path(path).suffix == ".csv":
            table = pd.read_csv(path, dtype={name: column.dtype for name, column in COLUMNS.items()})
        else:
            table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not read: {str(error).splitlines()[0]}; make it again") from None
    if missing := [name for name in COLUMNS if name not in table]:
        raise UserError(f"{path}: no column '{missing[0]}'; it was made by another version: make it again")
    return table


def write(table: pd.DataFrame, path: str | Path, specification: Mapping[str, Any] | None = None) -> None:
    """Check a losses table and write it atomically as parquet, with what made it."""
    write_parquet(check(table, str(path)), path, specification)
