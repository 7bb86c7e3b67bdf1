"""Reports of whole studies, opened in a real browser."""

import os

import pytest

from tests.browser import Seen, look_through
from tests.conftest import config_of, copy_project, snakemake
from tests.debian import Unavailable


def shown(project, config: str, report: str) -> Seen:
    """What a study's report shows, of which nothing is at fault."""
    snakemake(project, "--configfile", config, "--report", report)
    try:
        seen = look_through(project / report)
    except Unavailable as reason:
        pytest.skip(f"no Chromium here: {reason}")
    assert seen.faults == []
    return seen


def test_every_figure_table_and_card_shows_in_a_browser(project):
    seen = shown(project, "config/tiny.yaml", "results/tiny/report.html")
    entries = {category: set(entries) for category, entries in seen.shown.items()}
    assert ("Figures", "loss_curves") in entries["2 Losses"]
    assert ("Tables", "anomalies") in entries["2 Losses"]
    assert {("Figures", "rainbow"), ("Fits", "approach_3_all"), ("Tables", "without_anomalies")} <= entries["3 Laws"]
    assert ("Figures", "overspend") in entries["4 Prescriptions"]
    assert "Study tiny" in seen.overview
    assert "5 shapes with" in seen.overview


@pytest.mark.slow
@pytest.mark.parametrize("name", ["config", "released"])
def test_all_figures_and_fits_of_a_study_show(name, tmp_path):
    if name == "released" and not os.environ.get("GEMSTONES_DATA"):
        pytest.skip("GEMSTONES_DATA does not name a folder with the authors' released data")
    project, config = copy_project(tmp_path / "project"), config_of(name)
    snakemake(project, "--cores", "2", "--configfile", f"config/{name}.yaml")
    entries = shown(project, f"config/{name}.yaml", f"results/{config['study']}/report.html").shown.values()
    found = {entry for category in entries for entry in category}
    assert {figure for kind, figure in found if kind == "Figures"} == set(config["figures"])
    assert {fit for kind, fit in found if kind == "Fits"} == set(config["fits"])
