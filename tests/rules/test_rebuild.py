"""What is rebuilt after a change, and above all what is not."""

import os
from pathlib import Path

from tests.conftest import snakemake
from tests.dag import count, dry_run

RUN = "results/tiny/training/48x2"


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def steps_trained(project: Path) -> int:
    """Optimizer steps that all runs have ever taken."""
    return sum(path.read_text().count('"train"') for path in project.glob("results/tiny/training/*/metrics/*.jsonl"))


def test_a_finished_study_has_nothing_to_do(project):
    assert dry_run(project) == []


def test_editing_one_fit_reruns_it_and_what_hangs_on_it(project):
    edit(
        project / "config/tiny.yaml",
        "approach_3_all: {approach: 3,",
        "approach_3_all: {huber_delta: 1.0e-3, approach: 3,",
    )
    jobs = dry_run(project)
    assert [job.wildcards["fit"] for job in jobs if job.rule == "law"] == ["approach_3_all"]
    assert {job.wildcards["figure"] for job in jobs if job.rule == "figure"} == {"rainbow", "residuals", "held_out"}
    tables = {"anomaly_effect": 1, "comparison": 1, "slopes": 1}
    assert count(jobs) == {"law": 1, **tables, "prescription": 1, "overtraining": 1, "figure": 3, "overview": 1}


def test_editing_a_selection_reruns_its_fits_and_figures(project):
    edit(project / "config/tiny.yaml", "all: phase == 'main'", "all: phase == 'main' and step > 10")
    planned = dry_run(project)
    assert {job.wildcards["figure"] for job in planned if job.rule == "figure"} >= {"loss_curves", "rainbow"}
    jobs = count(planned)
    assert jobs["law"] == 3
    assert jobs["overspend"] == 1
    assert not any(rule.startswith(("train", "data", "losses")) for rule in jobs)


def test_a_new_fit_redraws_the_figures_whose_colours_it_changes(project):
    edit(
        project / "config/tiny.yaml",
        "fits:\n  approach_1_all:",
        "fits:\n  first: {approach: 3, selection: lr_ablation}\n  approach_1_all:",
    )
    jobs = dry_run(project)
    assert [job.wildcards["fit"] for job in jobs if job.rule == "law"] == ["first"]
    assert {job.wildcards["figure"] for job in jobs if job.rule == "figure"} == {"rainbow", "residuals", "held_out"}


def test_another_fit_that_prescribes_leaves_the_prescriptions_of_the_first(project):
    edit(
        project / "config/tiny.yaml",
        "fits: [approach_3_all]\n  flops_range",
        "fits: [approach_3_all, approach_3_all_no_embeddings]\n  flops_range",
    )
    jobs = dry_run(project)
    assert [job.wildcards["fit"] for job in jobs if job.rule == "prescription"] == ["approach_3_all_no_embeddings"]
    assert not count(jobs)["law"] + count(jobs)["overtraining"]


def test_editing_the_budgets_reruns_the_prescriptions(project):
    edit(project / "config/tiny.yaml", "budgets: 4", "budgets: 5")
    jobs = count(dry_run(project))
    assert (jobs["prescription"], jobs["overtraining"], jobs["law"]) == (1, 0, 0)


def test_the_nodes_of_prescriptions_rerun_what_has_gpu_hours(project):
    edit(project / "config/tiny.yaml", "  budgets: 4", "  budgets: 4\n  nodes: 2")
    jobs = count(dry_run(project))
    assert (jobs["prescription"], jobs["overtraining"], jobs["law"]) == (1, 1, 0)


def test_an_exclusion_reruns_all_after_the_losses_and_no_training(project):
    exclusions = "losses: {exclusions: {early: {query: step < 20, reason: warm-up}}}\n"
    edit(project / "config/tiny.yaml", "selections:\n", f"{exclusions}\nselections:\n")
    jobs = count(dry_run(project))
    assert {"losses", "anomalies", "law", "anomaly_effect", "overspend", "figure"} <= set(jobs)
    assert not any(rule.startswith(("train", "data")) for rule in jobs)


def test_editing_the_counting_reruns_every_table_and_no_training(project):
    with (project / "gemstones/suite/counting.py").open("a") as file:
        file.write("\n# edited\n")
    jobs = count(dry_run(project))
    assert {"suite", "trained_losses", "losses", "law", "prescription", "figure"} <= set(jobs)
    assert not any(rule.startswith(("train_", "data")) for rule in jobs)


def test_editing_a_figures_code_reruns_that_figure(project):
    with (project / "gemstones/figures/rainbow.py").open("a") as file:
        file.write("\n# edited\n")
    jobs = dry_run(project)
    assert [(job.rule, job.wildcards["figure"]) for job in jobs] == [("figure", "rainbow")]


def test_editing_the_fitting_code_reruns_the_fits_and_no_training(project):
    with (project / "gemstones/laws/fit.py").open("a") as file:
        file.write("\n# edited\n")
    jobs = count(dry_run(project))
    assert jobs["law"] == 3
    assert not any(rule.startswith(("train", "data", "losses")) for rule in jobs)


def test_editing_the_training_code_trains_nothing(project):
    for path in project.glob("gemstones/training/*.py"):
        path.write_text(path.read_text() + "\n# edited\n")
    # But the losses are read again, since what reads metrics has changed.
    assert not {rule for rule in count(dry_run(project)) if rule.startswith("train_") or rule == "data"}


def test_nodes_and_walltime_of_a_profile_rerun_nothing(project):
    resources = {rule: {"nodes": 64, "runtime": 13} for rule in ("train_main", "train_lr_ablation", "train_cooldown")}
    assert dry_run(project, resources=resources) == []


def test_touching_small_files_reruns_nothing(project):
    for path in [*project.glob("gemstones/**/*.py"), *project.glob("results/**/*")]:
        if path.is_file() and path.suffix in (".py", ".json", ".parquet", ".csv"):
            os.utime(path)
    assert dry_run(project) == []


def test_a_new_plan_trains_no_step_again(project):
    before = steps_trained(project)
    edit(project / "config/tiny.yaml", "segment_steps: 20", "segment_steps: 10")
    jobs = count(dry_run(project))
    assert jobs["train_main"] > 5
    snakemake(project, "--cores", "2", "train", "--configfile", "config/tiny.yaml")
    assert (project / RUN / "steps/10.json").exists()
    assert steps_trained(project) == before


def test_a_missing_manifest_costs_no_training(project):
    manifest = project / RUN / "steps/20.json"
    content, before = manifest.read_bytes(), steps_trained(project)
    manifest.unlink()
    assert dry_run(project) == []  # nobody needs it
    snakemake(project, "--cores", "1", f"{RUN}/steps/20.json", "--configfile", "config/tiny.yaml")
    assert manifest.read_bytes() == content
    assert steps_trained(project) == before
    assert dry_run(project) == []


def test_a_longer_run_goes_on_from_its_last_checkpoint(project):
    before = steps_trained(project)
    edit(project / "config/tiny.yaml", "main: {steps: 40", "main: {steps: 50")
    target = f"{RUN}/steps/50.json"
    jobs = dry_run(project, targets=(target,))
    assert [(job.rule, job.output) for job in jobs] == [("train_main", [target])]
    snakemake(project, "--cores", "1", target, "--configfile", "config/tiny.yaml")
    assert steps_trained(project) == before + 10
