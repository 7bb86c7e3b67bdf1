"""Anomalies of synthetic runs: what is put in is found, and nothing beside it."""

import numpy as np
import pandas as pd
import pytest

from gemstones.files import write_csv
from gemstones.losses import table
from gemstones.losses.anomalies import find_anomalies, read

SHAPES = [(64, 4), (64, 5), (64, 6), (64, 7), (128, 2), (128, 4), (128, 8), (256, 2), (256, 4), (256, 8)]


def curves(rows: int = 175, stride: int = 477, noise: float = 0.001, warmup: int = 0, shapes=SHAPES) -> pd.DataFrame:
    """A study of smooth curves: the larger the model the lower, with normal noise; steps are the stride's multiples."""
    rng = np.random.default_rng(0)
    steps = np.arange(1, rows + 1) * stride
    parts = []
    for width, depth in shapes:
        params = 12.0 * depth * width**2
        tokens = steps * 2048.0
        loss = 1.7 + 20 * params**-0.25 + 80 * tokens**-0.4
        if warmup:  # an S-shaped start at log of the vocabulary
            learnt = 1 / (1 + np.exp(-(steps - warmup) / (warmup / 4)))
            loss = 6.2 * (1 - learnt) + loss * learnt
        flops_per_token = 6 * params
        parts.append(
            pd.DataFrame(
                {
                    "suite": "test", "run": f"{width}x{depth}", "phase": "main", "width": width, "depth": depth,
                    "params": params, "flops_per_token": flops_per_token, "step": steps, "tokens": tokens,
                    "flops": flops_per_token * tokens, "num_nodes": 2, "gpus": 16,
                    "seconds_per_step": flops_per_token * 2048 / 16 / (1e9 * width**0.4 * depth**-0.1),
                    "validation_set": "v", "loss": loss * np.exp(noise * rng.standard_normal(rows)),
                }
            )
        )  # fmt: skip
    return table.check(pd.concat(parts), "curves")


