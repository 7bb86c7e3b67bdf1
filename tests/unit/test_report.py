"""Tables as pages."""

import numpy as np
import pandas as pd

from gemstones.report import write_html_table


def test_a_page_holds_every_cell_rounded_and_escaped(tmp_path):
    table = pd.DataFrame(
        {
            "step": pd.array([28620, None], dtype="Int64"),
            "loss": [2.8356052, np.nan],
            "flops": [3.5e21, 1.0],
            "why": ["a < b & c", None],
            "sure": [True, False],
        }
    )
    write_html_table(table, tmp_path / "t.html", "Losses & more", digits=3)
    page = (tmp_path / "t.html").read_text()
    assert "<h2>Losses &amp; more</h2>" in page
    first = '<tr><td>28620</td><td>2.84</td><td>3.5e+21</td><td class="text">a &lt; b &amp; c</td><td class="text">True</td></tr>'
    assert first in page
    assert '<tr><td></td><td></td><td>1</td><td></td><td class="text">False</td></tr>' in page
    assert "http" not in page  # nothing is fetched
    before = (tmp_path / "t.html").read_bytes()
    write_html_table(table, tmp_path / "t.html", "Losses & more", digits=3)
    assert (tmp_path / "t.html").read_bytes() == before


def test_a_long_table_is_cut_and_an_empty_one_says_so(tmp_path):
    write_html_table(pd.DataFrame({"x": range(300)}), tmp_path / "long.html", "Long")
    page = (tmp_path / "long.html").read_text()
    assert "The first 200 of 300 rows; long.csv has all of them." in page
    assert page.count("<tr>") == 1 + 200
    write_html_table(pd.DataFrame({"x": []}), tmp_path / "none.html", "None")
    assert "<p>No rows.</p>" in (tmp_path / "none.html").read_text()
