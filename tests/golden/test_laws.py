"""The authors' published fits, from the rows that they published."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import huber

from gemstones.laws import PowerLaw, fit_huber, fit_hull
from gemstones.suite import counting

KINDS = {
    "parameters": ("params", "tokens"),
    "width_depth": ("width", "depth", "tokens"),
    "width_depth_parameters": ("width", "depth", "params", "tokens"),
}
SUBSETS = [
    "cool_begin", "cool_begin_no_embeds", "cool_end", "cool_end_no_embeds", "hot", "hot_100b+", "hot_100b+_512x",
    "hot_100b+_no_embeds", "hot_120b+_only", "hot_120b+_only_no_embeds", "hot_no_embeds",
    "hot_sampled_like_chinchilla", "lr_ablation_hot", "lr_ablation_hot_no_embeds",
    "lr_ablation_hot_sampled_like_chinchilla", "slim_chinchilla",
]  # fmt: skip
LAWS = [
    *[("parameters", subset) for subset in SUBSETS],
    ("width_depth", "hot_100b+"),
    *[("width_depth_parameters", subset) for subset in ("cool_end", "hot_100b+", "lr_ablation_hot")],
]
# Published for delta = 1e-4 only.
LAWS_DELTA_4 = [*LAWS, ("width_depth_parameters", "hot"), ("width_depth_parameters", "hot_120b+_only")]
HULLS = {
    "": ("hot_477", 21),
    "_100b+": ("hot_100b+_477", 28),
    "_120b+_only": ("hot_120b+_only_477", 14),
    "_lr_ablation": ("lr_ablation_hot_477", 17),
    "_cooldown": ("cool_end", 12),
}


def rows(folder: Path, subset: str) -> pd.DataFrame:
    table = pd.read_json(folder / f"wandb_dfs/wandb_df_for_fitting_{subset}.jsonl", lines=True).rename(
        columns={"params_active_precise": "params", "final_loss": "loss", "run_name": "run", "FLOPs": "flops"}
    )
    if "width" not in table:  # points of Hoffmann et al. have neither shape nor tokens
        return table.assign(tokens=table["flops"] / (6 * table["params"]))
    embedding = 50_304 * table["width"]
    return table.assign(
        params_no_input_embedding=table["params"] - embedding,
        params_no_embeddings=table["params"] - 2 * embedding,
        flops=counting.flops_per_token(table["width"], table["depth"]) * table["tokens"],
    )


@pytest.mark.parametrize(
    ("exponent", "kind", "subset"),
    [*[(4, *law) for law in LAWS_DELTA_4], *[(3, *law) for law in LAWS]],
)
def test_converged_fits_are_at_least_as_good_as_published(released_folder, exponent, kind, subset):
    delta = 10.0**-exponent
    path = released_folder / f"parameters_delta-{exponent}/approach_3_{kind}_grid_search_0_{subset}.json"
    stored = {name: value["0"] for name, value in json.loads(path.read_text()).items()}
    count = "params_no_input_embedding" if subset.endswith("_no_embeds") else "params"
    table = rows(released_folder, subset.removesuffix("_no_embeds"))
    published = PowerLaw(
        KINDS[kind],
        tuple(stored["exponents"]),
        tuple(stored["coefficients"]),
        np.exp(stored["irreducible_error"]),  # they store log E
        count,
    )

    def objective(law: PowerLaw) -> float:
        return float(huber(delta, np.log(table["loss"]) - np.log(law.predict(table))).sum())

    assert objective(published) == pytest.approx(stored["loss"], abs=2e-10)
    fit = fit_huber(table, KINDS[kind], count, delta)
    assert fit.objective <= objective(published)
    assert fit.objective == pytest.approx(objective(fit.law), rel=1e-9)
    assert fit.gradient_norm < 1e-7
    assert fit.share_of_starts_at_optimum == 1
    not_identified = any("irreducible loss is not identified" in warning for warning in fit.warnings)
    assert not_identified == (kind == "width_depth")


@pytest.mark.parametrize(
    ("subset", "kind", "objective", "slope"),
    [
        ("hot_100b+", "parameters", 6.923289e-4, None),
        ("cool_end", "parameters", 2.047791e-4, 0.6609),
        ("hot_100b+", "width_depth_parameters", 2.948053e-4, None),
    ],
)
def test_known_minima(released_folder, subset, kind, objective, slope):
    fit = fit_huber(rows(released_folder, subset), KINDS[kind])
    assert fit.objective == pytest.approx(objective, rel=3e-7)
    if slope:
        assert fit.law.slope == pytest.approx(slope, abs=5e-5)


@pytest.mark.parametrize(("subset", "kind"), [("hot", "parameters"), ("hot_100b+", "width_depth_parameters")])
@pytest.mark.parametrize("delta", [1e-5, 1e-4, 1e-1])
def test_other_starts_reach_the_same_minimum(released_folder, subset, kind, delta):
    table = rows(released_folder, subset)
    objectives = [fit_huber(table, KINDS[kind], huber_delta=delta, seed=seed).objective for seed in range(3)]
    assert objectives == pytest.approx([min(objectives)] * 3, rel=1e-9)


@pytest.mark.parametrize("suffix", HULLS)
@pytest.mark.parametrize(("count", "marker"), [("params", ""), ("params_no_embeddings", "_no_embeds")])
def test_hulls_and_lines_are_the_published_ones(released_folder, suffix, count, marker):
    subset, size = HULLS[suffix]
    fit = fit_hull(rows(released_folder, subset), param_count=count)
    assert fit.hull_size == size
    compared = 0
    for name, line in fit.lines.items():
        path = released_folder / f"parameters/approach_1_linear_regression_{name}{suffix}{marker}.json"
        if path.exists():  # tokens per parameter: not for every variant
            stored = json.loads(path.read_text())
            assert line.slope == pytest.approx(stored["coef"][0], abs=1e-9)
            assert line.intercept == pytest.approx(stored["intercept"], abs=1e-9)
            compared += 1
    assert compared >= 2


def test_known_lines(released_folder):
    lines = fit_hull(rows(released_folder, "hot_477")).lines
    assert (lines["params"].slope, lines["params"].intercept) == pytest.approx((0.4993802, -2.8451077), abs=5e-8)
    assert (lines["tokens"].slope, lines["tokens"].intercept) == pytest.approx((0.48099, 1.89632), abs=5e-6)


def test_every_published_fit_is_compared(released_folder):
    counts = [
        len(os.listdir(released_folder / name)) for name in ("parameters", "parameters_delta-4", "parameters_delta-3")
    ]
    assert counts == [24, len(LAWS_DELTA_4), len(LAWS)]
