"""`gemstones prescribe`: a study whose laws are made up, asked in every way that there is."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml

from gemstones.files import write_json
from gemstones.laws import PowerLaw
from gemstones.losses.columns import COLUMNS
from gemstones.prescriptions.optimum import prescribe
from gemstones.prescriptions.screen import _value
from gemstones.study import load
from gemstones.suite import counting
from gemstones.suite.runs import main_runs, segments
from gemstones.suite.shapes import architecture
from tests.commands import refused, run
from tests.conftest import ROOT, copy_project
from tests.dag import count, dry_run
from tests.unit.prescriptions.test_bands import fit_of, resamples_of

NAME = "approach_3_all_width_depth"
LAW = PowerLaw(("width", "depth", "params", "tokens"), (0.3, 0.4, 0.35, 0.45), (1.0, -0.5, 3.4, 6.4), 1.2)
SECONDS_PER_FLOP = 5e-11
# What the comparison of the study has found, as `choose` writes it.
OTHER = {
    "fit": "approach_3_all",
    "law": "params, tokens",
    "parameters": 5,
    "error": 0.0101,
    "above_best": 0.005,
    "above_best_se": 0.001,
}
BEST = {
    "fit": NAME,
    "law": "width, depth, params, tokens",
    "parameters": 9,
    "error": 0.0051,
    "above_best": 0.0,
    "above_best_se": 0.0,
}
UNTESTED = [
    {
        **dict.fromkeys(BEST),
        "fit": f"{row['fit']}_interaction",
        "law": str(row["law"]).replace("tokens", "tokens*params"),
    }
    for row in (OTHER, BEST)
]
CHOICE = {
    "fit": NAME, "selection": "all", "chosen_by": "held-out error", "best": BEST, "candidates": [OTHER, BEST, *UNTESTED],
    "said": "",
}  # fmt: skip


@pytest.fixture(scope="module")
def results(mini, tmp_path_factory) -> Path:
    """What `prescribe` reads of a finished study `mini`: a law, its resamples, and losses with speeds."""
    folder = tmp_path_factory.mktemp("results")
    fit = replace(fit_of(LAW), selection="all", max_flops=1e12)
    write_json(fit.to_json(), folder / "mini/laws" / f"{NAME}.json")
    shifted = [replace(LAW, irreducible_loss=1.2 + shift) for shift in (-0.1, 0, 0.1)]
    resamples_of(shifted).to_parquet(folder / "mini/laws" / f"{NAME}.parquet")
    write_json(CHOICE, folder / "mini/laws/choice.json")
    rows = [
        {
            "suite": "mini", "run": run.name, "phase": "main", "width": run.width, "depth": run.depth, "step": 300,
            "tokens": 300 * 2048.0, "num_nodes": 1, "gpus": 4, "gpu_hours": 0.01,
            "seconds_per_step": SECONDS_PER_FLOP
            / 4
            * 2048
            * counting.flops_per_token(run.width, run.depth, architecture(mini.suite)),
        }
        for run in main_runs(mini)
    ]  # fmt: skip
    (folder / "mini/losses").mkdir()
    pd.DataFrame(rows).reindex(columns=[*COLUMNS]).to_parquet(folder / "mini/losses/losses.parquet")
    return folder


def ask(results: Path, *arguments: object) -> dict:
    out, _ = run("prescribe", "--results", results, *arguments, "--json")
    return json.loads(out)


def test_the_optimum_is_that_of_the_table_with_its_intervals(results, mini):
    found = ask(results, "--flops", "1e11")
    expected = prescribe(LAW, [1e11], mini.suite).set_index("variant")
    for variant in ("relaxed", "feasible"):
        for name in ("width", "depth", "tokens", "loss"):
            assert found[variant][name] == pytest.approx(expected.loc[variant][name])
    assert found["feasible"]["steps"] == -(-found["feasible"]["tokens"] // 2048)
    low, high = found["relaxed"]["intervals"]["loss"]
    assert low < found["relaxed"]["loss"] < high
    assert found["feasible"]["gpu_hours"] == pytest.approx(1e11 * SECONDS_PER_FLOP / 3600)
    assert (found["extrapolated"], found["law"]["name"], found["speed"]["nodes"]) == (False, NAME, 1)


def test_the_law_is_the_one_that_predicts_unseen_runs_best(results, mini):
    assert mini.main_fit != "approach_3_all"
    assert ask(results, "--flops", "1e11")["law"]["held_out"].endswith("the least of all forms that were compared")
    chosen = results.parent / "chosen"
    shutil.copytree(results, chosen)
    write_json({**CHOICE, "fit": "approach_3_all"}, chosen / "mini/laws/choice.json")
    for suffix in (".json", ".parquet"):
        shutil.copy(chosen / "mini/laws" / f"{NAME}{suffix}", chosen / "mini/laws" / f"approach_3_all{suffix}")
    assert ask(chosen, "--flops", "1e11")["law"]["name"] == "approach_3_all"


def test_another_law_says_how_much_worse_it_predicts(results, tmp_path):
    shutil.copytree(results, tmp_path / "results")
    laws = tmp_path / "results/mini/laws"
    for suffix in (".json", ".parquet"):
        shutil.copy(laws / f"{NAME}{suffix}", laws / f"approach_3_all{suffix}")
    found = ask(tmp_path / "results", "--flops", "1e11", "--law", "approach_3_all")
    (told,) = [warning for warning in found["warnings"] if "held-out" in warning]
    assert told == (
        "approach_3_all is 1.01 % off a run that it has not seen: 0.500 ± 0.100 percentage points more than width, depth, "
        f"params, tokens, the best form; by held-out error, {NAME} would prescribe"
    )


def test_without_the_comparison_it_says_how_to_make_it(results, tmp_path):
    shutil.copytree(results, tmp_path / "results")
    (tmp_path / "results/mini/laws/choice.json").unlink()
    message = refused("prescribe", "--results", tmp_path / "results", "--flops", "1e11")
    assert "choice.json: not found; `snakemake -c2" in message
    assert ask(tmp_path / "results", "--flops", "1e11", "--law", NAME)["law"]["held_out"] is None
    choice = tmp_path / "results/mini/laws/choice.json"
    for text, told in (
        ("[]", "no choice of a law"),
        (
            json.dumps({**CHOICE, "selection": "hot"}),
            "was made for other fits than those of config/config.yaml; `snakemake",
        ),
        (json.dumps({**CHOICE, "candidates": [OTHER, BEST]}), "was made for other fits"),
    ):
        choice.write_text(text)
        assert told in refused("prescribe", "--results", tmp_path / "results", "--flops", "1e11")
        assert ask(tmp_path / "results", "--flops", "1e11", "--law", NAME)["law"]["held_out"] is None


@pytest.fixture
def trained(results, mini, tmp_path) -> Path:
    """The same study, whose runs have losses: those of the law."""
    shutil.copytree(results, tmp_path / "results")
    path = tmp_path / "results/mini/losses/losses.parquet"
    table = pd.concat(
        [
            pd.read_parquet(path).assign(step=step, tokens=step * 2048.0, gpu_hours=step * 1e-4)
            for step in (30, 100, 300)
        ]
    )
    shapes = [(int(width), int(depth)) for width, depth in zip(table["width"], table["depth"], strict=True)]
    params = [float(counting.params(*shape, architecture(mini.suite))) for shape in shapes]
    flops = [counting.flops_per_token(*shape, architecture(mini.suite)) for shape in shapes] * table["tokens"]
    table = table.assign(params=params, flops=flops, validation_set="held_out")
    table.assign(loss=LAW.predict(table)).to_parquet(path)
    return tmp_path / "results"


def test_the_answer_is_held_against_the_runs(trained):
    found = ask(trained, "--flops", "2e11")["against_runs"]
    # It prescribes smaller models than any that was trained, and nothing is known of noise.
    assert (found["verdict"], found["in_interval"]) == ("unproven", None)
    assert [abs(run["deviation"]) < 1e-2 for run in found["runs"]] == [True] * len(found["runs"])
    out, _ = run("prescribe", "--results", trained, "--flops", "2e11")
    assert out.split("\n")[1].startswith("unproven: the law misses the 5 lowest of ")
    assert "runs at this budget: the 5 lowest" in out
    assert found["runs"][0]["run"] in out
    path = trained / "mini/losses/losses.parquet"
    pd.read_parquet(path).eval("loss = 1.05 * loss").to_parquet(path)
    assert ask(trained, "--flops", "2e11")["against_runs"]["verdict"] == "do not plan by this"


def test_hours_are_held_against_the_runs_too(trained):
    found = ask(trained, "--gpu-hours", "0.01")["against_runs"]
    assert "that have spent 0.01 GPU-hours" in found["said"]


def test_without_runs_it_says_that_none_can_confirm_it(trained, tmp_path):
    beyond = ask(trained, "--flops", "1e14")["against_runs"]
    assert (beyond["verdict"], beyond["runs"]) == ("no runs", [])
    assert beyond["said"] == "no run has spent 1e+14 FLOPs: none can confirm this prescription"
    shutil.copy(trained / f"mini/laws/{NAME}.json", tmp_path / "alone.json")
    alone = ("prescribe", "--law", tmp_path / "alone.json", "--flops", "1e20")
    assert json.loads(run(*alone, "--json")[0])["against_runs"] is None
    assert "no runs are at hand to hold this against" in run(*alone)[0]


def test_the_screen_says_shape_cost_and_what_is_beyond_the_data(results):
    out, _ = run("prescribe", "--results", results, "--flops", "1e11")
    shape = ask(results, "--flops", "1e11")["feasible"]
    for text in (
        "1e+11 FLOPs",
        f"{shape['width']:.0f}x{shape['depth']:.0f}",
        "node-hours",
        "shapes, typically off by 0.0 %",
    ):
        assert text in out
    assert "extrapol" not in out
    beyond, _ = run("prescribe", "--results", results, "--flops", "1e14")
    assert "[beyond the data: extrapolated]" in beyond
    assert "1e+14 FLOPs are 100 times the most that the law was fitted to" in beyond.replace("\n", " ")


def test_all_ways_to_name_one_budget_give_one_answer(results):
    by_flops = ask(results, "--flops", "1e11")
    relaxed = by_flops["relaxed"]
    hours = relaxed["gpu_hours"]
    for option, value in (
        ("--gpu-hours", hours), ("--node-hours", hours / 4), ("--tokens", relaxed["tokens"]), ("--params", relaxed["params"]),
    ):  # fmt: skip
        # All FLOPs take as long here, so that a budget of hours is one of FLOPs.
        found = ask(results, option, repr(value))["relaxed"]
        assert {key: found[key] for key in ("width", "tokens", "loss")} == pytest.approx(
            {key: relaxed[key] for key in ("width", "tokens", "loss")}, rel=1e-4
        )


def test_a_laws_file_alone_is_enough(results, published, tmp_path):
    write_json(fit_of(published).to_json(), tmp_path / "law.json")
    found = ask(results, "--flops", "1e21", "--law", tmp_path / "law.json")
    assert (found["feasible"]["width"], found["feasible"]["depth"]) == (2560, 45)
    assert found["speed"] is None
    said = "; ".join(found["warnings"])
    assert "no intervals" in said
    assert "vocabulary 50,304" in said
    nodes = ("--nodes", 4, "--law", tmp_path / "law.json")
    assert "law.json has no speeds; name the study" in refused("prescribe", "--flops", 1e21, *nodes)
    assert "ask for --flops" in refused("prescribe", "--gpu-hours", 10, "--law", tmp_path / "law.json")


def test_a_damaged_losses_table_is_one_line(trained):
    path = trained / "mini/losses/losses.parquet"
    pd.read_parquet(path).drop(columns="seed").to_parquet(path)
    asked = ("prescribe", "--results", trained, "--flops", "1e11")
    assert f"{path}: no column 'seed'; it was made by another version" in refused(*asked)
    path.write_bytes(path.read_bytes()[:1000])
    assert f"{path}: not read: " in refused(*asked)


@pytest.mark.parametrize("covariates", [None, ("params", "tokens")])
def test_a_table_that_is_not_of_the_laws_resamples_is_refused(two_covariates, published, tmp_path, covariates):
    write_json(fit_of(published).to_json(), tmp_path / "law.json")
    asked = ("prescribe", "--flops", "1e21", "--law", tmp_path / "law.json")
    table = tmp_path / "law.parquet"
    if covariates:
        resamples_of([two_covariates] * 3).to_parquet(table)
        said = f"{table}: not of the law beside it (exponent_depth, exponent_width, log_coefficient_depth); wanted: columns"
    else:
        table.write_bytes(b"PAR1 and no more")
        said = f"{table}: not read: "
    assert said in refused(*asked)


def test_another_studys_law_is_named_by_its_file(results, published, mini, tmp_path):
    file = tmp_path / "law.json"
    write_json(fit_of(published).to_json(), file)
    asked = ("--flops", "1e11", "--law", file, "--config", ROOT / "config/config.yaml")
    law = ask(results, *asked)["law"]
    assert (law["name"], law["study"], law["max_gpu_hours"]) == (str(file), None, None)
    out, _ = run("prescribe", "--results", results, *asked)
    assert f"by {file}" in out.replace("\n", "")
    own = ask(results, *asked[:3], results / "mini/laws" / f"{NAME}.json", *asked[4:])
    assert own["law"] == ask(results, "--flops", "1e11")["law"]
    assert (own["law"]["name"], own["law"]["study"]) == (NAME, "mini")


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("params", 999.9e6, "1B"), ("params", 999.4e6, "999M"), ("tokens", 999_600, "1M"), ("tokens", 12.34e9, "12.3B"),
        ("tokens", 2e18, "2,000P"), ("params", 0.5, "0.5"), ("aspect_ratio", 999.7, "1,000"), ("width", 999.97, "1,000"),
        ("width", 512.0, "512"),
    ],
)  # fmt: skip
def test_numbers_are_rounded_before_their_unit_is_chosen(name, value, shown):
    assert _value(name, value) == shown


def test_a_written_config_trains_the_shape_for_its_tokens(results, mini, tmp_path):
    file = tmp_path / "next.yaml"
    out, _ = run("prescribe", "--results", results, "--flops", "1e11", "--write-config", file)
    feasible = ask(results, "--flops", "1e11")["feasible"]
    shape = f"{feasible['width']:.0f}x{feasible['depth']:.0f}"
    study = load(yaml.safe_load(file.read_text()), str(file))
    (trained,) = main_runs(study)
    assert (trained.shape, trained.steps) == (shape, feasible["steps"])
    of_mini = {run.shape: run for run in main_runs(mini)}.get(shape)
    changed = {"name", "phase", "width", "depth", "scaling_depth", "lr", "steps"}
    assert trained.model_dump(exclude=changed) == (of_mini or main_runs(mini)[0]).model_dump(exclude=changed)
    assert study.plan.throughput[shape].seconds_per_step * trained.steps / 3600 == pytest.approx(
        feasible["node_hours"], rel=0.01
    )
    assert f"{trained.steps:,} steps" in out
    plan, _ = run("plan", "--config", file)
    assert shape in plan
    before = file.read_text()
    assert "is there already" in refused("prescribe", "--results", results, "--flops", "2e11", "--write-config", file)
    assert file.read_text() == before


def test_a_dry_run_of_a_written_config_shows_its_jobs(results, tmp_path):
    project = copy_project(tmp_path / "project")
    run("prescribe", "--results", results, "--flops", "1e11", "--write-config", project / "config/next.yaml")
    jobs = count(dry_run(project, "config/next.yaml"))
    study = load(yaml.safe_load((project / "config/next.yaml").read_text()))
    assert jobs["train_main"] == len(segments(study))
    assert {"data", "losses", "figure"} <= set(jobs)


def test_sizes_beyond_the_fitted_ones_are_a_warning(results, tmp_path):
    law = tmp_path / "law.json"
    write_json(
        replace(fit_of(LAW), evidence={"fitted_ranges": {"params": [1, 2000], "tokens": [1, 1e30]}}).to_json(), law
    )
    found = ask(results, "--flops", "1e11", "--law", law, "--config", ROOT / "config/config.yaml")
    (warning,) = [warning for warning in found["warnings"] if "no fitted model" in warning]
    assert "such params (" in warning
    assert "fitted 1 to 2k)" in warning
    assert "tokens" not in warning


def test_a_study_is_found_by_its_name_among_other_files(results, tmp_path, monkeypatch):
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "bad.yaml").write_text("study: [")
    (folder / "mine.yaml").write_text((ROOT / "config/config.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    assert ask(results, "--flops", "1e11", "--study", "mini")["law"]["study"] == "mini"
    (folder / "other.yaml").write_text((ROOT / "config/config.yaml").read_text())
    said = refused("prescribe", "--results", results, "--flops", "1e11", "--study", "mini")
    assert "config/mine.yaml, config/other.yaml are all of study 'mini'" in said


def test_a_study_that_trains_nothing_does_not_say_how_to_train(published, tmp_path):
    write_json(fit_of(published).to_json(), tmp_path / "law.json")
    asked = ("--flops", 1e21, "--config", ROOT / "config/released.yaml", "--law", tmp_path / "law.json")
    said = refused("prescribe", *asked, "--write-config", tmp_path / "next.yaml")
    assert "released trains nothing" in said
    assert f"--config config/frontier.yaml --law {tmp_path / 'law.json'}" in said


def test_a_config_needs_a_study_and_a_plan_that_is_possible(results, published, tmp_path):
    write_json(fit_of(published).to_json(), tmp_path / "law.json")
    config = ("--write-config", tmp_path / "next.yaml")
    assert "name the study" in refused("prescribe", "--flops", 1e20, "--law", tmp_path / "law.json", *config)
    frontier = ("--law", tmp_path / "law.json", "--config", ROOT / "config/frontier.yaml", *config)
    assert "with more --nodes" in refused("prescribe", "--flops", 1e22, *frontier)
    nowhere = tmp_path / "no" / "next.yaml"
    assert f"there is no folder {nowhere.parent}" in refused("prescribe", "--flops", 1e21, *frontier[:-1], nowhere)
    assert not nowhere.parent.exists()
    out, _ = run("prescribe", "--flops", 1e21, *frontier)
    assert "training.micro_batch_size is 2" in out
    assert load(yaml.safe_load((tmp_path / "next.yaml").read_text())).training.micro_batch_size == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "wanted: one of --flops, --gpu-hours, --node-hours, --tokens, --params"),
        (("--flops", 1, "--params", 1), "given: 2"),
        (("--gpu-hours", -1), "--gpu-hours is -1; wanted: a number greater than 0"),
        (("--flops", 10), "10 FLOPs do not pay for one token of the smallest shape, 16x1"),
        (("--flops", 1e37), "1e+37 FLOPs: no law reaches so far; wanted: at most 1e+30"),
        (("--flops", 1e308), "at most 1e+30"),
        (("--gpu-hours", 1e30), "1e+30 GPU-hours: no law reaches so far; wanted: at most 1.4e+16"),
        (("--node-hours", 1e308), "GPU-hours: no law reaches so far"),
        (("--params", 1e20), "at 1e+30"),
        (("--flops", 1e11, "--study", "minni"), "did you mean 'mini'?"),
        (("--flops", 1e11, "--study", "mini", "--config", "x.yaml"), "name the study once"),
        (("--flops", 1e11, "--law", "approach_1_all"), "is no fit of approach 3 with tokens in config/config.yaml"),
        (("--flops", 1e11, "--law", "approach_3_all"), "approach_3_all.json --configfile config/config.yaml` makes it"),
        (("--flops", 1e11, "--law", "nowhere.json"), "nowhere.json: no such file"),
        (("--tokens", 0.1), "no budget has an optimum of 0.1 training tokens"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(results, arguments, said):
    assert said in refused("prescribe", "--results", results, *arguments)
