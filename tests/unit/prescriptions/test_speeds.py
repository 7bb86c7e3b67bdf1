"""GPU-hours: speeds that runs recorded, and budgets that hold exactly by the model fitted to them."""

import numpy as np
import pandas as pd
import pytest

from gemstones.cluster.throughput import speed_model
from gemstones.laws import HuberFit, PowerLaw, Uncertainty
from gemstones.prescriptions.optimum import gpu_hour_budgets, prescribe
from gemstones.prescriptions.search import Search
from gemstones.prescriptions.speeds import speeds_of
from gemstones.study import Prescriptions
from gemstones.suite.shapes import parse
from tests.unit.prescriptions.test_bands import fit_of, resamples_of


def recorded_by(study, suite="gemstones", slower=1.0) -> pd.DataFrame:
    """Rows as main runs would leave them whose speed is that of a study's plan: three checkpoints each."""
    rows = [
        {
            "suite": suite, "run": shape, "phase": "main", "width": parse(shape)[0], "depth": parse(shape)[1], "step": step,
            "tokens": step * 4_194_304.0, "num_nodes": each.nodes, "gpus": 8 * each.nodes,
            "seconds_per_step": slower * each.seconds_per_step,
        }
        for shape, each in study.plan.throughput.items()
        for step in (477, 954, 1431)
    ]  # fmt: skip
    return pd.DataFrame(rows).astype(dict.fromkeys(("width", "depth", "step", "num_nodes", "gpus"), "Int64"))


@pytest.fixture(scope="module")
def speeds(frontier):
    return speeds_of(frontier, recorded_by(frontier))


def test_speeds_that_runs_recorded_give_the_model_of_the_same_speeds_in_a_plan(frontier, speeds):
    planned = speed_model(frontier)
    assert speeds.model.coefficients == pytest.approx(planned.coefficients)
    assert (speeds.model.error, speeds.model.shapes) == (pytest.approx(planned.error), 22)
    assert (speeds.model.nodes, speeds.nodes) == ((8, 64), 16)
    assert speeds_of(frontier).model.coefficients == pytest.approx(planned.coefficients)


def test_a_studys_own_runs_count_and_only_their_main_ones(frontier, released):
    others = recorded_by(frontier, slower=2)
    ablation = recorded_by(frontier, "released", slower=3).assign(phase="lr_ablation")
    unknown = recorded_by(frontier, "hoffmann").assign(phase=pd.NA)
    assert speeds_of(released, pd.concat([others, ablation, unknown])).model.coefficients[0] == pytest.approx(
        2 * speed_model(frontier).coefficients[0]
    )
    table = pd.concat([others, recorded_by(frontier, "released"), ablation])
    assert speeds_of(released, table).model.coefficients == pytest.approx(speed_model(frontier).coefficients)


def test_too_few_recorded_shapes_give_no_speeds(frontier, mini):
    table = recorded_by(frontier)
    five = list(frontier.plan.throughput)[:5]
    assert speeds_of(frontier, table[table.run.isin(five)]) is None
    assert speeds_of(frontier, table.assign(seconds_per_step=np.nan)) is None
    assert speeds_of(mini) is None
    assert len(gpu_hour_budgets(mini.prescriptions, None)) == 0


def test_nodes_are_asked_for_or_of_the_config_or_those_of_the_median_run(frontier):
    table = recorded_by(frontier)
    config = frontier.model_copy(update={"prescriptions": Prescriptions(nodes=32)})
    assert [speeds_of(study, table, nodes=n).nodes for study, n in ((config, None), (config, 8), (frontier, 8))] == [
        32,
        8,
        8,
    ]


def test_budgets_in_gpu_hours_follow_from_the_flops_unless_named(speeds):
    spec = Prescriptions(flops_range=(1e18, 1e26), budgets=5)
    assert gpu_hour_budgets(spec, speeds) == pytest.approx([1e1, 1e3, 1e5, 1e7, 1e9])
    named = Prescriptions(gpu_hours_range=(2, 200), budgets=3)
    assert gpu_hour_budgets(named, speeds) == pytest.approx([2, 20, 200])


