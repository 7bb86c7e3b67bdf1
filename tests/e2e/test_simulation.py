"""A simulation of a few suites, run for real."""

import pandas as pd
import pytest
import yaml

from tests.conftest import config_of, copy_project, snakemake
from tests.dag import count, dry_run

CONFIG = "config/simulation.yaml"
SHAPES = ["256x23", "512x12", "768x3", "256x80", "1280x15", "1792x18", "2560x8", "1536x50"]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """A project in which a small simulation has run."""
    folder = copy_project(tmp_path_factory.mktemp("simulation") / "project")
    config = config_of("simulation")
    config["simulation"] |= {"evaluate_every": 9_275, "parts": 2}
    config["simulation"]["scenarios"] = {
        "few": {"law": "params_tokens", "shapes": SHAPES, "suites": 3, "resamples": 8},
        "wide": {"law": "width_depth", "shapes": SHAPES, "suites": 2, "resamples": 8},
    }
    (folder / CONFIG).write_text(yaml.safe_dump(config))
    snakemake(folder, "--cores", "2", "--configfile", CONFIG)
    return folder


def test_a_simulation_ends_in_coverage_and_its_figure(simulated):
    results = simulated / "results/simulation"
    table = pd.read_csv(results / "laws/coverage.csv")
    assert table.groupby("scenario")["suites"].unique().map(list).to_dict() == {"few": [3], "wide": [2]}
    assert table["coverage"].between(0, 1).all()
    assert {"exponent_depth", "hull_slope_tokens"} <= set(table.loc[table["scenario"] == "wide", "quantity"])
    assert (results / "figures/coverage.png").stat().st_size > 0
    assert "few: coverage, %" in (results / "laws/coverage.html").read_text()
    assert not (results / "losses").exists()


def test_a_lost_part_is_simulated_again_and_alone(simulated):
    assert dry_run(simulated, CONFIG) == []
    part = simulated / "results/simulation/laws/simulation/few-1.parquet"
    before = part.read_bytes()
    part.unlink()
    coverage = simulated / "results/simulation/laws/coverage.csv"
    coverage.unlink()
    assert count(dry_run(simulated, CONFIG)) == {"simulation": 1, "coverage": 1, "figure": 1}
    snakemake(simulated, "--cores", "2", "--configfile", CONFIG)
    assert part.read_bytes() == before


def test_editing_a_scenario_reruns_that_scenario(simulated):
    text = (simulated / CONFIG).read_text()
    try:
        (simulated / CONFIG).write_text(text.replace("suites: 2", "suites: 4"))
        jobs = dry_run(simulated, CONFIG)
        assert {job.wildcards["scenario"] for job in jobs if job.rule == "simulation"} == {"wide"}
    finally:
        (simulated / CONFIG).write_text(text)
