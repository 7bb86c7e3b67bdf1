"""What a figure is drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd

from gemstones.errors import UserError
from gemstones.losses.columns import COLUMNS
from gemstones.losses.selections import select
from gemstones.study import Figure, Study, load

if TYPE_CHECKING:
    from gemstones.laws.fit import HuberFit
    from gemstones.laws.hull import HullFit

T = TypeVar("T")


@dataclass(frozen=True)
class Tables:
    """The tables of a study that a figure may draw, and the figure's row of the config.

    Attributes
    ----------
    losses, shapes : the losses table and the table of shapes (`gemstones.suite.tables.SHAPE_COLUMNS`).
    laws, resamples, prescriptions : by the fit's name, in the order of `figure.fits`.
    others : the further tables of the figure's kind (:mod:`gemstones.figures.kinds`), by name.
    """

    study: Study
    figure: Figure
    losses: pd.DataFrame
    shapes: pd.DataFrame
    laws: Mapping[str, HuberFit | HullFit] = field(default_factory=dict)
    resamples: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    prescriptions: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    others: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    def needed(self, name: str) -> pd.DataFrame:
        """One of the others.

        Raises
        ------
        UserError
            If it is not there, or empty.
        """
        table = self.others.get(name)
        if table is None or table.empty:
            raise UserError(f"figure of kind '{self.figure.kind}': the table '{name}' is not there, or empty")
        return table

    def rows(self, selection: str | None = None) -> pd.DataFrame:
        """Losses of a selection, by default the figure's own; without one, all runs on the main validation set.

        That is the config's, or the one with the most losses where it names none.
        """
        selection = selection or self.figure.selection
        if selection:
            return select(self.losses, self.study.selections[selection], selection)
        runs = self.losses[self.losses["run"].notna()]
        if runs.empty:
            raise UserError(f"figure of kind '{self.figure.kind}': the losses table has no run")
        main = self.study.losses.validation_set or runs["validation_set"].value_counts().sort_index().idxmax()
        return runs[runs["validation_set"] == main].reset_index(drop=True)

    def phase(self, phase: str) -> pd.DataFrame:
        """Rows of one phase of training.

        Raises
        ------
        UserError
            If there is none, since the figure then has nothing to show.
        """
        rows = self.rows()
        found = rows[rows["phase"] == phase].reset_index(drop=True)
        if found.empty:
            where = f"selection '{self.figure.selection}'" if self.figure.selection else "losses table"
            raise UserError(
                f"figure of kind '{self.figure.kind}': the {where} has no row of phase '{phase}'; add runs.{phase} to the "
                "config or remove the figure"
            )
        return found

    def data_ends(self, resource: str = "flops") -> tuple[float, float]:
        """The most training FLOPs, or GPU-hours, that the figure's fits have seen: of the first to extrapolate, and of the last."""
        ends = []
        for selection in {self.study.fits[name].selection for name in self.figure.fits}:
            rows = self.rows(selection)
            used = rows.loc[rows["run"].notna(), resource].dropna()
            ends += [float(used.max())] if len(used) else []
        return (min(ends), max(ends)) if ends else (0.0, 0.0)


def read_tables(inputs: Any, figure: Mapping[str, Any], config: Mapping[str, Any]) -> Tables:
    """Read what the rule gives.

    Parameters
    ----------
    inputs : has the path `shapes` and lists of paths, each of which may be absent or empty: `losses`; `laws`, `resamples`
        and `prescriptions`, whose files are named after fits; `others`, whose files are named after tables.
    figure : the figure's row of the config.
    config : the study's config.
    """
    from gemstones.laws import read as read_law
    from gemstones.losses.table import read

    row = Figure.model_validate(dict(figure))
    return Tables(
        study=load(config),
        figure=row,
        losses=read(inputs.losses) if inputs.losses else pd.DataFrame(columns=[*COLUMNS]),
        shapes=pd.read_csv(inputs.shapes),
        laws=_by_fit(row, {path.stem: read_law(path) for path in _paths(inputs, "laws")}),
        prescriptions=_by_fit(row, {path.stem: pd.read_parquet(path) for path in _paths(inputs, "prescriptions")}),
        resamples=_by_fit(row, {path.stem: pd.read_parquet(path) for path in _paths(inputs, "resamples")}),
        others={path.stem: _read_table(path) for path in _paths(inputs, "others")},
    )


def _paths(inputs: Any, name: str) -> list[Path]:
    value = getattr(inputs, name, [])
    return [Path(value)] if isinstance(value, str | Path) else [Path(path) for path in value]


def _by_fit(figure: Figure, found: Mapping[str, T]) -> dict[str, T]:
    return {name: found[name] for name in figure.fits if name in found}


def _read_table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
