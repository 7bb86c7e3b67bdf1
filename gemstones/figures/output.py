"""A drawn figure and the files it becomes: SVG, PDF, PNG, the drawn data as CSV, and an HTML page for the report."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from gemstones.figures.style import RC
from gemstones.files import write_csv, write_text, write_with

# Without dates, so that the same figure is the same file.
METADATA: dict[str, dict[str, None]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
HTML_ROWS = 200
CSS = (
    "body{font:14px/1.4 system-ui,sans-serif;margin:1.5em}table{border-collapse:collapse;margin:0 0 1.5em}"
    "th,td{padding:.2em .7em;border-bottom:1px solid #ddd;text-align:right;white-space:nowrap;"
    "font-variant-numeric:tabular-nums}"
    "thead th{border-bottom:2px solid #666;position:sticky;top:0;background:#fff}h2{font-size:1.05em}p{color:#555}"
)


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


def save(drawing: Drawing, stem: str | Path) -> None:
    """Write `<stem>.svg`, `.pdf`, `.png`, `.csv` and `.html`, each whole or not at all; equal drawings give equal bytes."""
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
    write_text(to_html(drawing, stem.name), stem.with_name(f"{stem.name}.html"))


def to_html(drawing: Drawing, name: str) -> str:
    """A self-contained page with the further tables and the head of the drawn data."""
    title = html.escape(name.replace("_", " "))
    parts = [f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{CSS}</style>']
    for heading, table in {**drawing.tables, f"Drawn data: {name.replace('_', ' ')}": drawing.data}.items():
        parts.append(f"<h2>{html.escape(heading)}</h2>")
        if len(table) > HTML_ROWS:
            parts.append(f"<p>The first {HTML_ROWS} of {len(table)} rows; {html.escape(name)}.csv has all of them.</p>")
        parts.append(table.head(HTML_ROWS).map(_cell).to_html(index=False, border=0))
    return "\n".join(parts) + "\n</html>\n"


def _cell(value: object) -> str:
    """Four significant digits, whole numbers in full up to a million."""
    if value is None or value is pd.NA or value != value:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if float(value).is_integer() and abs(value) < 1e6:
        return f"{int(value)}"
    return f"{value:.4g}"
