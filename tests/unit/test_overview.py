"""The first page of a report, from the tables of a small study."""

from dataclasses import replace

import pandas as pd
import pytest

from gemstones.laws.power_law import PowerLaw
from gemstones.overview import findings, overview, trained_tokens
from tests.conftest import ROOT
from tests.unit.prescriptions.test_bands import fit_of

TEMPLATE = ROOT / "workflow/report/workflow.rst"


@pytest.fixture
def tables(mini):
    shape = {"suite": "mini", "phase": "main", "width": 16, "depth": 2, "params": 2.6e4, "tokens": 6e5, "flops": 1e11}
    shape |= {"suite": "mini", "step": 300, "anchor": None}
    losses = pd.DataFrame([{**shape, "run": "16x2"}, {**shape, "run": "64x1", "width": 64, "depth": 1, "params": 5e4}])
    slope = {
        "fit": "approach_3_all",
        "approach": 3,
        "selection": "all",
        "param_count": "params",
        "resource": "flops",
        "huber_delta": 1e-4,
        "slope": 0.7,
        "slope_low": 0.6,
        "slope_high": 0.8,
        "slope_published": None,
        "irreducible_loss": 1.9,
        "irreducible_loss_low": None,
        "irreducible_loss_high": None,
        "unsure": "slope",
        "warnings": "E is open",
    }
    overspend = pd.DataFrame(
        [
            ("step", "16x2", 0.0),
            ("step", "64x1", 0.5),
            ("trajectories", "16x2", 0.01),
            ("trajectories", "16x2", 2.0),
            ("trajectories", "64x1", 0.3),
            ("trajectories", "64x1", 0.4),
        ],
        columns=["frontier", "run", "overspend_interpolated"],
    ).assign(resource="flops", step=300, num_nodes=1)
    prescribed = pd.DataFrame(
        {
            "resource": "flops",
            "variant": ["feasible", "relaxed"],
            "flops": 1e12,
            "width": [48, 47.2],
            "depth": [3, 3.1],
            "params": 1e5,
            "tokens": 1e6,
            "loss": [4.123, 4.122],
            "extrapolated": True,
            "beyond_fitted": ["params", None],
            "aspect_ratio": [16.0, 15.2],
            "aspect_ratio_low": [None, 12.0],
            "aspect_ratio_high": [None, 19.0],
            "loss_low": None,
            "loss_high": None,
        }
    )
    costs = pd.DataFrame(
        {
            "fit": "approach_3_all",
            "resource": "flops",
            "budget": 1e11,
            "factor": [1.0, 4.0],
            "extrapolated": False,
            "loss_increase": [0, 0.0321],
            "loss_increase_low": [0, 0.02],
            "loss_increase_high": [0, 0.05],
        }
    )
    return {"losses": losses, "slopes": pd.DataFrame([slope, slope | {"fit": "mine", "warnings": None}]), "overspend": overspend, "overtraining": costs,
            mini.main_fit: prescribed}  # fmt: skip


def test_it_says_what_was_found(mini, tables):
    page = " ".join(overview(mini, tables, TEMPLATE).split())
    assert "2 runs of 2 shapes with 26k to 50k parameters and width/depth from 8 to 64, up to 600k tokens" in page
    assert '"A3 all ‡", "0.700 (~ 0.60 to 0.80)", "1.90 (no interval)"' in page
    assert '"mine", "0.700' in page
    assert '"10¹² \\* †", "48x3", "100k", "1M", "15.2 (12 to 19)", "4.123"' in page
    assert "1 of 2 runs come within 2 % of the frontier of all checkpoints" in page
    assert "64x1 never needs less than 30 % more" in page
    assert "the median of the 2 runs that it reaches is 25 % and the most 50 % (64x1)" in page
    assert (
        "on a smaller model for the same budget, 2 times the optimal tokens cost 0.0321 nats per token (0.0200 to 0.0500)."
        in page
    )


def test_it_says_what_the_runs_say_of_a_prescription(mini, tables):
    said = {"verdict": "usable", "lowest_loss": 4.11, "deviation_low": -0.002, "deviation_high": 0.0031}
    relaxed = tables[mini.main_fit]["variant"] == "relaxed"
    held = tables[mini.main_fit].assign(
        **{name: relaxed.map({True: value, False: None}) for name, value in said.items()}
    )
    page = " ".join(overview(mini, tables | {mini.main_fit: held}, TEMPLATE).split())
    assert '"4.123", "4.110", "-0.20 … +0.31 %", "usable"' in page
    assert "how far the law is off the lowest of them" in page
    assert '"4.123", "", "", "no run"' in " ".join(overview(mini, tables, TEMPLATE).split())


def test_it_says_how_size_and_data_interact_in_the_law_that_prescribes(mini, tables):
    law = PowerLaw(("params", "tokens*params"), (0.3, (0.5, -0.2)), (3.0, 6.0), 1.0)
    evidence = {"intervals": {"quantities": {"exponent_params_in_tokens*params": [-0.25, -0.125]}}}
    fit = replace(fit_of(law), selection="all", evidence=evidence)
    errors = {"params, tokens*params": 0.002, "params, tokens": 0.0051}
    compared = pd.DataFrame(
        [
            {
                "selection": "all",
                "parameters_from": "fitted here",
                "law": law,
                "leave_one_run_out_mean_absolute_error": error,
            }
            for law, error in errors.items()
        ]
    ).assign(small_to_large_mean_absolute_error=0.01, short_to_long_mean_absolute_error=0.01)
    page = " ".join(overview(mini, {"comparison": compared}, TEMPLATE, laws={mini.main_fit: fit}).split())
    assert "the term of tokens grows with params^0.200 (0.125 to 0.250)." in page
    assert "misses runs that it has not seen by 0.51 % instead of 0.20 %" in page
    additive = fit_of(PowerLaw(("params", "tokens"), (0.3, 0.5), (3.0, 6.0), 1.0))
    assert "**Size and data" not in overview(mini, tables, TEMPLATE, laws={mini.main_fit: additive})


def test_tokens_of_cooldowns_count_from_their_branch():
    rows = pd.DataFrame(
        {
            "suite": "mini",
            "run": ["64x1", "64x1", "64x1-cooldown-100", "64x1-cooldown-100"],
            "step": [100, 200, 100, 110],
            "tokens": [1e5, 2e5, 1e5, 1.1e5],
            "anchor": pd.array([None, None, 100, 100], dtype="Int64"),
        }
    )
    assert trained_tokens(rows) == pytest.approx(2e5 + 1e4)


def test_it_is_silent_on_what_a_study_does_not_have(mini):
    page = overview(mini, {}, TEMPLATE)
    assert "Study mini" in page
    for heading in ("Models", "Laws", "Form", "Prescriptions", "costs", "Benchmarks", "As published"):
        assert f"**{heading}" not in page
    assert findings(mini, {})["overspend"] is None
