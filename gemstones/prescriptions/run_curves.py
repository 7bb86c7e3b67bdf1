"""Losses of runs along what they have spent, to be asked for any budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gemstones.laws.rows import run_names

if TYPE_CHECKING:
    from gemstones.study import Resource

Array = NDArray[np.float64]


def checkpoints_of(rows: pd.DataFrame, losses: pd.DataFrame) -> pd.DataFrame:
    """All rows that the losses table has of the runs of a selection: a selection may leave out where they were at a budget.

    Of cooldowns, those of the selection alone: a cooldown's start and its end are losses of different kinds.
    """
    if "anchor" in rows and rows["anchor"].notna().any():
        return rows
    key = [name for name in ("suite", "run", "phase", "validation_set") if name in rows and name in losses]
    wanted = rows[key].drop_duplicates()
    return losses.merge(wanted, on=key, how="inner")


@dataclass(frozen=True)
class Curves:
    """What each run had come to after so much of a resource: logs of its columns, to be interpolated in the log of what it had spent.

    Attributes
    ----------
    columns : of the table that :meth:`at` gives, after `run`.
    runs : name, log of the resource (n,) ascending, and logs of the columns (n, columns), NaN where the rows have none.
    """

    resource: Resource
    columns: tuple[str, ...]
    runs: tuple[tuple[str, Array, Array], ...]

    @classmethod
    def of(cls, rows: pd.DataFrame, resource: Resource, columns: Sequence[str] = ()) -> Curves:
        """Curves of the runs of some rows, with `width`, `depth`, `params`, further columns, `tokens` and `loss`."""
        wanted = tuple(dict.fromkeys(["width", "depth", "params", *columns, "tokens", "loss"]))
        names = run_names(rows) if {resource, "tokens", "loss"} <= set(rows) else None
        if names is None:
            return cls(resource, wanted, ())
        if "suite" in rows and rows["suite"].nunique() > 1:
            names = rows["suite"].astype(str).to_numpy(dtype=str) + " " + names
        known = [name for name in wanted if name in rows]
        whole = (rows[[resource, *known]].astype(float) > 0).all(axis=1).to_numpy()
        found = []
        for run, of_run in rows[whole].groupby(names[whole], sort=True):
            # A cooldown counts with its main run, whose losses are other ones at the same budget.
            if "phase" in of_run and of_run["phase"].nunique(dropna=False) > 1:
                continue
            if {"anchor", "step"} <= set(of_run) and (of_run["step"] == of_run["anchor"]).nunique() > 1:
                continue  # starts and ends of cooldowns lie on no one curve
            numbers = np.log(of_run.sort_values(resource)[[resource, *known]].to_numpy(float))
            values = np.full((len(numbers), len(wanted)), np.nan)
            values[:, [wanted.index(name) for name in known]] = numbers[:, 1:]
            found.append((str(run), numbers[:, 0], values))
        return cls(resource, wanted, tuple(found))

    def at(self, budget: float) -> pd.DataFrame:
        """The runs that have spent a budget: `run` and the columns there, lowest loss first."""
        log_budget, found = np.log(budget), []
        for run, spent, values in self.runs:
            if len(spent) >= 2 and spent[0] <= log_budget <= spent[-1]:
                found.append([run, *(float(np.exp(np.interp(log_budget, spent, column))) for column in values.T)])
        table = pd.DataFrame(found, columns=["run", *self.columns])
        return table.sort_values("loss", ignore_index=True)
