"""The losses table: what it refuses, and how it is ordered."""

import numpy as np
import pandas as pd
import pytest

from gemstones.errors import UserError
from gemstones.losses import table
from gemstones.losses.columns import COLUMNS
from gemstones.losses.selections import exclude, on_validation_set, select
from gemstones.study import Exclusion


@pytest.fixture
def rows():
    steps = np.arange(10, 60, 10)
    return pd.DataFrame(
        {
            "suite": "test", "run": "32x2", "phase": "main", "width": 32, "depth": 2, "params": 1e5,
            "flops_per_token": 6e5, "step": steps, "tokens": steps * 1e3, "flops": steps * 6e8,
            "validation_set": "validation", "loss": np.linspace(5, 4, 5),
        }
    )  # fmt: skip


def test_missing_nullable_columns_are_added_and_rows_sorted(rows):
    checked = table.check(rows.sample(frac=1, random_state=0), "t.csv")
    assert list(checked.columns) == list(COLUMNS)
    assert checked["step"].is_monotonic_increasing
    assert checked["lr"].isna().all()


@pytest.mark.parametrize("loss", [np.nan, np.inf, 0.0, -1.0, "much"])
def test_a_loss_that_is_no_positive_number_names_its_row(rows, loss):
    rows = rows.astype({"loss": object})
    rows.loc[3, "loss"] = loss
    with pytest.raises(UserError, match=r"t\.csv: row 3 \(run 32x2, step 40\): column 'loss'"):
        table.check(rows, "t.csv")


def test_a_missing_column_is_named(rows):
    with pytest.raises(UserError, match=r"t\.csv: no column tokens"):
        table.check(rows.drop(columns="tokens"), "t.csv")


def test_a_duplicate_row_is_named(rows):
    with pytest.raises(UserError, match=r"t\.csv: row 5 repeats run 32x2 at step 20"):
        table.check(pd.concat([rows, rows.iloc[[1]]]), "t.csv")


def test_a_refused_table_leaves_the_old_file(rows, tmp_path):
    path = tmp_path / "losses.parquet"
    table.write(rows, path)
    before = path.read_bytes()
    with pytest.raises(UserError):
        table.write(rows.assign(loss=-1), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["losses.parquet"]


def test_selecting_nothing_is_an_error(rows):
    checked = table.check(rows, "t.csv")
    assert list(select(checked, "step % 20 == 0", "even")["step"]) == [20, 40]
    with pytest.raises(UserError, match=r"selections\.none: no row"):
        select(checked, "step > 99", "none")


def test_a_selection_of_two_validation_sets_is_an_error_and_an_exclusion_is_of_all(rows):
    checked = table.check(pd.concat([rows, rows.assign(validation_set="other")]), "t.csv")
    with pytest.raises(
        UserError, match=r"selections\.all: run 32x2 at step 10 is there on several .*\(other, validation\)"
    ):
        select(checked, "phase == 'main'", "all")
    query = on_validation_set("step == 10 or step == 30", "other")
    assert list(select(checked, query, "few")["validation_set"]) == ["other", "other"]
    assert list(select(checked, query, "few")["step"]) == [10, 30]
    named = "validation_set == 'validation' and step < 30"
    assert on_validation_set(named, "other") == named
    excluded = exclude(checked, {"x": Exclusion(query="step == 20", reason="y")})[1]
    assert sorted(excluded["validation_set"]) == ["other", "validation"]


def test_excluded_rows_are_taken_out_with_the_first_reason_that_names_them(rows, tmp_path):
    checked = table.check(rows, "t.csv")
    exclusions = {
        "late": Exclusion(query="step >= 40", reason="too late"),
        "last": Exclusion(query="step == 50", reason="the last"),
    }
    stay, excluded = exclude(checked, exclusions)
    assert list(stay["step"]) == [10, 20, 30]
    assert list(excluded["step"]) == [40, 50]
    assert list(excluded["exclusion"]) == ["late", "late"]
    assert list(excluded["reason"]) == ["too late", "too late"]
    excluded.to_csv(tmp_path / "excluded.csv", index=False)
    again = table.read(tmp_path / "excluded.csv")
    pd.testing.assert_frame_equal(again[[*COLUMNS]], excluded[[*COLUMNS]])


def test_without_exclusions_nothing_changes(rows):
    checked = table.check(rows, "t.csv")
    stay, excluded = exclude(checked, {})
    pd.testing.assert_frame_equal(stay, checked)
    assert excluded.empty
    assert list(excluded.columns) == [*COLUMNS, "exclusion", "reason"]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("step > 99", r"losses\.exclusions\.x\.query: no row matches: step > 99"),
        ("step > 'a'", r"losses\.exclusions\.x\.query: .* in: step > 'a'"),
        ("step > 0", r"losses\.exclusions: every row of the losses table is taken out"),
    ],
)
def test_an_exclusion_that_cannot_be_meant_is_an_error(rows, query, message):
    with pytest.raises(UserError, match=message):
        exclude(table.check(rows, "t.csv"), {"x": Exclusion(query=query, reason="y")})