def branches(losses: pd.DataFrame, anchors: tuple[int, ...]) -> pd.DataFrame:
    """Cooldowns of every run: two rows each, at the anchor and a tenth later."""
    parts = [losses]
    for anchor in anchors:
        start = losses[losses["step"] == anchor]
        end = start.assign(step=anchor * 11 // 10, tokens=start["tokens"] * 1.1, loss=start["loss"] * 0.97)
        run = start["run"] + f"-cooldown-{anchor}"
        parts += [rows.assign(run=run, phase="cooldown", parent=start["run"], anchor=anchor) for rows in (start, end)]
    return table.check(pd.concat(parts), "branches")


def raised(losses: pd.DataFrame, run: str, step: int, by: float) -> pd.DataFrame:
    here = (losses["run"] == run) & (losses["step"] == step)
    assert here.sum() == 1
    return losses.assign(loss=losses["loss"] + by * here)


def names(found: pd.DataFrame) -> list[tuple]:
    return list(found[["kind", "run", "step"]].itertuples(index=False, name=None))


@pytest.mark.parametrize(
    "study",
    [
        curves(),
        curves(noise=0),
        curves(rows=10, stride=30),
        curves(rows=10, stride=30, noise=0.01),
        curves(rows=10, stride=30, warmup=60),
        curves(rows=60, stride=30, warmup=300),
        curves(rows=1),
        branches(curves(rows=10, stride=30), (150, 270)),
    ],
    ids=["long", "smooth", "short", "noisy", "warm-up", "long warm-up", "one row", "cooldowns"],
)
def test_nothing_is_found_in_an_ordinary_study(study):
    assert find_anomalies(study).empty


@pytest.mark.parametrize(("rows", "stride", "step", "by"), [
    (175, 477, 28620, 0.05), (175, 477, 477 * 4, 0.1), (175, 477, 175 * 477, 0.05),
    (10, 30, 180, 0.2), (10, 30, 300, 0.2), (5, 30, 120, 0.5),
])  # fmt: skip
def test_a_spike_is_found_and_the_rows_around_it_are_not(rows, stride, step, by):
    losses = curves(rows, stride)
    found = find_anomalies(raised(losses, "128x4", step, by))
    assert names(found) == [("spike", "128x4", step)]
    (spike,) = found.itertuples()
    assert spike.deviation == pytest.approx(by, abs=0.25 * by)
    assert spike.value == pytest.approx(spike.expected + spike.deviation)
    assert "above what the rows around it say" in spike.reason


def test_a_bump_of_several_rows_is_found_whole():
    losses = curves()
    steps = [477 * i for i in range(100, 105)]
    for step in steps:
        losses = raised(losses, "256x8", step, 0.04)
    assert names(find_anomalies(losses)) == [("spike", "256x8", step) for step in steps]


def test_a_spike_is_found_in_a_short_noisy_run():
    losses = raised(curves(rows=10, stride=30, noise=0.003), "128x4", 180, 0.12)
    assert names(find_anomalies(losses)) == [("spike", "128x4", 180)]


def test_the_last_digit_of_equal_losses_is_no_spike():
    assert find_anomalies(raised(curves().assign(loss=2.5), "128x4", 28620, 0.001)).empty


def test_a_low_loss_is_no_spike_and_makes_none_beside_it():
    assert find_anomalies(raised(curves(), "128x4", 28620, -0.1)).empty


def test_missing_evaluations_are_one_gap_with_their_number():
    losses = curves(rows=20)
    hole = (losses["run"] == "128x2") & losses["step"].isin([477 * 7, 477 * 8])
    (gap,) = find_anomalies(losses[~hole]).itertuples()
    assert (gap.kind, gap.run, gap.step, gap.value, gap.expected) == ("gap", "128x2", 477 * 7, 0, 2)
    assert "no evaluation between steps 2862 and 4293" in gap.reason
    # Rows that the config takes out are no gaps.
    assert find_anomalies(losses[~hole], losses[hole].assign(exclusion="x", reason="y")).empty


def test_an_evaluation_off_the_stride_is_no_gap():
    losses = curves(rows=20)
    extra = losses[(losses["step"] == 954)].assign(step=960, tokens=960 * 2048.0)
    assert find_anomalies(table.check(pd.concat([losses, extra]), "x")).empty


def test_evaluations_spaced_evenly_in_log_have_no_gaps():
    losses = curves(rows=64)
    assert find_anomalies(losses[losses["step"].isin([477 * 2**i for i in range(7)])]).empty


def test_a_run_that_ends_or_begins_apart_from_most_is_a_gap():
    losses = curves(rows=20)
    short = losses[(losses["run"] != "64x7") | (losses["step"] <= 15 * 477)]
    (gap,) = find_anomalies(short).itertuples()
    assert (gap.run, gap.step, gap.expected) == ("64x7", 16 * 477, 5)
    assert "ends at step 7155, though most of the 10 runs of its phase go on to 9540" in gap.reason
    late = losses[(losses["run"] != "64x7") | (losses["step"] > 2 * 477)]
    (gap,) = find_anomalies(late).itertuples()
    assert (gap.run, gap.step, gap.expected) == ("64x7", 477, 2)


def test_runs_that_all_differ_in_length_are_taken_as_planned():
    losses = curves(rows=20)
    length = losses["run"].map({f"{width}x{depth}": 8 + i for i, (width, depth) in enumerate(SHAPES)})
    kept = losses[losses["step"] <= 477 * length]
    assert "gap" not in set(find_anomalies(kept[kept["run"].isin(["64x4", "64x5"])])["kind"])
    assert (find_anomalies(kept)["reason"].str.startswith("ends")).sum() < 5


def test_a_cooldown_that_most_shapes_have_is_a_gap_and_a_shape_without_any_is_none():
    losses = branches(curves(rows=10, stride=30), (150, 210, 270))
    assert find_anomalies(losses[losses["parent"].isna() | (losses["parent"] != "64x4")]).empty
    (gap,) = find_anomalies(losses[losses["run"] != "64x4-cooldown-270"]).itertuples()
    assert (gap.kind, gap.run, gap.step) == ("gap", "64x4", 270)
    assert gap.reason == "no cooldown branches from step 270, though 9 of 10 shapes have one"


def test_rows_without_a_time_are_a_gap_only_where_others_have_one():
    losses = curves(rows=20)
    without = losses.assign(seconds_per_step=losses["seconds_per_step"].where(losses["run"] != "64x4"))
    (gap,) = find_anomalies(without).itertuples()
    assert (gap.kind, gap.run, gap.value, gap.expected) == ("gap", "64x4", 0, 20)
    assert find_anomalies(losses.assign(seconds_per_step=pd.NA)).empty


def test_another_number_of_nodes_than_the_siblings_is_named_with_them():
    losses = curves(rows=20)
    half = losses["run"] == "64x7"
    losses = losses.assign(num_nodes=losses["num_nodes"].mask(half, 1), gpus=losses["gpus"].mask(half, 8))
    losses["seconds_per_step"] *= 1 + half
    (flag,) = find_anomalies(losses).itertuples()
    assert (flag.kind, flag.run, flag.value, flag.expected) == ("throughput", "64x7", 1, 2)
    assert "trained on 1 nodes, siblings of its width (64x5, 64x6) on 2" in flag.reason


def test_a_width_may_have_its_own_number_of_nodes():
    losses = curves(rows=20)
    assert find_anomalies(losses.assign(num_nodes=losses["num_nodes"].mask(losses["width"] == 256, 4))).empty


@pytest.mark.parametrize(("factor", "flags"), [(1.3, 0), (2.5, 1), (0.4, 1)])
def test_a_speed_far_from_that_of_the_shape_is_found(factor, flags):
    losses = curves(rows=20)
    slow = losses["run"] == "128x4"
    found = find_anomalies(losses.assign(seconds_per_step=losses["seconds_per_step"] * np.where(slow, factor, 1)))
    assert names(found) == [("throughput", "128x4", pd.NA)][:flags] or len(found) == flags == 1
    assert set(found["run"]) <= {"128x4"}


def test_speeds_that_scatter_raise_no_alarm():
    losses = curves(rows=20)
    runs = losses["run"].unique()
    scatter = dict(zip(runs, np.exp(0.25 * np.random.default_rng(1).standard_normal(len(runs))), strict=True))
    assert find_anomalies(losses.assign(seconds_per_step=losses["seconds_per_step"] * losses["run"].map(scatter))).empty


def test_rows_without_run_or_times_or_nodes_are_passed_over():
    losses = curves(rows=10)
    keep = ["suite", "params", "flops_per_token", "tokens", "flops", "validation_set", "loss"]
    assert find_anomalies(table.check(losses[keep], "points of a paper")).empty
    assert find_anomalies(table.check(losses[[*keep, "run", "step"]], "no shapes")).empty


def test_the_table_is_read_as_it_was_written(tmp_path):
    losses = raised(curves(rows=20), "128x4", 4770, 0.2)
    losses.loc[losses["run"] == "64x4", "seconds_per_step"] = np.nan
    found = find_anomalies(losses)
    write_csv(found, tmp_path / "anomalies.csv")
    pd.testing.assert_frame_equal(read(tmp_path / "anomalies.csv"), found, check_dtype=False)