def test_gpu_hours_hold_exactly(published, suite, speeds):
    table = prescribe(published, [1e20], suite, speeds=speeds, gpu_hours=[10, 1000])
    assert table.resource.tolist() == ["flops"] * 2 + ["gpu_hours"] * 4
    assert table.nodes.tolist() == [16] * 6
    assert table.gpu_hours_error.to_numpy() == pytest.approx(speeds.model.error)
    hours = table[table.resource == "gpu_hours"]
    assert hours.gpu_hours.tolist() == hours.budget.tolist() == [10, 10, 1000, 1000]
    for row in table[table.variant == "feasible"].itertuples():
        steps = row.tokens / 4_194_304
        for nodes, estimate in ((16, row.gpu_hours), (8, row.gpu_hours_fewest_nodes), (64, row.gpu_hours_most_nodes)):
            seconds = speeds.model.seconds_per_step(f"{row.width:.0f}x{row.depth:.0f}", nodes)
            assert estimate == pytest.approx(steps * seconds * nodes * 8 / 3600, rel=1e-12)
        assert row.gpu_hours_fewest_nodes < row.gpu_hours < row.gpu_hours_most_nodes


def test_no_other_feasible_shape_is_better_for_gpu_hours(published, suite, speeds):
    width, depth = (grid.ravel().astype(float) for grid in np.meshgrid(range(256, 6145, 256), range(2, 121)))
    search = Search.of(published, suite, speeds, "gpu_hours")
    table = prescribe(published, [], suite, speeds=speeds, gpu_hours=[30, 3000]).set_index(["variant", "budget"])
    for budget in (30, 3000):
        loss = search.loss(width, depth, budget)
        found = table.loc[("feasible", budget)]
        assert (found.width, found.depth) == (width[loss.argmin()], depth[loss.argmin()])
        assert found.loss == pytest.approx(loss.min(), rel=1e-12)
        assert table.loc[("relaxed", budget)].loss <= found.loss
        # Narrow layers are slow, so the same FLOPs go to wider and flatter models.
        by_flops = prescribe(published, [found.flops], suite).set_index("variant").loc["relaxed"]
        assert table.loc[("relaxed", budget)].aspect_ratio > 1.2 * by_flops.aspect_ratio


def test_intervals_on_gpu_hours_are_those_of_the_resamples_optima(published, suite, speeds):
    laws = [
        PowerLaw(published.covariates, published.exponents, tuple(np.array(published.log_coefficients) + shift), 1.5)
        for shift in ([0, 0, 0, 0.05], [0, 0, 0, -0.05], [0.05, 0, 0, 0])
    ]
    uncertainty = Uncertainty(fit_of(published), resamples_of(laws))
    table = prescribe(published, [1e20], suite, speeds=speeds, gpu_hours=[1000], uncertainty=uncertainty)
    found = table[(table.variant == "relaxed") & (table.resource == "gpu_hours")].iloc[0]
    optima = [prescribe(law, [], suite, speeds=speeds, gpu_hours=[1000]).iloc[0] for law in laws]
    for name in ("width", "tokens", "loss"):
        ends = np.quantile([optimum[name] for optimum in optima], [uncertainty.tail, 1 - uncertainty.tail])
        assert (found[f"{name}_low"], found[f"{name}_high"]) == pytest.approx(tuple(ends), rel=2e-3)


def test_more_gpu_hours_than_any_fitted_row_are_marked(published, suite, frontier):
    evidence = dict.fromkeys(("objective", "gradient_norm", "lowest_curvature", "share_of_starts_at_optimum"), 0.0)
    fit = HuberFit(published, 1e-4, n_rows=770, n_runs=22, converged=True, starts=8, max_flops=1e21, **evidence)
    speeds = speeds_of(frontier, recorded_by(frontier), max_gpu_hours=2000)
    table = prescribe(fit, [9e20], suite, speeds=speeds, gpu_hours=[1000, 2500, 1e5])
    assert table[table.variant == "relaxed"].extrapolated.tolist() == [False, False, True, True]
    assert table[table.resource == "flops"].gpu_hours.gt(2000).all()
    assert prescribe(fit, [], suite, speeds=speeds_of(frontier), gpu_hours=[2500, 1e5]).extrapolated.tolist() == [
        False, False, True, True,
    ]  # fmt: skip


def test_without_speeds_gpu_hours_are_null(published, suite):
    table = prescribe(published, [1e20], suite)
    assert table[["gpu_hours", "nodes", "gpu_hours_fewest_nodes", "gpu_hours_error"]].isna().all(axis=None)
    assert set(table.resource) == {"flops"}
