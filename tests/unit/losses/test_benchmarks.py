"""The table of benchmarks: what it refuses, and its summary."""

import pandas as pd
import pytest

from gemstones.errors import UserError
from gemstones.losses.benchmarks import COLUMNS, check, final_accuracies, write_final


@pytest.fixture
def rows():
    tasks = {"piqa": (0.5, 0.6, 0.7), "siqa": (1 / 3, 0.4, 0.45)}
    return pd.DataFrame(
        [
            {"suite": "test", "run": run, "step": step, "task": task, "accuracy": accuracy + bonus, "random_chance": chance,
             "source": "nobody"}
            for task, (chance, *accuracies) in tasks.items()
            for run, bonus in (("32x2", 0), ("64x2", 0.1))
            for step, accuracy in zip((10, 20), accuracies, strict=True)
        ]
    )  # fmt: skip


def test_what_is_not_known_is_null_and_rows_are_sorted(rows):
    checked = check(rows.sample(frac=1, random_state=0), "b.csv")
    assert list(checked) == list(COLUMNS)
    assert checked["standard_error"].isna().all()
    assert checked[["run", "step", "task"]].values.tolist()[:3] == [
        ["32x2", 10, "piqa"],
        ["32x2", 10, "siqa"],
        ["32x2", 20, "piqa"],
    ]


@pytest.mark.parametrize("accuracy", [1.2, -0.1, None, "high"])
def test_an_accuracy_that_is_no_share_names_its_row(rows, accuracy):
    rows = rows.astype({"accuracy": object})
    rows.loc[3, "accuracy"] = accuracy
    with pytest.raises(UserError, match=r"b\.csv: row 3 \(run 64x2, step 20\): column 'accuracy'"):
        check(rows, "b.csv")


def test_a_second_accuracy_of_one_checkpoint_is_an_error_unless_somebody_else_measured_it(rows):
    again = rows.iloc[[1]].assign(accuracy=0.1)
    with pytest.raises(UserError, match=r"b\.csv: row 8 repeats run 32x2 at step 20 on piqa"):
        check(pd.concat([rows, again]), "b.csv")
    assert len(check(pd.concat([rows, again.assign(source="others")]), "b.csv")) == 9


def test_final_accuracies_are_of_each_runs_last_checkpoint_in_percent(rows):
    rows = check(rows.drop(index=[3, 7]), "b.csv")  # 64x2 ends at step 10
    final = final_accuracies(rows).set_index("run")
    assert list(final.index) == ["64x2", "32x2", "guessing"]
    assert final.loc["32x2", ["piqa", "siqa", "mean"]].tolist() == pytest.approx([70, 45, 57.5])
    assert final.loc["64x2", ["piqa", "siqa"]].tolist() == pytest.approx([70, 50])
    assert final.loc["guessing", "mean"] == pytest.approx(100 * (1 / 2 + 1 / 3) / 2)


def test_final_accuracies_are_written_for_people_and_programs(rows, tmp_path):
    rows["random_chance"] = rows["random_chance"].mask(rows["task"] == "siqa")
    write_final(check(rows, "b.csv"), tmp_path / "final.csv", tmp_path / "final.html")
    written = pd.read_csv(tmp_path / "final.csv").set_index("run")
    assert written.loc["64x2", "piqa"] == pytest.approx(80)
    assert written.loc["guessing", ["mean", "siqa"]].isna().all()  # of a mean of which a part is not known
    assert "<td>80</td>" in (tmp_path / "final.html").read_text()
