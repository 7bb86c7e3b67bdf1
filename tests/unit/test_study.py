"""The config: every study loads, and a wrong key is one clear line."""

import json

import pytest

from gemstones.errors import UserError
from gemstones.study import Config, json_schema, load
from tests.conftest import ROOT, config_of


def test_schema_file_is_up_to_date():
    written = json.loads((ROOT / "workflow/schemas/config.schema.json").read_text())
    assert written == json_schema(), "run: python -m gemstones.study > workflow/schemas/config.schema.json"


def test_sections_are_frozen_and_closed():
    for section in Config.__subclasses__():
        assert section.model_config["frozen"] is True
        assert section.model_config["extra"] == "forbid"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["recipe", "lr_bas"], 1, r"recipe\.lr_bas: unknown key; did you mean 'lr_base'\?"),
        (["comparisons"], ["all", "all"], "comparisons: all stands here twice; name each once"),
        (["overtraining", "fits"], ["approach_3_all"] * 2, r"overtraining\.fits: approach_3_all stands here twice"),
        (["runs", "replicates", "seeds"], [2**63], r"runs\.replicates\.seeds\.0: .*less than 9223372036854775808"),
        (["storage"], {"purge_days": 10}, r"storage: .*warn_days: 14 must be less than the 10 of purge_days"),
        (["plan", "walltime_minutes"], "2h", r"plan\.walltime_minutes: .*valid number.*'2h'"),
        (["plan", "walltime_minutes"], -5, r"plan\.walltime_minutes: .*greater than 0.*-5"),
        (["runs", "main", "steps"], "350B", r"runs\.main\.steps: .*valid integer.*'350B'"),
        (["runs", "main", "steps"], 4.5, r"runs\.main\.steps: .*valid integer.*4\.5"),
        (["suite", "shapes"], ["1024-28"], r"suite\.shapes\.0: a shape is written <width>x<depth>"),
        (["suite", "shapes"], ["64x40"], r"suite\.shapes: 64x40 .* not feasible"),
        (["fits", "all", "selection"], "al", r"fits\.all\.selection: unknown selection 'al'; did you mean 'all'\?"),
        (
            ["fits", "all", "covariates"],
            ["parms"],
            r"fits\.all\.covariates\.0: unknown covariate 'parms'; did you mean 'params'\?",
        ),
        (["fits", "all", "covariates"], ["tokens*"], r"fits\.all\.covariates\.0: a covariate is a column"),
        (["fits", "all", "covariates"], ["tokens*parms"], r"fits\.all\.covariates\.0: unknown covariate 'parms'"),
        (
            ["fits", "all", "covariates"],
            ["tokens", "tokens"],
            r"fits\.all\.covariates: name at least one covariate, each once",
        ),
        (
            ["fits", "all", "covariates"],
            ["tokens*tokens"],
            r"fits\.all\.covariates: a product names each of its factors once",
        ),
        (["fits", "all", "approach"], 2, r"fits\.all: .*approach"),
        (["fits", "published"], {"approach": 1, "selection": "all"}, r"fits\.published: this name is taken"),
        (["selections", "all"], "stp > 3", r"selections\.all: unknown column 'stp'; choose one of suite, run"),
        (["selections", "all"], "step >", r"selections\.all: not a query"),
        (
            ["losses", "exclusions"],
            {"a": {"query": "stp > 3", "reason": "x"}},
            r"exclusions\.a\.query: unknown column 'stp'",
        ),
        (
            ["losses", "exclusions"],
            {"a": {"query": "step > 3"}},
            r"losses\.exclusions\.a\.reason: this key is required",
        ),
        (
            ["losses", "exclusions"],
            {"a": {"query": "step > 3", "reason": " "}},
            r"exclusions\.a\.reason: .*1 character",
        ),
        (["figures", "rainbow"], {"kind": "rainbow", "fits": ["x"]}, r"figures\.rainbow\.fits: unknown fit 'x'"),
        (["figures", "a b"], {"kind": "shapes"}, r"figures.*a name has letters, digits and underscores only"),
        (["runs", "cooldown", "anchors"], [9000], r"runs\.cooldown\.anchors: 9000 lies beyond"),
        (["study"], None, r"study: "),
        (["fitz"], {}, r"fitz: unknown key; did you mean 'fits'\?"),
        (
            ["fits", "approach_1_all", "huber_delta"],
            1e-4,
            r"fits\.approach_1_all\.huber_delta: unknown key; choose one of",
        ),
        (
            ["figures", "approach_1", "fits"],
            ["all"],
            r"figures\.approach_1\.fits: unknown Approach 1 fit 'all'",
        ),
        (["figures", "approach_3", "fits"], [], r"figures\.approach_3\.fits: .* draws at least one fit"),
        (
            ["figures", "residuals", "fits"],
            ["approach_1_all"],
            r"residuals\.fits: unknown Approach 3 fit 'approach_1_all'",
        ),
        (["figures", "residuals", "fits"], [], r"figures\.residuals\.fits: .* draws at least one fit"),
        (["comparisons"], ["al"], r"comparisons: unknown selection 'al'; did you mean 'all'\?"),
        (["comparisons"], [], r"figures\.held_out\.kind: the figure needs the section 'comparisons'"),
        (["holdout"], {"tokens_at_most": -1}, r"holdout\.tokens_at_most: .*greater than 0"),
        (["runs"], {"lr_ablation": {"steps": 9}}, r"runs: only lr_transfer does without the section main"),
        (["runs"], {}, r"runs: name at least one of main and lr_transfer"),
        (
            ["figures", "lr_transfer"],
            {"kind": "lr_transfer"},
            r"figures\.lr_transfer\.kind: the figure needs the section 'runs\.lr_transfer'",
        ),
        (
            ["runs"],
            {"main": {"steps": 300, "evaluate_every": 30}, "lr_ablation": {"steps": 300}},
            r"figures\.cooldown\.kind: the figure needs the section 'runs\.cooldown'",
        ),
        (["prescriptions", "flops_range"], [1e18, 1e31], r"prescriptions\.flops_range\.1: .*less than or equal to 10*"),
        (
            ["prescriptions", "reference"],
            True,
            r"prescriptions\.reference: the authors' search is for a suite of head_size 128",
        ),
        (["overspend", "step"], 9000, r"overspend\.step: 9000 lies beyond the main run's"),
        (
            ["figures", "benchmarks"],
            {"kind": "benchmarks"},
            r"figures\.benchmarks\.kind: the figure needs evaluation\.tasks, or 'released' among losses\.sources",
        ),
        (["losses", "sources"], [], r"losses\.sources: name 'trained', 'released' or both"),
        (
            ["figures", "coverage"],
            {"kind": "coverage"},
            r"figures\.coverage\.kind: the figure needs the section 'simulation'",
        ),
        (
            ["early_stopping", "selections"],
            ["al"],
            r"early_stopping\.selections: unknown selection 'al'; did you mean 'all'\?",
        ),
        (["early_stopping"], None, r"figures\.starts\.kind: the figure needs the section 'early_stopping'"),
        (
            ["figures", "rainbow", "published"],
            True,
            r"figures\.rainbow\.published: needs 'released' among losses\.sources",
        ),
        (["bootstrap"], {"resamples": 0}, r"figures\.bootstrap_pairs\.kind: the figure needs bootstrap\.resamples > 0"),
        (["figures", "approach_3", "fits"], ["al"], r"approach_3\.fits: unknown fit with an optimum .* 'al'"),
        (["data", "validation_tokens"], 8, r"data\.validation_tokens: 8 do not fill one context of 64"),
    ],
)
def test_a_wrong_key_is_one_line_with_file_and_key(path, value, message):
    config = config_of("config")
    config["selections"]["all"] = "step > 0"
    config["fits"]["all"] = {"approach": 3, "selection": "all"}
    section = config
    for key in path[:-1]:
        section = section.setdefault(key, {})
    section[path[-1]] = value
    with pytest.raises(UserError, match=message) as caught:
        load(config, "config/my.yaml")
    assert str(caught.value).startswith("config/my.yaml: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            ["scenarios", "few_runs", "law"],
            "params_token",
            r"simulation\.scenarios\.few_runs\.law: unknown law 'params_token'; did",
        ),
        (["laws", "width_depth", "exponents"], [0.3], r"simulation\.laws\.width_depth: .* one entry for each term"),
        (
            ["laws", "width_depth", "errors", "drift_lag"],
            1,
            r"simulation\.laws\.width_depth\.errors\.drift_lag: .*less than 1",
        ),
        (["ahead"], ["4096-32", 1], r"simulation\.ahead\.0: a shape is written <width>x<depth>"),
    ],
)
def test_a_wrong_simulation_is_one_line(path, value, message):
    config = config_of("simulation")
    section = config["simulation"]
    for key in path[:-1]:
        section = section[key]
    section[path[-1]] = value
    with pytest.raises(UserError, match=message) as caught:
        load(config, "config/simulation.yaml")
    assert "\n" not in str(caught.value)


