import numpy as np
import pandas as pd
import pytest

from gemstones.errors import UserError
from gemstones.prescriptions import overspend
from gemstones.prescriptions.overspend import COLUMNS


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.assign(step=20), "no row is at this step; the last is at 20"),
        (lambda t: t.assign(step=pd.array([None] * 5, dtype="Int64")), "no row is at this step"),
        (lambda t: pd.concat([t, t]), "run a has two rows"),
        (lambda t: t.assign(loss=t.loss.where(t.run != "b")), "column 'loss' is empty"),
        (lambda t: t.assign(gpu_hours=t.gpu_hours.where(t.run != "b")), "column 'gpu_hours' is empty"),
        (lambda t: t.drop(columns="width"), "no column 'width'"),
        (lambda t: t.drop(columns=["flops", "gpu_hours"]), "no column flops or gpu_hours"),
    ],
)
def test_says_in_one_line_what_is_wrong(rows, change, message):
    with pytest.raises(UserError, match=f"overspend at step 10: .*{message}"):
        overspend(change(rows), 10)
