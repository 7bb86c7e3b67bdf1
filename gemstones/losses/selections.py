"""Selections and exclusions: named pandas queries over the losses table."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gemstones.errors import UserError
from gemstones.faults import choices
from gemstones.losses.columns import COLUMNS, KEY

if TYPE_CHECKING:
    import pandas as pd

    from gemstones.study import Exclusion


def select(table: pd.DataFrame, query: str, name: str) -> pd.DataFrame:
    """Rows of the losses table that a query names, in the table's order.

    Parameters
    ----------
    query : a pandas query over the table's columns, such as `phase == 'main' and step % 2385 == 0`.
    name : the selection's name, for messages.

    Raises
    ------
    UserError
        If the query cannot be evaluated, matches no row, or matches losses of one checkpoint on several validation sets.
    """
    rows = matching(table, query, f"selections.{name}").reset_index(drop=True)
    check_one_set(rows, f"selections.{name}")
    return rows


def check_one_set(rows: pd.DataFrame, key: str) -> None:
    """Raise UserError, beginning with `key`, where rows have one run and step on several validation sets."""
    checkpoint = [name for name in KEY if name != "validation_set" and name in rows]
    if not {"run", "step", "validation_set"} <= {*rows}:
        return
    known = rows[rows["run"].notna()]
    repeated = known[known.duplicated(checkpoint, keep=False)]
    if len(repeated):
        row = repeated.iloc[0]
        sets = sorted(repeated["validation_set"].unique())
        raise UserError(
            f"{key}: run {row['run']} at step {row['step']} is there on several validation sets ({', '.join(sets)}); say "
            f"which one, such as validation_set == '{sets[0]}'"
        )


def on_validation_set(query: str, validation_set: str) -> str:
    """The query on one validation set; as it is where it names sets itself."""
    names = {
        node.id for node in ast.walk(ast.parse(" ".join(query.split()), mode="eval")) if isinstance(node, ast.Name)
    }
    return query if "validation_set" in names else f"validation_set == '{validation_set}' and ({query})"


def exclude(table: pd.DataFrame, exclusions: Mapping[str, Exclusion]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Take the rows that exclusions name out of the losses table.

    Parameters
    ----------
    table : its index tells rows apart.

    Returns
    -------
    The rows that stay, and those taken out with two more columns: `exclusion` (the first that names the row), `reason`.

    Raises
    ------
    UserError
        If a query cannot be evaluated or matches no row, or no row would stay.
    """
    taken: dict[int, str] = {}
    for name, exclusion in exclusions.items():
        for index in matching(table, exclusion.query, f"losses.exclusions.{name}.query").index:
            taken.setdefault(index, name)
    if taken and len(taken) == len(table):
        raise UserError("losses.exclusions: every row of the losses table is taken out; wanted: some that stay")
    names = [taken[index] for index in sorted(taken)]
    reasons = [exclusions[name].reason for name in names]
    out = table.loc[sorted(taken)].assign(exclusion=names, reason=reasons)
    return table.drop(index=out.index).reset_index(drop=True), out.reset_index(drop=True)


def check_queries(queries: Mapping[str, str]) -> None:
    """Fail early on a query, by its key in the config, that is no expression or names an unknown column: UserError."""
    for key, query in queries.items():
        try:
            tree = ast.parse(" ".join(query.split()), mode="eval")
        except SyntaxError:
            raise UserError(f"{key}: not a query: {query}") from None
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id not in COLUMNS:
                raise UserError(f"{key}: unknown column '{node.id}'; choose one of {', '.join(COLUMNS)}")


def check_covariates(covariates: Mapping[str, Sequence[str]]) -> None:
    """Fail early on a law's covariate, by the law's key in the config, that is no number in the losses table: UserError."""
    known = [name for name, column in COLUMNS.items() if column.dtype != "string" and name != "loss"]
    for key, terms in covariates.items():
        for i, term in enumerate(terms):
            for factor in term.split("*"):
                if factor not in known:
                    raise UserError(f"{key}.{i}: unknown covariate '{factor}'; {choices(factor, known)}")


def matching(table: pd.DataFrame, query: str, key: str) -> pd.DataFrame:
    """Rows that a query names; raises UserError, beginning with `key`, if it is none or matches none."""
    try:
        holds = table.eval(" ".join(query.split()), engine="python")
    except Exception as error:
        raise UserError(f"{key}: {(str(error).splitlines() or [type(error).__name__])[0]} in: {query}") from None
    # A nullable column makes null of what it cannot compare: such a row does not match.
    holds = holds.fillna(False) if hasattr(holds, "fillna") else holds
    if str(getattr(holds, "dtype", None)) not in ("bool", "boolean"):
        raise UserError(f"{key}: not true or false for each row: {query}")
    if not holds.any():
        raise UserError(f"{key}: no row matches: {query}")
    return table[holds]
