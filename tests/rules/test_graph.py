"""The static graph: what each study would run, told by Snakemake itself."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, config_of, copy_project, snakemake
from tests.dag import count, dry_run


@pytest.fixture(scope="module")
def fresh(tmp_path_factory) -> Path:
    """A project in which nothing has run."""
    return copy_project(tmp_path_factory.mktemp("fresh") / "project")


def test_the_full_study_shows_every_job(fresh, frontier):
    jobs = count(dry_run(fresh, "config/frontier.yaml"))
    assert 404 <= jobs["train_main"] <= 411
    assert jobs["train_lr_ablation"] == 119
    assert jobs["train_cooldown"] == 199
    assert jobs["law"] == len(frontier.fits)
    assert jobs["figure"] == len(frontier.figures)
    chains = {job.wildcards["run"] for job in dry_run(fresh, "config/frontier.yaml") if job.rule.startswith("train_")}
    assert len(chains) == 22 + 20 + 199


def test_mini_trains_and_released_does_not(fresh, mini):
    jobs = count(dry_run(fresh, "config/config.yaml"))
    assert jobs["train_main"] == 2 * 15
    assert jobs["train_lr_ablation"] == 2 * len(mini.runs.lr_ablation.shapes)
    assert jobs["train_cooldown"] == len(mini.runs.cooldown.shapes)
    assert not jobs["published_laws"]
    released = count(dry_run(fresh, "config/released.yaml"))
    assert released["released_losses"] == released["published_laws"] == 1
    assert released["benchmarks"] == released["downstream"] == 1
    assert not jobs["benchmarks"] + jobs["downstream"]
    assert not any(rule.startswith("train") for rule in released)
    assert jobs["ledger"] == 1
    assert not released["ledger"]


def test_a_study_may_compare_learning_rates_and_nothing_else(fresh):
    target = ("results/lr_transfer/figures/lr_transfer.png",)
    jobs = dry_run(fresh, "config/lr_transfer.yaml", target)
    one_each = dict.fromkeys(["suite", "data", "trained_losses", "losses", "figure"], 1)
    assert count(jobs) == {**one_each, "train_lr_transfer": 4}
    frontier = dry_run(fresh, "config/lr_transfer_frontier.yaml", ("train",))
    assert {job.rule for job in frontier} == {"data", "train_lr_transfer"}
    assert len({job.wildcards["run"] for job in frontier if job.rule == "train_lr_transfer"}) == 24


def test_an_ablation_of_cooldowns_hangs_on_the_main_run(fresh):
    config = yaml.safe_load((fresh / "config/tiny.yaml").read_text())
    config["runs"]["cooldown_ablation"] = {"anchors": [20, 40], "fractions": [0.1, 0.3], "shapes": ["48x2"]}
    (fresh / "config/ablation.yaml").write_text(yaml.safe_dump(config))
    jobs = dry_run(fresh, "config/ablation.yaml", ("train",))
    plain = dry_run(fresh, "config/tiny.yaml", ("train",))
    assert count(jobs) == {**count(plain), "train_cooldown_ablation": 4}
    target = ("results/tiny/training/48x2-cooldown-40-30/steps/51.json",)
    assert [job.rule for job in dry_run(fresh, "config/ablation.yaml", target)] == [
        "data", "train_main", "train_main", "train_cooldown_ablation",
    ]  # fmt: skip


def test_checkpoints_are_evaluated_only_where_that_is_asked_for(fresh):
    config = yaml.safe_load((fresh / "config/tiny.yaml").read_text())
    plain = count(dry_run(fresh, "config/tiny.yaml"))
    assert not any("evaluated" in rule or "lm_eval" in rule for rule in plain)
    config["evaluation"] = {"sets": {"other": "other/*.txt"}, "tasks": ["arc_easy"]}
    config["losses"] = {"sources": ["trained", "evaluated"], "validation_set": "validation"}
    (fresh / "config/evaluated.yaml").write_text(yaml.safe_dump(config))
    runs = 9  # two of which are trained in one job
    assert count(dry_run(fresh, "config/evaluated.yaml")) == {**plain, "evaluated_run": runs, "evaluated_losses": 1}
    benchmarks = count(dry_run(fresh, "config/evaluated.yaml", ("benchmarks_evaluated",)))
    assert (benchmarks["lm_eval"], benchmarks["benchmarks_evaluated"], benchmarks["evaluated_run"]) == (runs, 1, 0)
    # A figure of them is asking for it.
    config["figures"]["benchmarks"] = {"kind": "benchmarks"}
    (fresh / "config/drawn.yaml").write_text(yaml.safe_dump(config))
    drawn = dry_run(fresh, "config/drawn.yaml")
    assert (count(drawn)["lm_eval"], count(drawn)["benchmarks"]) == (runs, 0)
    (figure,) = (job for job in drawn if job.wildcards.get("figure") == "benchmarks")
    assert "results/tiny/evaluation/benchmarks.parquet" in figure.input
    done = snakemake(fresh, "-n", "benchmarks_evaluated", "--configfile", "config/tiny.yaml", check=False)
    assert "error: evaluation.tasks: names no task" in done.stderr


def test_a_simulation_needs_no_losses(fresh):
    config = "config/simulation.yaml"
    simulation = config_of("simulation")["simulation"]
    parts = len(simulation["scenarios"]) * simulation["parts"]
    assert count(dry_run(fresh, config)) == {"suite": 1, "simulation": parts, "coverage": 1, "figure": 1, "overview": 1}
    assert count(dry_run(fresh, config, ("laws",))) == {"simulation": parts, "coverage": 1}
    one = "results/simulation/laws/simulation/few_runs-0.parquet"
    assert count(dry_run(fresh, config, (one,))) == {"simulation": 1}


def test_one_fit_needs_the_table_and_nothing_beside(fresh):
    target = "results/released/laws/approach_3_all.json"
    jobs = dry_run(fresh, "config/released.yaml", (target,))
    assert count(jobs) == {"released_losses": 1, "losses": 1, "law": 1}


def test_anomalies_and_their_effect_need_the_table_and_no_fit(fresh):
    target = "results/released/laws/without_anomalies.csv"
    jobs = dry_run(fresh, "config/released.yaml", (target,))
    assert count(jobs) == {"released_losses": 1, "losses": 1, "anomalies": 1, "anomaly_effect": 1}
    assert {"anomalies", "anomaly_effect"} <= set(count(dry_run(fresh, "config/config.yaml")))


def test_a_job_waits_for_the_one_before_it(fresh):
    target = "results/mini/training/32x1-cooldown-270/steps/296.json"
    jobs = dry_run(fresh, "config/config.yaml", (target,))
    assert [job.output[0].removeprefix("results/mini/training/") for job in jobs] == [
        "data/manifest.json", "32x1/steps/150.json", "32x1/steps/300.json", "32x1-cooldown-270/steps/296.json",
    ]  # fmt: skip


def test_the_default_profile_shares_no_key_with_another():
    """A key of profiles/default silently replaces the same key of the profile that the user names."""
    keys = {path.parent.name: set(yaml.safe_load(path.read_text())) for path in ROOT.glob("profiles/*/config.yaml")}
    default = keys.pop("default")
    assert keys
    for name, others in keys.items():
        assert not default & others, name


def test_the_frontier_profile_is_found_by_its_name():
    command = [str(Path(sys.executable).with_name("snakemake")), "--profile", "frontier", "-n", "-q", "rules"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "train_cooldown" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"recipe": {"lr_bas": 1}}, "config/bad.yaml: recipe.lr_bas: unknown key; did you mean 'lr_base'?"),
        (
            {"losses": {"exclusions": {"x": {"query": "stp < 20", "reason": "x"}}}},
            "config/bad.yaml: losses.exclusions.x.query: unknown column 'stp'",
        ),
        ({"plan": {"walltime_minutes": "2h"}}, "config/bad.yaml: plan.walltime_minutes: "),
        (
            {"overtraining": {"fits": ["none"], "flops": [1e9]}},
            "config/bad.yaml: overtraining.fits: unknown Approach 3 fit",
        ),
    ],
)
def test_a_bad_config_is_one_line(fresh, section, message):
    config = {**yaml.safe_load((fresh / "config/tiny.yaml").read_text()), **section}
    (fresh / "config/bad.yaml").write_text(yaml.safe_dump(config))
    done = snakemake(fresh, "-n", "--configfile", "config/bad.yaml", check=False)
    assert done.returncode != 0
    shown = done.stdout + done.stderr
    assert message in shown
    assert "Traceback" not in shown


def test_archives_are_made_only_where_they_are_wanted(fresh, monkeypatch):
    config = {**config_of("frontier"), "storage": {"archive": "$ARCHIVE/gemstones", "purge_days": 90}}
    (fresh / "config/archived.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("ARCHIVE", "/somewhere/else")
    # Nothing is trained for it.
    shown = snakemake(fresh, "-n", "archive", "--configfile", "config/archived.yaml")
    assert "rule archive" in shown.stdout + shown.stderr
    assert "train_" not in shown.stdout + shown.stderr
    done = snakemake(fresh, "-n", "archive", "--configfile", "config/tiny.yaml", check=False)
    assert done.returncode != 0
    assert "error: storage.archive: not set" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_step_without_a_job_is_named(fresh):
    target = "results/tiny/training/48x2/steps/33.json"
    done = snakemake(fresh, "-n", target, "--configfile", "config/tiny.yaml", check=False)
    assert done.returncode != 0
    assert "no job brings 48x2 to step 33: its jobs stop at 20, 40" in done.stdout + done.stderr
