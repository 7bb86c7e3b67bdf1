"""Tables as pages for the report: self-contained HTML whose columns sort at a click."""

from __future__ import annotations

import html
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any

import pandas as pd

from gemstones.files import write_text

# Longer tables would make the report heavy; the CSV beside the page has all rows.
MAX_ROWS = 200
DIGITS = 4
CSS = (
    "body{font:14px/1.4 system-ui,sans-serif;margin:1.5em}table{border-collapse:collapse;margin:0 0 1.5em}"
    "th,td{padding:.2em .7em;border-bottom:1px solid #ddd;text-align:right;white-space:nowrap;"
    "font-variant-numeric:tabular-nums}"
    "td.text{text-align:left;white-space:normal;max-width:50em}"
    "thead th{border-bottom:2px solid #666;position:sticky;top:0;background:#fff;cursor:pointer}"
    "h2{font-size:1.05em}p{color:#555}"
)
# Numbers by value, then texts, then empty cells; a second click turns the order round.
SORT = """document.querySelectorAll("th").forEach(head => head.onclick = () => {
  const body = head.closest("table").tBodies[0], up = head.dataset.up = head.dataset.up === "1" ? "0" : "1";
  const key = row => row.cells[head.cellIndex].textContent, rank = text => text === "" ? 2 : isNaN(text) ? 1 : 0;
  const order = (a, b) => rank(a) - rank(b) || (up === "1" ? 1 : -1) * (rank(a) ? a.localeCompare(b) : a - b);
  [...body.rows].sort((a, b) => order(key(a), key(b))).forEach(row => body.append(row));
});"""


def write_html_table(table: pd.DataFrame, path: str | Path, title: str, digits: int = DIGITS) -> None:
    """Write a table as a page, whole or not at all; equal tables give equal bytes.

    Parameters
    ----------
    path : of the page; beyond 200 rows it refers to the `.csv` of the same name.
    digits : significant digits of numbers that are not whole.
    """
    write_text(page({title: table}, title, f"{Path(path).stem}.csv", digits), path)


def page(tables: Mapping[str, pd.DataFrame], title: str, csv: str, digits: int = DIGITS) -> str:
    """A self-contained page of tables by heading; `csv` is the file that has the rows left out."""
    head = f"<title>{html.escape(title)}</title><style>{CSS}</style>"
    parts = [f'<!doctype html><html lang="en"><meta charset="utf-8">{head}']
    for heading, table in tables.items():
        parts.append(f"<h2>{html.escape(heading)}</h2>")
        if len(table) > MAX_ROWS:
            parts.append(f"<p>The first {MAX_ROWS} of {len(table)} rows; {html.escape(csv)} has all of them.</p>")
        parts.append(_table(table.head(MAX_ROWS), digits) if len(table) else "<p>No rows.</p>")
    return "\n".join([*parts, f"<script>{SORT}</script>", "</html>\n"])


def _table(table: pd.DataFrame, digits: int) -> str:
    names = "".join(f"<th>{html.escape(str(name))}</th>" for name in table.columns)
    rows = ("".join(_cell(value, digits) for value in row) for row in table.itertuples(index=False, name=None))
    return "\n".join([f"<table><thead><tr>{names}</tr></thead><tbody>", *(f"<tr>{row}</tr>" for row in rows)]) + (
        "\n</tbody></table>"
    )


def _cell(value: Any, digits: int) -> str:
    """Numbers to a few significant digits, whole ones in full up to a million."""
    if value is None or pd.isna(value):
        return "<td></td>"
    if isinstance(value, bool) or not isinstance(value, Real):
        return f'<td class="text">{html.escape(str(value))}</td>'
    number = float(value)
    whole = number.is_integer() and abs(number) < 1e6
    return f"<td>{number:.0f}</td>" if whole else f"<td>{number:.{digits}g}</td>"
