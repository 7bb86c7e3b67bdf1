"""Selections: named pandas queries over the losses table."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import TYPE_CHECKING

from gemstones.errors import UserError
from gemstones.losses.columns import COLUMNS

if TYPE_CHECKING:
    import pandas as pd


def select(table: pd.DataFrame, query: str, name: str) -> pd.DataFrame:
    """Rows of the losses table that a query names, in the table's order.

    Parameters
    ----------
    query : a pandas query over the table's columns, such as `phase == 'main' and step % 2385 == 0`.
    name : the selection's name, for messages.

    Raises
    ------
    UserError
        If the query cannot be evaluated or matches no row.
    """
    try:
        rows = table.query(" ".join(query.split()), engine="python")
    except Exception as error:
        raise UserError(f"selections.{name}: {str(error).splitlines()[0]} in: {query}") from None
    if rows.empty:
        raise UserError(f"selections.{name}: no row of the losses table matches: {query}")
    return rows.reset_index(drop=True)


def check_selections(selections: Mapping[str, str]) -> None:
    """Fail early on a query that is no expression or names an unknown column: raises UserError."""
    for name, query in selections.items():
        try:
            tree = ast.parse(" ".join(query.split()), mode="eval")
        except SyntaxError:
            raise UserError(f"selections.{name}: not a query: {query}") from None
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id not in COLUMNS:
                raise UserError(f"selections.{name}: unknown column '{node.id}'; choose one of {', '.join(COLUMNS)}")
