"""The fit card: what it says of a law, where the answers come from, and its page."""

import json
import math
import re
from dataclasses import replace

import pytest

from gemstones import laws
from gemstones.files import write_json
from gemstones.laws.card import card, equation, write_card
from gemstones.study import Approach1, Approach3, Bootstrap, Study

STUDY = Study.model_validate(
    {
        "study": "mine",
        "seed": 7,
        "recipe": {"lr_base": 2.0, "batch_size": 64, "warmup_tokens": 1_000_000},
        "suite": {"context_length": 256, "vocabulary_size": 1000},
        "runs": {"main": {"steps": 24_000, "evaluate_every": 2000}},
        "data": {"corpus": "my/*.txt", "validation_tokens": 4096},
        "selections": {"all": "phase == 'main'"},
    }
)
HUBER = Approach3(approach=3, selection="all", huber_delta=1e-3)
HULL = Approach1(approach=1, selection="all")


@pytest.fixture(scope="module")
def rows(noisy):
    """The noisy rows as those of a study that trains."""
    lr = 2.0 / (noisy["width"] * noisy["depth"] ** 0.5)
    patched = noisy["run"].map(lambda run: run in ("2560x8",))
    lr = lr.where(~patched, 2.0 / (noisy["width"] * 26**0.5))
    return noisy.assign(suite="mine", phase="main", anchor=None, lr=lr)


def fitted(spec, rows):
    """A fit with all its evidence, as the rule makes it."""
    fit = laws.fit(spec, rows, 7, STUDY.selections["all"])
    fit, _ = laws.assess(fit, rows, Bootstrap(resamples=16), 7)
    return replace(fit, evidence={**fit.evidence, "card": card(fit, rows, STUDY)})


@pytest.fixture(scope="module")
def huber(rows):
    return fitted(HUBER, rows)


@pytest.fixture(scope="module")
def hull(rows):
    return fitted(HULL, rows)


def told(fit, section):
    return " | ".join(f"{question} {answer}" for question, answer in fit.evidence["card"][section].items())


def test_a_card_says_what_the_law_is_and_how_it_was_fitted(huber):
    assert "loss = E + exp(c_1 − α_1 · log params" in told(huber, "Form")
    assert f"C^{huber.law.slope:.4g}" in told(huber, "Form")
    fitting = told(huber, "Fitting")
    for said in (
        "δ = 0.001,",
        "weighted? no",
        "alike? yes",
        "Levenberg",
        "1e-14",
        "0 ≤ α_j ≤ 10",
        "12, seed 7",
    ):
        assert said in fitting, said
    data = told(huber, "Data")
    assert "120 rows, 10 runs" in data
    assert "selection all, phase == 'main'" in data
    assert huber.provenance["rows_sha256"] in data
    repeating = told(huber, "Repeating it")
    assert f"numpy {huber.provenance['numpy']}, scipy {huber.provenance['scipy']}" in repeating
    assert "study mine, seed 7" in repeating


def test_a_card_says_how_sure_the_law_is(huber):
    certainty = told(huber, "Certainty")
    assert "minimum? yes" in certainty
    assert f"{huber.gradient_norm:.2g}" in certainty
    assert f"{huber.lowest_curvature:.2g}" in certainty
    low, high = huber.evidence["ranges"]["exponent_params"]
    assert f"exponent_params {low:.4g} to {high:.4g}" in certainty
    low, high = huber.evidence["intervals"]["quantities"]["slope"]
    assert f"slope {low:.4g} to {high:.4g}" in certainty
    assert "95 % interval, expanded percentile, of 16 resamples of 10 runs" in certainty
    assert f"outside {huber.min_flops:.3g} to {huber.max_flops:.3g} FLOPs" in certainty
    assert "identify? no warning" in certainty
    assert "(relative errors): leave one run out? rows 120, runs 10, mean absolute error" in certainty
    assert "(relative errors): short to long?" in certainty


def test_objectives_other_than_the_default_are_named(rows):
    fit = laws.fit_huber(
        rows.assign(weight=2.0), huber_delta=math.inf, weights="weight", overestimate_penalty=3.0, seed=1
    )
    fitting = " ".join(card(replace(fit, warnings=("E is open",)), rows)["Fitting"].values())
    for said in ("least squares", "by column weight", "count 3 times"):
        assert said in fitting, said
    assert "E is open" in card(replace(fit, warnings=("E is open",)), rows)["Certainty"].values()


