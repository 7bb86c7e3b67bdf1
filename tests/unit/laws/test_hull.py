import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import ConvexHull, QhullError

from gemstones.errors import UserError
from gemstones.files import write_json
from gemstones.laws import best_per_bin, fit, fit_hull, lower_hull, read
from gemstones.study import Approach1

points = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=30)


def authors_hull(resource: np.ndarray, loss: np.ndarray) -> set[tuple[float, float]]:
    """The hull with a point above and to the right of all added, then dropped; strictly falling losses kept."""
    cloud = np.log(np.c_[np.r_[resource, 2 * resource.max()], np.r_[loss, 2 * loss.max()]])
    vertices = [v for v in ConvexHull(cloud).vertices if v < len(resource)]
    kept, lowest = set(), np.inf
    for v in sorted(vertices, key=lambda v: (resource[v], loss[v])):
        if loss[v] < lowest:
            kept.add((resource[v], loss[v]))
            lowest = loss[v]
    return kept


@given(points)
def test_the_frontier_is_the_authors_hull(cloud):
    resource, loss = np.array(cloud, dtype=float).T
    at = lower_hull(resource, loss)
    assert all(np.diff(resource[at]) > 0)
    assert all(np.diff(loss[at]) < 0)
    try:
        expected = authors_hull(resource, loss)
    except QhullError:  # all on one line
        return
    # Points within rounding of a segment may count as corners or not: both frontiers are the same line.
    x, y = np.log(sorted(expected)).T
    assert np.interp(np.log(resource[at]), x, y) == pytest.approx(np.log(loss[at]), abs=1e-9)
    assert np.interp(x, np.log(resource[at]), np.log(loss[at])) == pytest.approx(y, abs=1e-9)


@given(points)
def test_no_point_lies_below_the_frontier(cloud):
    resource, loss = np.array(cloud, dtype=float).T
    at = lower_hull(resource, loss)
    frontier = np.interp(np.log(resource), np.log(resource[at]), np.log(loss[at]))
    assert (np.log(loss) >= frontier - 1e-9).all()


def test_ties_and_duplicates_count_once():
    resource = [1, 1, 1, 2, 2, 3, 3]
    loss = [9, 4, 4, 3, 5, 3, 2.9]
    assert lower_hull(resource, loss).tolist() == [1, 3, 6]
    assert lower_hull([], []).tolist() == []


@pytest.fixture
def frontier(grid, law) -> pd.DataFrame:
    return grid.assign(loss=law.predict(grid), gpu_hours=grid["flops"] / 1e17)


def test_lines_are_least_squares_over_the_hull(frontier):
    result = fit_hull(frontier)
    on_hull = frontier.iloc[lower_hull(frontier["flops"], frontier["loss"])]
    for name, quantity in {
        "params": on_hull.params,
        "tokens": on_hull.tokens,
        "tokens_per_param": on_hull.tokens / on_hull.params,
    }.items():
        slope, intercept = np.polyfit(np.log(on_hull.flops), np.log(quantity), 1)
        assert (result.lines[name].slope, result.lines[name].intercept) == pytest.approx((slope, intercept))
    assert result.predict(1e20)["tokens_per_param"] == pytest.approx(
        result.predict(1e20)["tokens"] / result.predict(1e20)["params"]
    )
    assert result.hull_size == len(on_hull)
    assert [point.run for point in result.hull] == on_hull.run.tolist()
    assert [point.step for point in result.hull] == on_hull.step.tolist()


def test_gpu_hours_and_other_counts_are_read_from_their_columns(frontier):
    by_flops, by_hours = fit_hull(frontier), fit_hull(frontier, "gpu_hours", "params_no_embeddings")
    assert by_hours.lines["tokens"].slope == pytest.approx(by_flops.lines["tokens"].slope)
    assert by_hours.hull[0].params == frontier.params_no_embeddings[lower_hull(frontier.flops, frontier.loss)[0]]


def test_json_comes_back_byte_for_byte(frontier, tmp_path):
    spec = Approach1(approach=1, selection="hot", param_count="params_no_embeddings")
    frontier = frontier.assign(run=frontier.run.where(frontier.index != 0))
    result = fit(spec, frontier, seed=0)
    write_json(result.to_json(), tmp_path / "fit.json")
    assert read(tmp_path / "fit.json") == result
    write_json(read(tmp_path / "fit.json").to_json(), tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "fit.json").read_bytes()
    assert result.provenance["specification"] == spec.model_dump(mode="json", exclude={"resamples"})
    shuffled = fit(spec, frontier.sample(frac=1, random_state=1))
    assert (shuffled.lines, shuffled.hull) == (result.lines, result.hull)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.head(0), "the convex hull of 0 rows has 0 points; wanted: at least 3"),
        (lambda t: t.head(2), "the convex hull of 2 rows has 2 points"),
        (lambda t: t.assign(loss=3.0), "column 'loss' is 3 in every row"),
        (lambda t: t.assign(loss=t.loss.where(t.index != 0)), "row 0 .*column 'loss' is empty"),
        (lambda t: t.drop(columns="flops"), "no column 'flops'"),
    ],
)
def test_says_in_one_line_why_rows_have_no_frontier(frontier, change, message):
    with pytest.raises(UserError, match=f"selection 'hot': {message}"):
        fit_hull(change(frontier), selection="hot")
    with pytest.raises(UserError, match="unknown resource"):
        fit_hull(frontier, "dollars")


def test_bins_keep_the_lowest_loss_of_each():
    table = pd.DataFrame({"flops": [1.0, 1.1, 10.0, 99.0, 100.0], "loss": [5.0, 4.0, 3.0, 2.0, 2.0]})
    assert best_per_bin(table, bins=2).flops.tolist() == [1.1, 99.0]
    assert best_per_bin(table, bins=750).flops.tolist() == [1.0, 1.1, 10.0, 99.0, 100.0]
    assert best_per_bin(table.head(1)).flops.tolist() == [1.0]
    assert best_per_bin(table.head(0)).empty
