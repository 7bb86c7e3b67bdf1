"""Costs and prescriptions of the authors' released data."""

from pathlib import Path

import pandas as pd
import pytest

from gemstones.laws import PowerLaw, fit_huber
from gemstones.laws.published import published_laws
from gemstones.prescriptions import overspend, prescribe
from gemstones.prescriptions.speeds import speeds_of
from gemstones.study import Study, Suite
from gemstones.suite import counting

STEP = 71_550  # 300B tokens
# Of GPU-hours and FLOPs, in percent: nearest, interpolated.
OVERSPEND = {
    "256x80": ((55.4, 54.2), (358, 171.5)),
    "256x71": ((47.2, 50.9), (307, 157.6)),
    "384x36": ((39.6, 12.6), (210, 58.4)),
}
FRONTIER = {
    "flops": ["256x23", "384x13", "512x11", "512x13", "512x14", "1280x15", "1024x28", "1280x36", "1536x50"],
    "gpu_hours": ["768x3", "1792x7", "1280x15", "3072x12", "1536x50"],
}


@pytest.fixture(scope="module")
def rows(released_folder: Path) -> pd.DataFrame:
    table = pd.read_json(released_folder / "wandb_dfs/wandb_df_for_fitting_hot_100b+_477.jsonl", lines=True)
    return pd.DataFrame(
        {
            "run": table["width"].astype(str) + "x" + table["depth"].astype(str),
            "width": table["width"],
            "depth": table["depth"],
            "step": table["step"],
            "params": table["params_active_precise"],
            "tokens": table["tokens"],
            "flops": counting.flops_per_token(table["width"], table["depth"]) * table["tokens"],
            "num_nodes": table["num_nodes"],
            "seconds_per_step": table["seconds_per_step"],
            "gpu_hours": table["seconds_per_step"] * table["step"] * table["num_nodes"] * 8 / 3600,
            "loss": table["final_loss"],
        }
    )


@pytest.fixture(scope="module")
def published(released: Study, released_folder: Path, tmp_path_factory) -> PowerLaw:
    """The authors' Eq. 2 law of the selection `all`."""
    laws = published_laws(released, tmp_path_factory.mktemp("downloads"))
    return laws["approach_3_all_width_depth"].law


def test_known_overspends(rows):
    table = overspend(rows, STEP).set_index(["resource", "run"])
    assert len(table) == 2 * 22
    for run, expected in OVERSPEND.items():
        for resource, (nearest, interpolated) in zip(("flops", "gpu_hours"), expected, strict=True):
            found = table.loc[(resource, run)]
            assert 100 * found.overspend_nearest == pytest.approx(nearest, abs=0.5 if nearest > 100 else 0.05)
            assert 100 * found.overspend_interpolated == pytest.approx(interpolated, abs=0.05)
    for resource, maximum in (("flops", "256x80"), ("gpu_hours", "256x80")):
        assert table.loc[resource].overspend_nearest.idxmax() == maximum


@pytest.mark.parametrize("resource", FRONTIER)
def test_known_frontiers(rows, resource):
    table = overspend(rows, STEP).query("resource == @resource and on_frontier").sort_values("used")
    assert table["run"].tolist() == FRONTIER[resource]
    assert table["overspend_nearest"].to_numpy() == pytest.approx(0)


def test_converged_laws_prescribe_nearly_the_published_shapes(rows):
    """The converged law of `all` lies in the published one's valley, so its optimal losses differ by 0.4 % at most."""
    every_fifth = rows[rows["step"] % 2385 == 0]
    law = fit_huber(every_fifth, ("width", "depth", "params", "tokens"))
    table = prescribe(law, [1e20, 1e21, 1e22], Suite()).query("variant == 'feasible'")
    assert table["loss"].to_numpy() == pytest.approx([2.864, 2.553, 2.336], rel=0.005)
    assert table["extrapolated"].tolist() == [False, False, True]


def test_the_published_law_prescribes_the_known_shapes(published):
    """SPEC, section 7, and the relaxed optimum that was measured at 1.19e21 FLOPs."""
    table = prescribe(published, [1e20, 1e21, 1.19e21, 1e22], Suite()).set_index(["variant", "flops"])
    known = {
        1e20: (1536, 25, 1.51e10, 2.864), 1e21: (2560, 45, 3.35e10, 2.553), 1.19e21: (2560, 50, None, None),
        1e22: (4864, 66, 6.71e10, 2.336),
    }  # fmt: skip
    for flops, (width, depth, tokens, loss) in known.items():
        found = table.loc[("feasible", flops)]
        assert (found.width, found.depth) == (width, depth)
        if tokens:
            assert found.tokens == pytest.approx(tokens, rel=2e-3)
            assert found.loss == pytest.approx(loss, abs=6e-4)
    relaxed = table.loc[("relaxed", 1.19e21)]
    assert (relaxed.width, relaxed.depth) == (pytest.approx(2685, rel=2e-3), pytest.approx(46.5, abs=0.05))


def test_recorded_speeds_give_a_model_that_is_off_by_8_percent(rows, released, published):
    recorded = rows.assign(suite="gemstones", phase="main", gpus=8 * rows["num_nodes"])
    speeds = speeds_of(released, recorded)
    assert speeds.model.error == pytest.approx(0.077, abs=0.0005)
    assert (speeds.model.shapes, speeds.model.nodes, speeds.nodes) == (22, (8, 64), 16)
    table = prescribe(published, [1e21], Suite(), speeds=speeds, gpu_hours=[4000]).set_index(["resource", "variant"])
    flops, hours = table.loc[("flops", "relaxed")], table.loc[("gpu_hours", "relaxed")]
    # About as many GPU-hours, spent on a wider and flatter model, do more FLOPs.
    assert flops.gpu_hours == pytest.approx(4000, rel=0.05)
    assert hours.aspect_ratio > 1.3 * flops.aspect_ratio
    assert hours.flops > flops.flops
    assert hours.loss < flops.loss
