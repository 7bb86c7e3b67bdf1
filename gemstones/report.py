"""Figures and tables as pages for the report: self-contained HTML with tables whose columns sort at a click."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any

import pandas as pd

from gemstones.files import write_text

# Longer tables would make the report heavy; the CSV beside the page has all rows.
MAX_ROWS = 200
DIGITS = 4
# Longer texts may take several lines.
LONG = 40
# Without wrapper: the page itself scrolls, so that the heads of rows and of columns stay in sight.
CSS = """body { font: 14px/1.45 system-ui, sans-serif; color: #222; margin: 1.5em }
h1 { font-size: 1.3em } h2 { font-size: 1.05em; margin: 1.6em 0 .4em } p { color: #555; max-width: 60em } img { max-width: 100%; width: 1000px }
table { border-collapse: separate; border-spacing: 0; font-variant-numeric: tabular-nums }
th, td { padding: .25em .7em; border-bottom: 1px solid #ddd; text-align: right; vertical-align: top; white-space: nowrap }
.text { text-align: left } td.long { white-space: pre-line; min-width: 18em; max-width: 50em; overflow-wrap: anywhere }
th { position: sticky; top: 0; z-index: 1; background: #fff; border-bottom: 2px solid #666; vertical-align: bottom;
  white-space: normal; max-width: 9em; cursor: pointer }
td:first-child { position: sticky; left: 0; background: #fff; border-right: 1px solid #ddd }
th:first-child { left: 0; z-index: 2; max-width: none } td:first-child:nth-last-child(2) { white-space: normal; min-width: 20em; max-width: 20em }
tbody tr:hover td { background: #f3f6fa }
th[aria-sort=ascending]::after { content: " ▲" } th[aria-sort=descending]::after { content: " ▼" }"""
# Numbers by their exact value, then texts, then empty cells; a second click turns the order round.
SORT = """document.querySelectorAll("th").forEach(head => head.onclick = () => {
  const body = head.closest("table").tBodies[0], up = head.getAttribute("aria-sort") !== "ascending";
  [...head.parentNode.cells].forEach(other => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const key = row => row.cells[head.cellIndex].title || row.cells[head.cellIndex].textContent;
  const rank = text => text === "" ? 2 : isNaN(text) ? 1 : 0;
  const order = (a, b) => rank(a) - rank(b) || (up ? 1 : -1) * (rank(a) ? a.localeCompare(b) : a - b);
  [...body.rows].sort((a, b) => order(key(a), key(b))).forEach(row => body.append(row));
});"""


def write_html_table(
    table: pd.DataFrame | Mapping[str, pd.DataFrame],
    path: str | Path,
    title: str,
    note: str = "",
    max_rows: int = MAX_ROWS,
    picture: Path | None = None,
) -> None:
    """Write a table, or several by heading, as one page, whole or not at all; equal tables give equal bytes.

    Parameters
    ----------
    path : of the page; beyond `max_rows` rows it refers to the `.csv` of the same name.
    note : what the reader should know first, in reStructuredText.
    picture : a PNG to stand before the tables.
    """
    head = f"<title>{html.escape(title)}</title><style>{CSS}</style>"
    parts = [f'<!doctype html><html lang="en"><meta charset="utf-8">{head}<h1>{html.escape(title)}</h1>']
    if picture:
        encoded = base64.b64encode(picture.read_bytes()).decode()
        parts.append(f'<img alt="{html.escape(title)}" src="data:image/png;base64,{encoded}">')
    if note:
        parts.append(_text(note))
    for heading, each in ({"": table} if isinstance(table, pd.DataFrame) else table).items():
        if heading:
            parts.append(f"<h2>{html.escape(heading)}</h2>")
        if len(each) > max_rows:
            parts.append(f"<p>The first {max_rows} of {len(each)} rows; {Path(path).stem}.csv has all of them.</p>")
        parts.append(_table(each.head(max_rows)) if len(each) else "<p>No rows.</p>")
    write_text("\n".join([*parts, f"<script>{SORT}</script>", "</html>\n"]), path)


def number(value: float) -> str:
    """A number to four significant digits; whole ones in full up to a million."""
    whole = float(value).is_integer() and abs(value) < 1e6
    return f"{value:.0f}" if whole else f"{value:.{DIGITS}g}"


def _text(source: str) -> str:
    """Paragraphs as HTML; of reStructuredText, what captions use: **strong**, *emphasis* and ``code``."""
    text = html.escape(source.strip(), quote=False)
    for mark, tag in ((r"\*\*", "strong"), ("``", "code"), (r"\*", "em")):
        text = re.sub(rf"(?<![\w*`]){mark}(?=\S)(.+?)(?<=\S){mark}(?![\w*`])", rf"<{tag}>\1</{tag}>", text, flags=re.S)
    return "".join(f"<p>{paragraph}</p>" for paragraph in re.split(r"\n\s*\n", text))


def _table(table: pd.DataFrame) -> str:
    columns = [[_cell(value) for value in table.iloc[:, j]] for j in range(table.shape[1])]
    heads = "".join(_head(str(name), cells) for name, cells in zip(table.columns, columns, strict=True))
    rows = "\n".join(f"<tr>{''.join(row)}</tr>" for row in zip(*columns, strict=True))
    return f"<table><thead><tr>{heads}</tr></thead><tbody>\n{rows}\n</tbody></table>"


def _head(name: str, cells: list[str]) -> str:
    text = ' class="text"' if any('class="text' in cell for cell in cells) else ""
    # Spaces let a long name break; the name itself, as in the CSV, is the title.
    return f'<th{text} title="{html.escape(name)}">{html.escape(name.replace("_", " "))}</th>'


def _cell(value: Any) -> str:
    if value is None or pd.isna(value):
        return "<td></td>"
    if isinstance(value, bool) or not isinstance(value, Real):
        text = str(value)
        return f'<td class="text{" long" * (len(text) > LONG)}">{html.escape(text)}</td>'
    exact = float(value)
    shown, title = number(exact), f"{exact:.0f}" if exact.is_integer() else str(exact)
    return f"<td>{shown}</td>" if shown == title else f'<td title="{title}">{shown}</td>'
