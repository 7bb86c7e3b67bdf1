"""Fits with and without anomalous rows."""

import pandas as pd
import pytest

from gemstones.laws import fit_huber, fit_hull
from gemstones.laws.sensitivity import without_flagged
from gemstones.study import Study


@pytest.fixture(scope="module")
def losses(noisy) -> pd.DataFrame:
    return noisy.assign(suite="test", validation_set="v", gpu_hours=noisy["flops"] / 1e17)


@pytest.fixture(scope="module")
def study() -> Study:
    fits = {
        "all": {"approach": 3, "selection": "all"},
        "late": {"approach": 3, "selection": "late"},
        "hull": {"approach": 1, "selection": "all"},
        "hull_gpu_hours": {"approach": 1, "selection": "all", "resource": "gpu_hours"},
    }
    selections = {"all": "step > 0", "late": "step > 10000"}
    return Study(study="test", losses={"sources": ["released"]}, selections=selections, fits=fits)


def flags(*rows: tuple) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["kind", "run", "step"]).astype({"step": "Int64"})
    return table.assign(suite="test", validation_set=table["step"].map(lambda step: "v", na_action="ignore"))


def test_a_spike_is_left_out_of_the_fits_that_saw_it(losses, study):
    table = without_flagged(study, losses, flags(("spike", "1024x28", 4000), ("gap", "512x12", 6000)))
    assert list(table["fit"]) == ["all", "hull", "hull_gpu_hours"]
    effect = table.iloc[0]
    fewer = losses[(losses["run"] != "1024x28") | (losses["step"] != 4000)]
    for rows, suffix in ((losses, ""), (fewer, "_without")):
        fit = fit_huber(rows)
        assert effect["slope" + suffix] == fit.law.slope
        assert effect["irreducible_loss" + suffix] == fit.law.irreducible_loss
        assert (effect["exponent_params" + suffix], effect["exponent_tokens" + suffix]) == fit.law.exponents
        assert effect["objective_per_row" + suffix] == fit.objective / len(rows)
        assert table["slope" + suffix].iloc[1] == fit_hull(rows).lines["params"].slope
    assert (effect["rows"], effect["flagged_rows"], effect["flagged"]) == (120, 1, "1024x28 at 4000")
    assert table["exponent_width"].isna().all()


def test_an_unusual_throughput_matters_to_gpu_hours_alone(losses, study):
    table = without_flagged(study, losses, flags(("throughput", "3072x12", pd.NA)))
    assert list(table["fit"]) == ["hull_gpu_hours"]
    rest = fit_hull(losses[losses["run"] != "3072x12"], "gpu_hours")
    assert table["slope_without"][0] == rest.lines["params"].slope != table["slope"][0]
    assert (table["flagged_rows"][0], table["flagged"][0], table["fault"][0]) == (12, "3072x12", None)


def test_a_fit_that_needs_the_flagged_rows_says_so(losses, study):
    few = "(run in ['256x23', '512x12'] and step <= 4000) or (run == '768x3' and step == 2000)"
    study = study.model_copy(update={"selections": {"all": "step > 0", "late": few}})
    table = without_flagged(study, losses, flags(("spike", "256x23", 4000))).set_index("fit")
    assert table["fault"]["late"] == ("selection 'late': 4 rows for a law with 5 parameters; wanted: at least 5 rows")
    assert pd.isna(table["slope_without"]["late"])
    assert table["fault"]["all"] is None


def test_without_anomalies_the_table_is_empty_but_has_its_columns(losses, study):
    table = without_flagged(study, losses, flags().astype({"kind": str}))
    assert table.empty
    assert {"fit", "slope", "slope_without", "fault"} <= set(table.columns)
