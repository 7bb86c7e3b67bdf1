"""The report of the study of tests, opened in a real browser."""

import pytest

from tests.browser import look_through
from tests.conftest import snakemake
from tests.debian import Unavailable


@pytest.fixture
def report(project):
    path = project / "results/tiny/report.html"
    snakemake(project, "--configfile", "config/tiny.yaml", "--report", str(path))
    return path


def test_every_figure_table_and_card_shows_in_a_browser(report):
    try:
        seen = look_through(report)
    except Unavailable as reason:
        pytest.skip(f"no Chromium here: {reason}")
    assert seen.faults == []
    shown = {category: set(entries) for category, entries in seen.shown.items()}
    assert ("Figures", "loss_curves") in shown["2 Losses"]
    assert ("Tables", "anomalies") in shown["2 Losses"]
    assert {("Figures", "rainbow"), ("Fits", "approach_3_all"), ("Tables", "without_anomalies")} <= shown["3 Laws"]
    assert ("Figures", "overspend") in shown["4 Prescriptions"]
