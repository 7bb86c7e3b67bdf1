"""Tables on a terminal that is too narrow for them: whole columns are left out, and no number is cut."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table


def narrowed(table: Table, console: Console, least: Sequence[str]) -> Table:
    """The table without as many columns as it takes to fit.

    Parameters
    ----------
    least : heads of columns that may be left out, the least important one first.
    """
    for column in table.columns:
        column.no_wrap = column.no_wrap or column.overflow != "fold"
    folds = any(column.overflow == "fold" for column in table.columns)
    for head in least:
        measured = Measurement.get(console, console.options.update(width=10_000), table)
        # The minimum is that of cells broken at spaces, which only columns that fold are.
        if (measured.minimum if folds else measured.maximum) <= console.width:
            break
        table.columns = [column for column in table.columns if column.header != head]
        for place, column in enumerate(table.columns):
            column._index = place
    return table
