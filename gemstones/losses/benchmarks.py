"""Accuracies on benchmarks: one row per run, step, task and source, whoever evaluated the checkpoints.

The authors' were measured with LightEval on up to 1,000 questions of each task (of MMLU: of each of its subjects), without
examples, by the likelihood of each answer divided by its length (`acc_norm`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa

from gemstones.errors import UserError
from gemstones.files import write_csv, write_parquet
from gemstones.losses.columns import Column
from gemstones.losses.released import fetch, step_of
from gemstones.losses.table import conform
from gemstones.report import write_html_table

# Of a model that somebody else trained, steps, tokens and the shape may not be known.
COLUMNS = {
    "suite": Column("string", "who trained it: a study's name, gemstones (the authors)"),
    "run": Column("string", "run name as in the losses table, such as 1024x28"),
    "step": Column("Int64", "optimizer steps taken", nullable=True),
    "tokens": Column("float64", "training tokens seen", nullable=True),
    "flops": Column("float64", "training FLOPs", nullable=True),
    "params": Column("float64", "all parameters", nullable=True),
    "width": Column("Int64", "model width", nullable=True),
    "depth": Column("Int64", "number of layers", nullable=True),
    "task": Column("string", "benchmark, such as arc:easy"),
    "accuracy": Column("float64", "share of questions answered rightly, by likelihood normalised by length"),
    "standard_error": Column(
        "float64", "of the accuracy, from the number of questions; null where it is not known", nullable=True
    ),
    "random_chance": Column("float64", "accuracy of guessing", nullable=True),
    "source": Column("string", "who evaluated it, and with what"),
}
KEY = ["suite", "run", "step", "task", "source"]
# Accuracy of guessing, one over the number of answers to choose from.
RANDOM_CHANCE = {
    "arc:challenge": 1 / 4,
    "arc:easy": 1 / 4,
    "commonsense_qa": 1 / 5,
    "hellaswag": 1 / 4,
    "mmlu": 1 / 4,
    "openbookqa": 1 / 4,
    "piqa": 1 / 2,
    "siqa": 1 / 3,
    "winogrande": 1 / 2,
}

RELEASED, RELEASED_ERRORS = "benchmarks/light_eval_df.parquet", "benchmarks/light_eval_df_err.parquet"
AUTHORS = "the Gemstones authors, LightEval"
# Their file has 0.033 as MMLU's standard error, which is what 180 questions give: that of one of its 57 subjects, or a mean over
# them. That of the task, which has 14,000 questions, would be about 0.004 (0.033 / sqrt(57)), but the file does not tell it.
OF_A_PART = "mmlu"

_positive = pa.Check(lambda column: column > 0, error="must be greater than 0")
_share = pa.Check(lambda column: (column >= 0) & (column <= 1), error="must be from 0 to 1")
_SHARES = ("accuracy", "standard_error", "random_chance")
SCHEMA = pa.DataFrameSchema(
    {
        name: pa.Column(
            column.dtype,
            [] if column.dtype == "string" else [_share if name in _SHARES else _positive],
            nullable=column.nullable,
            description=column.description,
        )
        for name, column in COLUMNS.items()
    },
    strict=True,
    ordered=True,
    coerce=True,
)


def check(table: pd.DataFrame, source: str) -> pd.DataFrame:
    """Validate and sort a table of benchmarks.

    Parameters
    ----------
    table : rows with any of `COLUMNS`; missing nullable ones are added as null.
    source : how messages name the table, such as a file's path.

    Raises
    ------
    UserError
        Naming the source, the first row and the column at fault, or a row that repeats another's run, step and task.
    """
    table = conform(table, SCHEMA, source)
    repeated = table.duplicated(KEY)
    if repeated.any():
        row = table[repeated].iloc[0]
        raise UserError(
            f"{source}: row {table.index[repeated][0]} repeats run {row['run']} at step {row['step']} on {row['task']}; "
            "a source has one accuracy of each"
        )
    return table.sort_values(KEY, ignore_index=True)


def released_benchmarks(losses: pd.DataFrame, folder: str | Path) -> pd.DataFrame:
    """The accuracies that the authors released: nine tasks at 35 checkpoints of each main run, without MMLU's standard error.

    Parameters
    ----------
    losses : the authors' rows of the losses table, which tell tokens, FLOPs and shape of each checkpoint.
    folder : where downloaded files are kept.

    Raises
    ------
    UserError
        If a checkpoint has no row in `losses`.
    """
    names = {RELEASED: "accuracy", RELEASED_ERRORS: "standard_error"}
    wide = [pd.read_parquet(fetch(file, folder)).stack().rename(name) for file, name in names.items()]
    rows = pd.concat(wide, axis=1).rename_axis(["checkpoint", "task"]).reset_index()
    # Such as Gemstone-1024x28-step_00002385.
    rows[["run", "step"]] = rows["checkpoint"].str.extract(r"^Gemstone-(\d+x\d+)-(.+)$")
    rows = rows.assign(step=rows["step"].map(step_of), random_chance=rows["task"].map(RANDOM_CHANCE), source=AUTHORS)
    rows["standard_error"] = rows["standard_error"].mask(rows["task"] == OF_A_PART)
    known = losses.loc[
        losses["phase"] == "main", ["suite", "run", "step", "tokens", "flops", "params", "width", "depth"]
    ]
    joined = rows.merge(known.drop_duplicates(["suite", "run", "step"]), on=["run", "step"], how="left")
    if joined["tokens"].isna().any():
        missing = joined[joined["tokens"].isna()].iloc[0]
        raise UserError(f"{RELEASED}: {missing['checkpoint']} is no checkpoint of the authors' main runs")
    return check(joined, RELEASED)


def final_accuracies(table: pd.DataFrame) -> pd.DataFrame:
    """One row per suite, run and source: accuracies in percent of its last checkpoint, a column a task, and their mean.

    The last row says what guessing gives.
    """
    last = table[table["step"] == table.groupby(["suite", "run", "source"])["step"].transform("max")]
    index = ["suite", "run", "params", "tokens", "source"]
    wide = 100 * last.pivot(index=index, columns="task", values="accuracy")
    wide.insert(0, "mean", wide.mean(axis=1))
    guessing = 100 * table.groupby("task")["random_chance"].first()
    guessing = guessing.to_frame().T.assign(mean=guessing.mean(skipna=False), run="guessing")
    wide = wide.rename_axis(columns=None).reset_index().sort_values(["mean", "run"], ascending=False)
    return pd.concat([wide, guessing], ignore_index=True).drop(columns="suite" if wide["suite"].nunique() == 1 else [])


def error_of_mean(errors: pd.Series) -> float:
    """Standard error of a mean over tasks from theirs; those not known count as none, and if all are, so is the mean's.

    Of the authors' nine tasks that leaves out MMLU, whose 14,000 questions would add less than 1 % to it.
    """
    return float(np.sqrt((errors**2).sum(min_count=1)) / len(errors))


def write(table: pd.DataFrame, path: str | Path, specification: Mapping[str, Any] | None = None) -> None:
    """Check a table of benchmarks and write it atomically as parquet, with what made it."""
    write_parquet(check(table, str(path)), path, specification)


def write_final(table: pd.DataFrame, csv: str | Path, page: str | Path) -> None:
    """Write :func:`final_accuracies` of a table of benchmarks as CSV and as a page for the report."""
    final = final_accuracies(table)
    write_csv(final, csv)
    write_html_table(final, page, "Accuracies of the final checkpoints on benchmarks (%)")
