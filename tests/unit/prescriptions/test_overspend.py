import numpy as np
import pandas as pd
import pytest

from gemstones.errors import UserError
from gemstones.prescriptions import overspend
from gemstones.prescriptions.overspend import COLUMNS, over_trajectories


@pytest.fixture
def rows() -> pd.DataFrame:
    """Frontier: a (1, 4), b (4, 2), c (16, 1.8); d reaches b's loss with four times its FLOPs; e is worse than all."""
    return pd.DataFrame(
        {
            "run": ["d", "a", "b", "c", "e"],
            "width": [1024, 256, 512, 768, 2048],
            "depth": [8, 2, 4, 6, 8],
            "step": 10,
            "flops": [16.0, 1.0, 4.0, 16.0, 64.0],
            "gpu_hours": [2.0, 1.0, 1.5, 2.5, 3.0],
            "loss": [2.0, 4.0, 2.0, 1.8, 4.5],
        }
    )


def test_overspend_is_relative_to_the_frontier_at_the_same_loss(rows):
    table = overspend(rows, 10)
    assert list(table.columns) == COLUMNS
    flops = table[table.resource == "flops"].set_index("run")
    assert flops.index.tolist() == ["a", "b", "c", "d", "e"]
    assert flops.on_frontier.tolist() == [True, True, True, False, False]
    assert flops.overspend_interpolated[:4].tolist() == pytest.approx([0, 0, 0, 3], abs=1e-12)
    assert flops.overspend_nearest.tolist() == pytest.approx([0, 0, 0, 3, 63])
    assert set(table.resource) == {"flops", "gpu_hours"}


def test_the_frontier_is_interpolated_in_log_log(rows):
    rows.loc[0, "loss"] = np.sqrt(4.0 * 2.0)  # halfway between a and b
    found = overspend(rows, 10).set_index(["resource", "run"]).loc[("flops", "d")]
    assert found.frontier_resource_interpolated == pytest.approx(2.0)
    assert found.overspend_interpolated == pytest.approx(7.0)
    assert found.overspend_nearest == pytest.approx(3.0)


def test_losses_above_the_frontier_have_no_equal_on_it(rows):
    found = overspend(rows, 10).set_index(["resource", "run"]).loc[("flops", "e")]
    assert np.isnan(found.frontier_resource_interpolated)
    assert np.isnan(found.overspend_interpolated)


def test_gpu_hours_are_left_out_where_unknown(rows):
    assert set(overspend(rows.assign(gpu_hours=np.nan), 10).resource) == {"flops"}
    assert set(overspend(rows.drop(columns="gpu_hours"), 10).resource) == {"flops"}


def test_a_single_run_is_its_own_frontier(rows):
    table = overspend(rows.head(1), 10)
    assert table.on_frontier.all()
    assert table.overspend_interpolated.tolist() == pytest.approx([0, 0])


@pytest.fixture
def trajectories(rows) -> pd.DataFrame:
    """The rows, and each run at step 5 with half its resources and a higher loss; a's, (0.5, 4.2), is on the frontier."""
    early = rows.assign(step=5, flops=rows.flops / 2, gpu_hours=rows.gpu_hours / 2, loss=[2.9, 4.2, 3.5, 2.2, 4.8])
    return pd.concat([rows, early], ignore_index=True).assign(num_nodes=8)


def test_over_trajectories_all_checkpoints_make_the_frontier(trajectories):
    table = overspend(trajectories)
    assert set(table.frontier) == {"trajectories"}
    assert len(table) == 2 * len(trajectories)
    flops = table[table.resource == "flops"].set_index(["run", "step"])
    assert flops.index.tolist() == [(run, step) for run in "abcde" for step in (5, 10)]
    frontier = flops[flops.on_frontier]
    assert frontier.index.tolist() == [("a", 5), ("b", 10), ("c", 10)]
    assert frontier.overspend_interpolated.tolist() == [0, 0, 0]
    # Between (0.5, 4.2) and (4, 2): the loss of the run a at step 10.
    share = np.log(4.2 / 4.0) / np.log(4.2 / 2.0)
    assert flops.loc[("a", 10), "frontier_resource_interpolated"] == pytest.approx(0.5 * 8**share)
    assert flops.loc[("e", 10), "num_nodes"] == 8
    # Alone at its step, a is on the frontier; it is not among all checkpoints.
    assert overspend(trajectories, 10).query("resource == 'flops' and run == 'a'").on_frontier.item()


def test_trajectories_are_summed_up_by_run(trajectories):
    table = overspend(trajectories)
    summary = over_trajectories(table, 10).set_index(["resource", "run"])
    costs = table.set_index(["resource", "run", "step"]).overspend_interpolated
    found = summary.loc[("flops", "d")]
    assert found.at_step == pytest.approx(3)
    assert found.least == min(costs["flops", "d", 5], costs["flops", "d", 10])
    assert found.least_at_step == (5 if costs["flops", "d", 5] < costs["flops", "d", 10] else 10)
    assert found["median"] == pytest.approx((costs["flops", "d", 5] + costs["flops", "d", 10]) / 2)
    assert ("flops", "e") not in summary.index  # its losses lie above the frontier's first point
    assert over_trajectories(table, 7).at_step.isna().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.assign(step=20), "no row is at this step; the last is at 20"),
        (lambda t: t.assign(step=pd.array([None] * 5, dtype="Int64")), "no row is at this step"),
        (lambda t: pd.concat([t, t]), "run a has two rows at step 10"),
        (lambda t: t.assign(loss=t.loss.where(t.run != "b")), "column 'loss' is empty"),
        (lambda t: t.assign(gpu_hours=t.gpu_hours.where(t.run != "b")), "column 'gpu_hours' is empty"),
        (lambda t: t.drop(columns="width"), "no column 'width'"),
        (lambda t: t.drop(columns=["flops", "gpu_hours"]), "no column flops or gpu_hours"),
    ],
)
def test_says_in_one_line_what_is_wrong(rows, change, message):
    with pytest.raises(UserError, match=f"overspend at step 10: .*{message}"):
        overspend(change(rows), 10)


def test_trajectories_without_rows_or_with_a_step_twice_are_refused(rows):
    with pytest.raises(UserError, match="overspend over trajectories: no rows"):
        overspend(rows.head(0))
    with pytest.raises(UserError, match="overspend over trajectories: run a has two rows at step 10"):
        overspend(pd.concat([rows, rows]))
