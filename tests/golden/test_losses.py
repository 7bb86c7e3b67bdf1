"""On the authors' files, every selection of the one table is the authors' file, row for row."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from gemstones.errors import UserError
from gemstones.losses import released as source
from gemstones.losses.selections import select

FILES = {
    "hot": ("hot", 220),
    "hot_dense": ("hot_477", 1100),
    "all": ("hot_100b+", 770),
    "all_dense": ("hot_100b+_477", 3850),
    "over_120b": ("hot_120b+_only", 528),
    "over_120b_dense": ("hot_120b+_only_477", 2552),
    "width_512": ("hot_100b+_512x", 175),
    "lr_ablation": ("lr_ablation_hot", 200),
    "lr_ablation_dense": ("lr_ablation_hot_477", 1000),
    "cooldown_start": ("cool_begin", 199),
    "cooldown_end": ("cool_end", 199),
    "chinchilla_like": ("hot_sampled_like_chinchilla", 24),
    "chinchilla_like_lr_ablation": ("lr_ablation_hot_sampled_like_chinchilla", 23),
    "chinchilla_reduced": ("slim_chinchilla", 28),
    "chinchilla_reduced_lr_ablation": ("lr_ablation_slim_chinchilla", 27),
}
# The authors rounded the tokens of these two files to 1e9.
ROUNDED = {"chinchilla_like", "chinchilla_like_lr_ablation"}


@pytest.fixture(scope="module")
def losses(released_folder, released, tmp_path_factory):
    return source.released_losses(released, tmp_path_factory.mktemp("downloads"))


OTHER_SETS = {
    "all_fineweb": ("fineweb", 88),
    "all_fineweb_edu": ("fineweb_edu", 770),
    "all_dclm": ("dclm", 770),
}


def test_every_selection_is_checked(released):
    assert set(released.selections) == set(FILES) | set(OTHER_SETS) | {"chinchilla", "chinchilla_all"}


def test_besiroglus_points_are_all_but_five(losses, released):
    every, some = (select(losses, released.selections[name], name) for name in ("chinchilla_all", "chinchilla"))
    assert (len(every), len(some)) == (245, 240)
    left_out = every.merge(some, how="outer", indicator=True).query("_merge == 'left_only'")
    assert left_out["loss"].min() > some["loss"].max()


@pytest.mark.parametrize("selection", OTHER_SETS)
def test_other_sets_have_the_losses_of_the_authors_file_of_each_model(selection, losses, released, released_folder):
    name, count = OTHER_SETS[selection]
    rows = select(losses, released.selections[selection], selection)
    assert (len(rows), set(rows["validation_set"])) == (count, {name})
    for run, ours in rows.groupby("run"):
        theirs = json.loads(
            (released_folder / f"other_validation_losses/{name}_losses/Gemstone-{run}.json").read_text()
        )
        theirs = {83_475 if key == "main" else int(key.removeprefix("step_")): loss for key, loss in theirs.items()}
        assert dict(zip(ours["step"], ours["loss"], strict=True)) == pytest.approx(theirs, abs=1e-9)
    # What else is known of a checkpoint is the same on all sets.
    same = [column for column in losses if column not in ("validation_set", "loss")]
    dolma = select(losses, released.selections["all"], "all").merge(rows[["run", "step"]])
    pd.testing.assert_frame_equal(rows[same], dolma[same])


def test_preflight_runs_are_four_shapes_at_six_rates(released_folder, tmp_path):
    runs = source.preflight_runs(tmp_path)
    assert set(runs["shape"]) == {"256x80", "768x3", "1536x50", "3072x12"}
    assert all(list(rates) == [1e-4, 5e-4, 1e-3, 5e-3, 1e-2, 5e-2] for _, rates in runs.groupby("shape")["lr"])
    assert runs.loc[runs["loss"].idxmax(), ["shape", "lr"]].tolist() == ["3072x12", 5e-2]
    assert runs.query("shape == '256x80' and lr == 5e-3")["loss"].item() == pytest.approx(3.62075, abs=1e-5)


@pytest.mark.parametrize("name", FILES)
def test_selection_equals_the_authors_file(name, losses, released, released_folder):
    file, count = FILES[name]
    theirs = pd.read_json(
        released_folder / f"wandb_dfs/wandb_df_for_fitting_{file}.jsonl", lines=True, precise_float=True
    )
    ours = select(losses, released.selections[name], name)
    assert len(ours) == len(theirs) == count
    if name.startswith("chinchilla_reduced"):
        pairs = [("params", "params_active_precise"), ("flops", "FLOPs"), ("tokens", "tokens"), ("loss", "final_loss")]
        order, their_order = ["params", "flops"], ["params_active_precise", "FLOPs"]
    else:
        pairs = [
            ("width", "width"), ("depth", "depth"), ("step", "step"), ("params", "params_active_precise"),
            ("num_nodes", "num_nodes"), ("seconds_per_step", "seconds_per_step"), ("tokens", "tokens"),
            ("loss", "final_loss"),
        ]  # fmt: skip
        order = their_order = ["width", "depth", "step"]
    ours, theirs = ours.sort_values(order), theirs.sort_values(their_order)
    for mine, their in pairs:
        if mine == "tokens" and name in ROUNDED:
            assert (theirs["tokens"] / 1e9).round().eq(theirs["tokens"] / 1e9).all()
            continue
        np.testing.assert_allclose(ours[mine].to_numpy(float), theirs[their].to_numpy(float), rtol=1e-9, atol=0)


def test_runs_keep_their_phase_and_parent(losses):
    cooldowns = losses[losses["phase"] == "cooldown"]
    assert cooldowns["run"].nunique() == 199
    assert set(cooldowns.groupby("run").size()) == {2}
    assert (cooldowns["parent"] == cooldowns["run"].str.split("-").str[0]).all()


def test_a_truncated_file_is_named(released_folder, released, tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    shutil.copytree(released_folder, copy)
    broken = copy / source.MAIN
    broken.chmod(0o644)
    broken.write_bytes(broken.read_bytes()[:-100])
    monkeypatch.setenv("GEMSTONES_DATA", str(copy))
    with pytest.raises(UserError, match=r"hot_100b\+_477\.jsonl: not the released file"):
        source.released_losses(released, tmp_path / "downloads")


def test_without_network_and_folder_the_error_says_what_to_set(released, tmp_path, monkeypatch):
    monkeypatch.delenv("GEMSTONES_DATA", raising=False)
    monkeypatch.setattr(source, "BASE_URL", "http://127.0.0.1:9/")
    with pytest.raises(UserError, match=r"download failed.*GEMSTONES_DATA"):
        source.released_losses(released, tmp_path)