def test_a_study_that_trains_needs_runs():
    with pytest.raises(UserError, match="runs: needed"):
        load({"study": "empty"})


@pytest.mark.parametrize(
    ("study", "changes", "message"),
    [
        (
            "config",
            {"losses": {"sources": ["trained", "evaluated"], "validation_set": "validation"}},
            "evaluation.sets: needed",
        ),
        (
            "config",
            {"losses": {"sources": ["trained", "evaluated"]}, "evaluation": {"sets": {"other": "*.txt"}}},
            "losses.validation_set: needed",
        ),
        ("config", {"evaluation": {"sets": {"validation": "*.txt"}}}, "evaluation.sets: .*choose another"),
        ("released", {"evaluation": {"tasks": ["arc_easy"]}}, "evaluation: the section 'runs' is needed"),
    ],
)
def test_a_wrong_evaluation_is_one_line(study, changes, message):
    with pytest.raises(UserError, match=message) as caught:
        load(config_of(study) | changes)
    assert "\n" not in str(caught.value)


def test_selections_are_on_the_studys_validation_set_unless_they_name_one():
    config = config_of("config")
    config["losses"] = {"validation_set": "a"}
    config["selections"] |= {"other": "validation_set == 'b' and step > 3"}
    study = load(config)
    assert study.selections["all"] == f"validation_set == 'a' and ({config_of('config')['selections']['all']})"
    assert study.selections["other"] == config["selections"]["other"]
    assert load(study.model_dump(mode="json")) == study


def test_only_fits_with_an_optimum_are_drawn_as_prescriptions():
    config = config_of("config")
    config["prescriptions"]["fits"] = ["approach_3_all"]  # and the figure draws one with width and depth
    with pytest.raises(UserError, match=r"approach_3\.fits: .*'approach_3_all_width_depth'"):
        load(config)
    config["figures"] = {"approach_3": {"kind": "approach_3", "fits": ["approach_3_early", "approach_1_all"]}}
    load(config)
