"""A drawn figure and the files it becomes: SVG, PDF, PNG, the drawn data as CSV, and all of it as a page for the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from gemstones.figures.style import RC
from gemstones.files import write_csv, write_with
from gemstones.report import write_html_table

# Without dates, so that the same figure is the same file.
METADATA: dict[str, dict[str, None]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}


@dataclass(frozen=True)
class Drawing:
    """A figure with what it shows.

    Attributes
    ----------
    data : exactly what is drawn, tidy, with units in the names of columns.
    tables : further tables for the report, by title, such as slopes.
    """

    figure: Figure
    data: pd.DataFrame
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)


def save(drawing: Drawing, stem: str | Path, caption: str = "") -> None:
    """Write `<stem>.svg`, `.pdf`, `.png`, `.csv` and `.html`, each whole or not at all; equal drawings give equal bytes.

    Parameters
    ----------
    caption : reStructuredText, for the page, which also has the figure and its tables.
    """
    stem = Path(stem)
    with mpl.rc_context(RC):
        drawing.figure.draw_without_rendering()
        drawing.figure.set_layout_engine(None)  # laid out once; the formats share the result
        for form, metadata in METADATA.items():
            path = stem.with_name(f"{stem.name}.{form}")

            def write(temporary: Path, form: str = form, metadata: dict[str, None] = metadata) -> None:
                drawing.figure.savefig(temporary, format=form, metadata=metadata)

            write_with(write, path)
    write_csv(drawing.data, stem.with_name(f"{stem.name}.csv"))
    tables = {**drawing.tables, "Drawn data": drawing.data}
    page, title = stem.with_name(f"{stem.name}.html"), stem.name.replace("_", " ")
    write_html_table(tables, page, title, caption, picture=stem.with_name(f"{stem.name}.png"))
