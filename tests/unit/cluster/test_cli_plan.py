"""`gemstones plan`: the plan in tables or JSON, or one line that says what is wrong."""

import json
from functools import partial

import pytest
import yaml

from tests import commands
from tests.conftest import ROOT, config_of

run, refused = partial(commands.run, "plan"), partial(commands.refused, "plan")

FRONTIER = ROOT / "config/frontier.yaml"


@pytest.mark.parametrize("detail", [(), ("--runs",), ("--jobs",)])
def test_the_plan_fits_a_hundred_columns(detail):
    out, _ = run("--config", FRONTIER, "--for", 8, *detail)
    assert max(map(len, out.splitlines())) <= 100
    lines = [line.split() for line in out.splitlines()]
    assert ["all", "241", "729", "1,022", "29,212", "30,208", "233,693", "3.81e+22", "23.6", "%", "7.81", "TB"] in lines
    for said in ("makespan", "extended", "every run on", "8 nodes", "typically off by 8 %", "a guess"):
        assert said in out
    last = {(): "3072x12", ("--runs",): "3072x12-cooldown-21465", ("--jobs",): "3072x12-cooldown-21465"}[detail]
    assert any(line and line[0] == last for line in lines)


def test_json_has_all_of_it_and_nothing_else():
    out, _ = run("--config", FRONTIER, "--for", 32, "--jobs", "--json")
    found = json.loads(out)
    assert [*found] == ["study", "totals", "makespan", "runs", "jobs", "what_if", "assumptions"]
    assert (len(found["runs"]), len(found["jobs"])) == (241, 729)
    assert found["totals"][-1]["node_hours"] == pytest.approx(29_211.58, abs=0.01)
    assert found["what_if"][1]["plan"] == "32 nodes"


def test_another_queue_and_another_wait():
    out, _ = run("--config", FRONTIER, "--queue", "extended", "--wait-minutes", 30, "--json")
    found = json.loads(out)
    assert [(row["queue"], row["wait_minutes"]) for row in found["makespan"]] == [
        ("extended", 0), ("extended", 30), ("extended", 120),
    ]  # fmt: skip
    assert found["totals"][-1]["jobs"] < 300


def test_the_default_is_the_default_study(monkeypatch):
    monkeypatch.chdir(ROOT)
    out, _ = run()
    assert "~0.01287" in out  # not measured
    assert "15 by plan.flops_per_second" in out


def changed(tmp_path, **plan):
    config = config_of("frontier")
    config["plan"] |= plan
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    return tmp_path / "mine.yaml"


def test_a_plan_beyond_its_budget_is_shown_and_refused(tmp_path):
    run("--config", changed(tmp_path, budget_node_hours=30_500))
    out, err = run("--config", changed(tmp_path, budget_node_hours=25_000), code=1)
    assert "29,212" in out
    assert err == (
        "error: plan.budget_node_hours: 0 node-hours spent and 30,208 still planned are 30,208, of 25,000; "
        "raise the budget by 5,209, or plan less under 'runs'\n"
    )


def test_shapes_that_were_not_measured_are_planned_by_the_model(tmp_path):
    config = config_of("frontier")
    config["suite"]["pinned"].append("1536x16")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    out, _ = run("--config", tmp_path / "mine.yaml")
    row = next(line.split() for line in out.splitlines() if line.split()[:1] == ["1536x16"])
    assert row[3] == "32"  # as 1280x36, the nearest in parameters
    assert row[4].startswith("~")
    assert "22 measured, 1 by the model" in out


def test_what_is_wrong_is_one_line(tmp_path):
    assert refused("--config", tmp_path / "no.yaml").startswith(
        f"{tmp_path}/no.yaml: No such file or directory; wanted: "
    )
    bad = tmp_path / "bad.yaml"
    bad.write_text("study: mini\nplan: {queue: [}\n")
    assert refused("--config", bad).startswith(f"{bad}:2: no valid YAML: ")
    bad.write_text("- mini\n")
    assert refused("--config", bad) == f"{bad}: wanted: a study's config, such as config/config.yaml"
    bad.write_bytes(b"study: \xff\n")
    assert refused("--config", bad) == f"{bad}: no text in UTF-8, so no YAML"
    bad.write_text("study: mini\nplans: {}\n")
    assert refused("--config", bad).startswith(f"{bad}: plans: ")
    assert refused("--config", FRONTIER, "--queue", "bach").startswith("--queue: unknown queue 'bach'; ")
    assert "has none under plan.queues" in refused("--config", ROOT / "config/config.yaml", "--queue", "batch")
    assert "the study trains nothing" in refused("--config", ROOT / "config/released.yaml")
    assert "--for" in refused("--config", FRONTIER, "--for", 0)
    assert "--for" in refused("--config", FRONTIER, "--for", "many")


def test_help_has_an_example():
    out, _ = run("--help")
    assert "gemstones plan --config config/frontier.yaml --for 16" in out
