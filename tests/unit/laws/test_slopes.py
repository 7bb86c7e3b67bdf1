"""One table of slopes and irreducible losses, with intervals and published values, that LaTeX can read."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from gemstones.laws import fit_huber, fit_hull
from gemstones.laws.power_law import PowerLaw
from gemstones.laws.published import PublishedLaw, compare
from gemstones.laws.slopes import escaped, slopes, to_latex
from gemstones.study import load

CONFIG = {
    "study": "small",
    "losses": {"sources": ["released"]},
    "selections": {"all": "step > 0"},
    "fits": {
        "hull": {"approach": 1, "selection": "all"},
        "two": {"approach": 3, "selection": "all"},
        "wide_law": {"approach": 3, "selection": "all", "covariates": ["width", "depth", "params", "tokens"]},
    },
}


@pytest.fixture(scope="module")
def study():
    return load(CONFIG)


@pytest.fixture(scope="module")
def fits(noisy):
    intervals = {"quantities": {"slope": [0.4, 0.5], "irreducible_loss": None}}
    return {
        "hull": replace(fit_hull(noisy), evidence={"intervals": {"quantities": {"slope_params": [0.1, 0.9]}}}),
        "two": replace(fit_huber(noisy), warnings=("E is 100 % unsure",), evidence={"intervals": intervals}),
        "wide_law": replace(fit_huber(noisy, ("width", "depth", "params", "tokens")), warnings=()),
    }


def test_slopes_are_those_of_the_fits(study, fits):
    table = slopes(study, fits).set_index("fit")
    assert list(table.index) == list(CONFIG["fits"])
    assert table.at["hull", "slope"] == fits["hull"].lines["params"].slope
    assert list(table.loc["hull", ["slope_low", "slope_high"]]) == [0.1, 0.9]
    assert table.at["two", "slope"] == fits["two"].law.slope
    assert list(table.loc["two", ["slope_low", "slope_high"]]) == [0.4, 0.5]
    assert np.isnan(table.at["two", "irreducible_loss_low"])
    # The optimum of a law with width and depth is no power law of the budget.
    assert np.isnan(table.at["wide_law", "slope"])
    assert table.at["wide_law", "irreducible_loss"] == fits["wide_law"].law.irreducible_loss
    assert table["slope_published"].isna().all()


def test_published_values_stand_beside(study, fits, noisy):
    law = PowerLaw(("params", "tokens"), (0.3, 0.2), (6.0, 6.4), 1.5)
    published = compare(study, noisy, fits, {"two": PublishedLaw(law, 0.1)})
    table = slopes(study, fits, published).set_index("fit")
    assert table.at["two", "slope_published"] == pytest.approx(0.4)
    assert table.at["two", "irreducible_loss_published"] == 1.5
    assert np.isnan(table.at["hull", "slope_published"])
    row = published.set_index("fit").loc["two"]
    assert row["params_log_coefficient_published"] == 6.0
    assert row["tokens_log_coefficient_converged"] == fits["two"].law.log_coefficients[1]
    assert published.set_index("fit").at["hull", "intercept_converged"] == fits["hull"].lines["params"].intercept


def test_latex_has_a_row_a_fit_and_escapes_what_is_special(study, fits):
    text = to_latex(slopes(study, fits))
    body = text.split(r"\endfoot")[1].split(r"\end{longtable}")[0]
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert [row.split(" & ")[0] for row in rows] == ["hull", r"two$^\dagger$", "wide law"]
    assert all(row.count(" & ") == 4 for row in rows)
    assert f"{fits['two'].law.slope:.3f} [0.400, 0.500]" in rows[1]
    assert not re.search(r"(?<!\\)[_%#]", text)
    assert text.count(r"\begin") == text.count(r"\end{") == 1
    assert escaped(r"50 % of a_b & {x} \y") == r"50 \% of a\_b \& \{x\} \textbackslash{}y"


def test_a_table_read_back_gives_the_same_latex(study, fits, tmp_path):
    table = slopes(study, fits)
    table.to_csv(tmp_path / "slopes.csv", index=False)
    assert to_latex(pd.read_csv(tmp_path / "slopes.csv")) == to_latex(table)
