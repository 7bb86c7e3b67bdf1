"""Tables as pages."""

import re

import numpy as np
import pandas as pd

from gemstones.report import write_html_table


def test_a_page_holds_every_cell_rounded_and_escaped(tmp_path):
    table = pd.DataFrame(
        {
            "step": pd.array([28620, None], dtype="Int64"),
            "final_loss": [2.8356052, np.nan],
            "flops": [3.5e21, 1.0],
            "why": ["a < b & c", None],
            "sure": [True, False],
        }
    )
    write_html_table(table, tmp_path / "t.html", "Losses & more", "Two <rows>.")
    page = (tmp_path / "t.html").read_text()
    assert "<h1>Losses &amp; more</h1><p>Two &lt;rows&gt;.</p>" in page.replace("\n", "")
    # Rounded cells carry the exact value, heads the column's name.
    assert (
        '<tr><td>28620</td><td title="2.8356052">2.836</td><td title="3500000000000000000000">3.5e+21</td>'
        '<td class="text">a &lt; b &amp; c</td><td class="text">True</td></tr>'
    ) in page
    assert '<tr><td></td><td></td><td>1</td><td></td><td class="text">False</td></tr>' in page
    assert '<th title="final_loss">final loss</th>' in page
    assert '<th class="text" title="why">why</th>' in page
    before = (tmp_path / "t.html").read_bytes()
    write_html_table(table, tmp_path / "t.html", "Losses & more", "Two <rows>.")
    assert (tmp_path / "t.html").read_bytes() == before


def test_a_page_is_self_contained_and_sorts(tmp_path):
    write_html_table({"First": pd.DataFrame({"x": [1]}), "Second": pd.DataFrame({"y": [2]})}, tmp_path / "t.html", "T")
    page = (tmp_path / "t.html").read_text()
    assert not re.search(r"https?:|src=|href=|@import|url\(", page)  # nothing is fetched
    assert page.index("<h2>First</h2>") < page.index("<h2>Second</h2>")
    assert page.count("<table>") == 2
    assert page.count("<script>") == 1
    assert 'querySelectorAll("th")' in page
    assert ".onclick" in page


def test_a_long_table_is_cut_and_an_empty_one_says_so(tmp_path):
    write_html_table(pd.DataFrame({"x": range(300)}), tmp_path / "long.html", "Long")
    page = (tmp_path / "long.html").read_text()
    assert "The first 200 of 300 rows; long.csv has all of them." in page
    assert page.count("<tr>") == 1 + 200
    write_html_table(pd.DataFrame({"x": []}), tmp_path / "none.html", "None")
    assert "<p>No rows.</p>" in (tmp_path / "none.html").read_text()
