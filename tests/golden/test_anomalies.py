"""What stands out in the authors' released losses."""

import pandas as pd
import pytest

from gemstones.laws.sensitivity import without_flagged
from gemstones.losses.anomalies import find_anomalies
from gemstones.losses.released import released_losses


@pytest.fixture(scope="module")
def losses(released_folder, released, tmp_path_factory) -> pd.DataFrame:
    return released_losses(released, tmp_path_factory.mktemp("downloads"))


@pytest.fixture(scope="module")
def anomalies(losses) -> pd.DataFrame:
    return find_anomalies(losses)


def test_the_known_spike_is_the_greatest_and_on_every_set_that_its_checkpoint_was_evaluated_on(anomalies):
    spikes = anomalies[anomalies["kind"] == "spike"].sort_values("deviation", ascending=False).head(3)
    assert set(zip(spikes["run"], spikes["step"], strict=True)) == {("1024x28", 28620)}
    assert list(spikes["validation_set"]) == ["dolma", "dclm", "fineweb_edu"]
    assert list(spikes["deviation"]) == pytest.approx([0.078, 0.068, 0.062], abs=1e-3)


def test_all_spikes_are_the_nine_rows_of_five_events(anomalies):
    elsewhere = anomalies[(anomalies["kind"] == "spike") & (anomalies["validation_set"] != "dolma")]
    assert set(zip(elsewhere["run"], elsewhere["step"], strict=True)) == {("1024x28", 28620), ("1536x50", 54855)}
    spikes = anomalies[(anomalies["kind"] == "spike") & (anomalies["validation_set"] == "dolma")]
    assert list(zip(spikes["run"], spikes["step"], strict=True)) == [
        ("1024x28", 28620),
        *[("1536x50", step) for step in (54855, 55332, 55809, 56286, 56763)],
        ("1792x18", 62487), ("1792x18", 73458), ("3072x12", 53424),
    ]  # fmt: skip


def test_the_only_gap_is_the_missing_cooldown(anomalies):
    (gap,) = anomalies[anomalies["kind"] == "gap"].itertuples()
    assert (gap.run, gap.step, gap.quantity) == ("3072x12", 23840, "cooldowns")


def test_512x16_alone_has_gpu_hours_that_do_not_compare(anomalies):
    flags = anomalies[anomalies["kind"] == "throughput"]
    assert len(flags) == 12  # the main run, its ablation and ten cooldowns
    assert set(flags["run"].str.split("-").str[0]) == {"512x16"}
    main = flags[flags["run"] == "512x16"].iloc[0]
    assert (main["quantity"], main["value"], main["expected"]) == ("num_nodes", 8, 16)
    assert "siblings of its width (512x11, 512x12, 512x13, 512x14) on 16" in main["reason"]


def test_the_effect_on_the_fits(losses, anomalies, released):
    fits = ["approach_1_all", "approach_1_all_gpu_hours", "approach_3_hot", "approach_3_all", "approach_3_over_120b"]
    study = released.model_copy(update={"fits": {name: released.fits[name] for name in fits}})
    effect = without_flagged(study, losses, anomalies).set_index("fit")
    assert list(effect.index) == [name for name in fits if name != "approach_3_hot"]
    assert list(effect["flagged_rows"]) == [9, 9 + 175, 2, 2]
    slopes = effect[["slope", "slope_without"]]
    assert slopes.loc["approach_3_all"].tolist() == pytest.approx([0.69585, 0.69538], abs=1e-5)
    assert slopes.loc["approach_3_over_120b"].tolist() == pytest.approx([0.75236, 0.74665], abs=1e-5)
    for name in ("approach_1_all", "approach_1_all_gpu_hours"):  # no flagged row is on the hull
        assert slopes.loc[name, "slope"] == slopes.loc[name, "slope_without"]