def test_exclusions_are_named_with_their_reasons(huber, rows):
    losses = {"exclusions": {"spike": {"query": "step == 28620", "reason": "a jump of 0.08"}}}
    study = Study.model_validate({**STUDY.model_dump(), "losses": losses})
    assert card(huber, rows, study)["Data"]["Are outliers dropped?"] == "yes, spike: step == 28620 (a jump of 0.08)"
    assert card(huber, rows, STUDY)["Data"]["Are outliers dropped?"].startswith("no: the study excludes none")


def test_held_out_errors_are_told_where_there_are_some(huber, hull, rows):
    test = {
        "mean_absolute_error": 0.01234,
        "skipped": [],
        "by_run": {"768x3": {"rows": 12}},
        "not_converged": ["a", "b"],
    }
    fit = replace(huber, evidence={**huber.evidence, "held_out": {"leave_one_run_out": test}})
    found = card(fit, rows)["Certainty"]["How far off are its predictions (relative errors): leave one run out?"]
    assert found == "mean absolute error 0.01234, not converged (a; b)"
    test = {"runs": 10, "slopes": {"params": {"lowest": 0.4, "lowest_without": "768x3"}}}
    fit = replace(hull, evidence={**hull.evidence, "held_out": {"leave_one_run_out": test}})
    assert card(fit, rows)["Certainty"]["How stable is it: leave one run out?"] == (
        "runs 10, slopes (params (lowest 0.4, lowest without 768x3))"
    )


def test_a_hull_has_a_card_too(hull):
    assert "log y = slope · log flops + intercept" in told(hull, "Form")
    fitting = told(hull, "Fitting")
    assert f"over the {hull.hull_size} points" in fitting
    assert "binned? no" in fitting
    low, high = hull.evidence["intervals"]["quantities"]["slope_params"]
    assert f"slope_params {low:.4g} to {high:.4g}" in told(hull, "Certainty")
    assert "minimum?" not in told(hull, "Certainty")


def test_a_table_of_which_nothing_is_known_gets_a_card_that_says_so(noisy):
    bare = noisy[["params", "tokens", "loss"]]
    found = card(laws.fit_huber(bare), bare)
    assert found["Training"]["Which optimiser trains the models, and with what settings?"] == "not known"
    assert found["Training"]["How long is each trained?"].startswith("not known; tokens of the rows 8.389e+09 to")
    assert found["Data"]["Are they of final or intermediate checkpoints?"] == "not known"
    assert "all that were given" in found["Data"]["Which rows are fitted?"]
    assert found["Certainty"]["How sure are its parameters?"] == "not computed"
    assert found["Certainty"]["Where does it extrapolate?"] == "outside 2.43e+18 to 1.21e+21 FLOPs"


def test_a_fit_with_its_card_is_read_back_byte_for_byte(huber, hull, tmp_path):
    for fit in (huber, hull):
        write_json(fit.to_json(), tmp_path / "law.json")
        write_json(laws.read(tmp_path / "law.json").to_json(), tmp_path / "again.json")
        assert (tmp_path / "again.json").read_bytes() == (tmp_path / "law.json").read_bytes()
        assert json.loads((tmp_path / "law.json").read_text())["card"] == fit.evidence["card"]


def test_the_page_has_the_numbers_and_the_card(huber, hull, tmp_path):
    write_card(huber, tmp_path / "huber.html", "approach_3_all")
    page = (tmp_path / "huber.html").read_text()
    assert "Fit card of approach_3_all" in page
    assert equation(huber) in page
    for number in (*huber.law.exponents, *huber.evidence["intervals"]["quantities"]["slope"]):
        assert f'<td title="{number}">{number:.4g}</td>' in page
    for section, answers in huber.evidence["card"].items():
        assert f"<h2>{section}</h2>" in page
        assert all(f">{question}</td>" in page for question in answers)
    write_card(hull, tmp_path / "hull.html", "approach_1_all")
    page = (tmp_path / "hull.html").read_text()
    points = page[page.index("<h2>Points of the hull</h2>") :]
    assert points.count("<tr>") == 1 + hull.hull_size
    assert f'title="{hull.hull[0].loss}"' in points
    assert not re.search(r"https?:|src=|href=", page)
