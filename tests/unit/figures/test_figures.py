"""Every kind of figure: what is drawn, that it is readable, and that its files are whole and repeatable."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import BEST_LR_BASE, CONFIG, TOKENS_PER_STEP, small_study, small_tables, true_loss
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from gemstones.errors import UserError
from gemstones.figures import draw
from gemstones.figures.axes import human, log_ticks, scientific, spread
from gemstones.figures.inputs import Tables, read_tables
from gemstones.figures.kinds import KINDS
from gemstones.figures.output import Drawing, save
from gemstones.figures.style import law_styles, model_styles
from gemstones.files import write_csv, write_json, write_parquet
from gemstones.laws.fit import HuberFit
from gemstones.laws.hull import HullFit
from gemstones.study import Figure as FigureRow
from gemstones.study import load

FITS = {
    "approach_1": ["approach_1_all"],
    "approach_3": ["approach_3_all", "approach_3_all_width_depth"],
    "residuals": ["approach_3_all", "approach_3_all_width_depth"],
    "rainbow": ["approach_1_all", "approach_3_all", "approach_3_late", "approach_3_all_width_depth"],
}
INDUSTRY = pd.DataFrame(
    {
        "name": ["Gemma-2b", "Qwen2-7B", "Qwen2.5-7B"],
        "width": [96, 128, 128],
        "depth": [6, 8, 8],
        "params": [5e5, 9e5, 9e5],
        "loss": [3.6, 3.1, 3.0],
    }
)


@pytest.fixture(scope="module")
def tables() -> dict[str, Tables]:
    everything = small_study("rainbow", sorted({name for names in FITS.values() for name in names}))
    return {kind: of_kind(everything, kind, FITS.get(kind, [])) for kind in KINDS}


@pytest.fixture(scope="module")
def drawings(tables: dict[str, Tables]) -> dict[str, Drawing]:
    return {kind: draw(tables[kind]) for kind in KINDS}


def of_kind(tables: Tables, kind: str, fits: list[str]) -> Tables:
    """The same tables for a figure of another kind, with the laws and prescriptions of its fits."""
    return replace(
        tables,
        figure=FigureRow(kind=kind, fits=tuple(fits)),
        laws={name: tables.laws[name] for name in fits},
        prescriptions={name: tables.prescriptions[name] for name in fits if name in tables.prescriptions},
    )


def with_industry(tables: Tables) -> Tables:
    return replace(tables, others={**tables.others, "industry": INDUSTRY})


def visible_texts(figure: Figure) -> Iterator[tuple[str, Bbox]]:
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    outside = set()  # labels of ticks beyond an axis' limits exist but are not drawn
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
            if not low <= tick.get_loc() <= high:
                outside |= {tick.label1, tick.label2}
    for text in figure.findobj(Text):
        if text not in outside and text.get_visible() and text.get_text().strip():
            yield text.get_text(), text.get_window_extent(renderer)


def overlap(a: Bbox, b: Bbox) -> float:
    """Overlap in pixels, of the narrower direction."""
    return min(min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0))


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_is_small_clipped_or_overlaps_another(kind: str, drawings: dict[str, Drawing]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = drawings[kind].figure
    FigureCanvasAgg(figure).draw()
    assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text().strip()) >= 8
    texts = list(visible_texts(figure))
    page = figure.bbox
    for name, box in texts:
        assert min(box.x0, box.y0) >= -1, f"'{name}' is clipped"
        assert max(box.x1 - page.x1, box.y1 - page.y1) <= 1, f"'{name}' is clipped"
    for (name, box), (other, its_box) in combinations(texts, 2):
        assert overlap(box, its_box) < 2, f"'{name}' overlaps '{other}'"


@pytest.mark.parametrize("kind", KINDS)
def test_legends_stand_outside_the_axes(kind: str, drawings: dict[str, Drawing]) -> None:
    figure = drawings[kind].figure
    figure.draw_without_rendering()
    for legend in figure.legends:
        for axes in figure.axes:
            assert overlap(legend.get_window_extent(), axes.bbox) <= 0
    assert all(axes.get_legend() is None for axes in figure.axes)


@pytest.mark.parametrize("kind", KINDS)
def test_every_drawn_axis_is_named(kind: str, drawings: dict[str, Drawing]) -> None:
    figure = drawings[kind].figure
    labels = {text for axes in figure.axes for text in (axes.get_xlabel(), axes.get_ylabel())}
    labels |= {figure.get_supxlabel(), figure.get_supylabel()}
    assert len(labels - {""}) >= 2
    if kind in ("loss_curves", "approach_1", "lr_ablation", "lr_transfer", "cooldown", "overtraining"):
        assert any("nats/token" in label for label in labels)


@pytest.mark.parametrize("kind", ["cooldown", "rainbow"])
def test_two_writings_are_the_same_bytes(kind: str, tables: dict[str, Tables], tmp_path: Path) -> None:
    for folder in ("first", "second"):
        save(draw(tables[kind]), tmp_path / folder / "figure")
    names = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert names == ["figure.csv", "figure.html", "figure.pdf", "figure.png", "figure.svg"]
    for name in names:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name


def test_page_shows_further_tables_first_and_says_what_it_leaves_out(
    drawings: dict[str, Drawing], tmp_path: Path
) -> None:
    save(drawings["rainbow"], tmp_path / "rainbow")
    page = (tmp_path / "rainbow.html").read_text()
    assert page.index("Slopes") < page.index("Drawn data")
    assert "The first 200 of 246 rows; rainbow.csv has all of them." in page


def test_loss_curves_draw_each_loss_twice(drawings: dict[str, Drawing], losses: pd.DataFrame) -> None:
    main = losses[losses["phase"] == "main"]
    assert len(drawings["loss_curves"].data) == len(main)
    for axes in drawings["loss_curves"].figure.axes:
        drawn = sorted(y for line in axes.get_lines() for y in line.get_ydata())
        assert drawn == sorted(main["loss"])


def test_frontier_in_the_data_is_the_laws(drawings: dict[str, Drawing], tables: dict[str, Tables]) -> None:
    law = tables["approach_1"].laws["approach_1_all"]
    assert isinstance(law, HullFit)
    data = drawings["approach_1"].data
    hull = data[data["on_hull"]].sort_values("flops")
    assert list(hull["flops"]) == [point.resource for point in law.hull]
    assert list(hull["loss_nats_per_token"]) == [point.loss for point in law.hull]
    (lines,) = drawings["approach_1"].tables.values()
    assert list(lines["slope"]) == [line.slope for line in law.lines.values()]


def test_rainbow_is_labelled_in_the_order_of_the_lines_ends(drawings: dict[str, Drawing]) -> None:
    drawing = drawings["rainbow"]
    last = drawing.data[drawing.data["flops"] == drawing.data["flops"].max()].sort_values("params")
    wanted = [name.replace("approach_1", "A1").replace("approach_3", "A3").replace("_", " ") for name in last["name"]]
    labels = list(drawing.figure.axes[0].texts)
    assert [label.get_text() for label in sorted(labels, key=lambda text: text.get_position()[1])] == wanted
    (table,) = drawing.tables.values()
    assert list(table["fit"]) == list(last["name"])[::-1]
    assert drawing.data["flops"].max() == pytest.approx(1e17)  # two decades above the prescriptions


def test_rainbow_of_a_two_covariate_law_is_its_closed_form(
    drawings: dict[str, Drawing], tables: dict[str, Tables]
) -> None:
    law: Any = tables["rainbow"].laws["approach_3_all"]
    curve = drawings["rainbow"].data.query("name == 'approach_3_all'")
    assert list(curve["params"]) == pytest.approx(list(law.law.allocation().params(curve["flops"])))


def test_extrapolation_is_shaded_from_the_end_of_the_data(drawings: dict[str, Drawing], losses: pd.DataFrame) -> None:
    end = losses.loc[losses["phase"] == "main", "flops"].max()
    for kind in ("rainbow", "approach_3"):
        for axes in drawings[kind].figure.axes:
            (shade,) = axes.patches
            assert shade.get_x() == pytest.approx(end)  # type: ignore[attr-defined]


def test_overspend_is_ordered_by_parameters_and_in_percent(
    drawings: dict[str, Drawing], tables: dict[str, Tables]
) -> None:
    data = drawings["overspend"].data
    assert data["params"].is_monotonic_increasing
    table = tables["overspend"].others["overspend"]
    assert data["overspend_percent"].max() == pytest.approx(100 * table["overspend_interpolated"].max())
    labels = [label.get_text() for label in drawings["overspend"].figure.axes[0].get_yticklabels()]
    assert labels == list(dict.fromkeys(data["shape"]))


def test_budgets_beyond_the_data_are_marked(drawings: dict[str, Drawing]) -> None:
    titles = [axes.get_title() for axes in drawings["overtraining"].figure.axes]
    assert titles == ["3×10¹¹ FLOPs", "10¹² FLOPs", "10¹³ FLOPs, extrapolated"]


def test_cooldown_gain_is_against_the_main_run_at_the_same_tokens(drawings: dict[str, Drawing]) -> None:
    data = drawings["cooldown"].data.set_index("run")
    row = data.loc["64x3-cooldown-225"]
    assert row["tokens_end"] == 248 * TOKENS_PER_STEP
    # The synthetic cooldowns end 0.06 below their law, with noise of 0.004.
    assert data["gain_nats_per_token"].mean() == pytest.approx(-0.06, abs=0.01)
    expected = true_loss(row["params"], row["tokens_end"], 64 / 3)
    assert row["loss_main_nats_per_token"] == pytest.approx(expected, abs=0.03)


def test_ablation_is_compared_at_the_same_steps(drawings: dict[str, Drawing]) -> None:
    data = drawings["lr_ablation"].data
    assert set(data["shape"]) == {"32x2", "64x1", "64x3", "96x2"}
    assert set(data["lr_ratio"]) == {0.5}
    assert data["difference_nats_per_token"].mean() == pytest.approx(0.03, abs=0.005)


def test_shapes_whose_best_rate_follows_the_rule_have_it_at_one_lr_base(drawings: dict[str, Drawing]) -> None:
    drawing = drawings["lr_transfer"]
    best = drawing.tables["Best rates"]
    assert list(best["shape"]) == ["32x2", "64x1", "96x2"]
    assert list(best["best_lr_base"]) == pytest.approx([BEST_LR_BASE] * 3)
    assert list(best["best_lr"]) == pytest.approx(list(BEST_LR_BASE / best["width_sqrt_depth"]))
    left, right = drawing.figure.axes
    drawing.figure.draw_without_rendering()
    assert left.bbox.width > 0.3 * drawing.figure.bbox.width
    for axes, column in ((left, "lr"), (right, "lr_base")):
        ticks = [lines.get_segments()[0][0][0] for lines in axes.collections]
        assert ticks == pytest.approx(list(best[f"best_{column}"]))


def test_runs_that_diverged_stand_at_the_top_and_on_no_line(drawings: dict[str, Drawing]) -> None:
    drawing = drawings["lr_transfer"]
    data = drawing.data
    assert list(data.loc[data["diverged"], "run"]) == [f"{s}-lr-{i}" for s in ("32x2", "64x1", "96x2") for i in (5, 6)]
    stopped = data[data["run"].str.endswith("-6")]
    assert stopped["loss_nats_per_token"].isna().all()
    assert np.log(1024) < data.loc[data["run"] == "32x2-lr-5", "loss_nats_per_token"].item()
    for axes, column in zip(drawing.figure.axes, ("lr", "lr_base"), strict=True):
        hollow = [line for line in axes.get_lines() if line.get_markerfacecolor() == "none"]
        filled = [line for line in axes.get_lines() if line.get_markerfacecolor() != "none"]
        assert [x for line in hollow for x in line.get_xdata()] == list(data.loc[data["diverged"], column])
        assert [x for line in filled for x in line.get_xdata()] == list(data.loc[~data["diverged"], column])


def test_runs_before_the_suite_stand_in_for_a_studys_own(tables: dict[str, Tables]) -> None:
    given = tables["lr_transfer"]
    study = given.study.model_copy(update={"runs": None})
    preflight = pd.DataFrame({"shape": "64x1", "width": 64, "depth": 1, "lr": [0.01, 0.02, 0.04], "loss": [4.0, 3, 9]})
    drawing = draw(replace(given, study=study, others={"preflight": preflight}))
    assert list(drawing.data["lr_base"]) == pytest.approx([0.64, 1.28, 2.56])
    assert list(drawing.data["diverged"]) == [False, False, True]  # 9 is above the loss of guessing
    assert "training loss" in drawing.figure.axes[0].get_ylabel()


def test_accuracies_are_drawn_in_percent_with_their_mean_and_guessing(
    drawings: dict[str, Drawing], tables: dict[str, Tables]
) -> None:
    drawing, table = drawings["benchmarks"], tables["benchmarks"].others["benchmarks"]
    data = drawing.data
    assert sorted(data["task"].unique()) == ["arc:easy", "mean of all tasks", "piqa", "siqa"]
    of_run = table[(table["run"] == "64x3") & (table["step"] == 450)]
    mean = data[(data["task"] == "mean of all tasks") & (data["run"] == "64x3") & (data["step"] == 450)].iloc[0]
    assert mean["accuracy_percent"] == pytest.approx(100 * of_run["accuracy"].mean())
    assert mean["standard_error_percent"] == pytest.approx(1 / np.sqrt(3))
    panels = {axes.get_title(): axes for axes in drawing.figure.axes}
    for task, rows in data.groupby("task"):
        lines = [list(line.get_ydata()) for line in panels[str(task)].get_lines()]
        guessing = rows["random_chance_percent"].iloc[0]
        assert [guessing, guessing] in lines
        drawn = sorted(y for line in lines for y in line if len(line) == 10)
        assert drawn == sorted(rows["accuracy_percent"])


def test_laws_of_benchmarks_are_drawn_through_the_checkpoints(
    drawings: dict[str, Drawing], tables: dict[str, Tables]
) -> None:
    from gemstones.laws.curves import ACCURACY, ERROR

    laws = tables["accuracy_law"].others["downstream"]
    for kind, law in (("error_law", ERROR), ("accuracy_law", ACCURACY)):
        data = drawings[kind].data
        for task, row in laws[laws["law"] == law.name].set_index("task").iterrows():
            curve = data[(data["part"] == "law") & (data["task"] == task)]
            expected = law.predict(curve["loss_nats_per_token"].to_numpy(), row[list(law.parameters)].to_numpy(float))
            assert list(curve["value"]) == pytest.approx(list(expected))
            assert (curve["low"] <= curve["value"] + 2e-3).all()
            assert (curve["value"] - 2e-3 <= curve["high"]).all()
            seen = data[(data["part"] == "checkpoint") & (data["task"] == task)]
            assert len(seen) == row["rows"]
            assert (
                curve["loss_nats_per_token"].agg(["min", "max"]).tolist()
                == seen["loss_nats_per_token"].agg(["min", "max"]).tolist()
            )
    left, right = drawings["error_law"].figure.axes
    assert left.xaxis_inverted()
    errors = drawings["error_law"].tables["Held-out errors by model"]
    assert [label.get_text() for label in right.get_yticklabels()] == list(errors["shape"])
    assert errors["params"].is_monotonic_increasing


def test_sets_are_compared_at_the_same_checkpoints(drawings: dict[str, Drawing], losses: pd.DataFrame) -> None:
    data = drawings["validation_sets"].data
    assert list(data["validation_set"].unique()) == ["held_out", "books", "web"]
    main = losses[losses["phase"] == "main"]
    on_main = data["loss_on_main_set"]
    assert np.allclose(data.loc[data["validation_set"] == "web", "above_main_set_percent"], 4)
    books = data["validation_set"] == "books"
    assert np.allclose(data.loc[books, "above_main_set_percent"], 100 * (on_main[books] ** 0.02 - 1))
    assert set(data.loc[books, "step"]) == {405, 450}
    of_main = data[data["validation_set"] == "held_out"]
    assert len(of_main) == len(main[(main["step"] % 90 == 0) | (main["step"] > 400)])
    (summary,) = drawings["validation_sets"].tables.values()
    assert list(summary["checkpoints"]) == [books.sum(), (data["validation_set"] == "web").sum()]


def test_a_best_rate_at_the_end_of_the_rates_is_not_known() -> None:
    from gemstones.figures.lr_transfer import best_rates

    rates = pd.DataFrame({"shape": "8x1", "width_sqrt_depth": 8.0, "lr": [1.0, 2, 4], "loss": [1.0, 2, 3]})
    assert best_rates(rates.assign(diverged=False))["best_lr"].isna().all()
    assert best_rates(rates.assign(diverged=False, loss=[3.0, 1, 3]))["best_lr"].item() == pytest.approx(2)
    assert best_rates(rates.assign(diverged=[False, False, True], loss=[3.0, 1, 3]))["best_lr"].isna().all()


@pytest.mark.parametrize(
    ("kind", "phase"), [("lr_ablation", "lr_ablation"), ("lr_transfer", "lr_transfer"), ("cooldown", "cooldown")]
)
def test_missing_phase_is_one_clear_message(kind: str, phase: str, losses: pd.DataFrame) -> None:
    tables = small_tables(kind, losses=losses[losses["phase"] != phase])
    with pytest.raises(UserError, match=f"no row of phase '{phase}'"):
        draw(tables)


def test_coverage_is_drawn_with_its_binomial_errors(drawings: dict[str, Drawing]) -> None:
    many, few = drawings["coverage"].figure.axes
    assert [axes.get_title() for axes in (many, few)] == ["many, 40 suites", "few, 40 suites"]
    assert [label.get_text() for label in many.get_yticklabels()] == [
        "exponent params", "N*(3×10²¹)", "hull: params slope",
    ]  # fmt: skip
    for axes in (many, few):
        bars: list[Any] = axes.containers
        assert [set(bar.lines[0].get_xdata()) for bar in bars] == [{0.95}, {0.4}, {1.0}]
        ends = [x for bar in bars for lines in bar.lines[2] for line in lines.get_segments() for x, _ in line]
        assert min(ends) == pytest.approx(0.94 * 0.4)
        assert max(ends) == 1


@pytest.mark.parametrize(
    "kind",
    [
        "approach_1",
        "approach_3",
        "rainbow",
        "residuals",
        "held_out",
        "overspend",
        "overtraining",
        "coverage",
        "benchmarks",
        "error_law",
        "accuracy_law",
    ],
)
def test_missing_table_is_one_clear_message(kind: str) -> None:
    with pytest.raises(UserError, match=f"figure of kind '{kind}'"):
        draw(small_tables(kind))


def test_residuals_are_of_every_row_and_law(drawings: dict[str, Drawing], tables: dict[str, Tables]) -> None:
    drawing = drawings["residuals"]
    main = tables["residuals"].rows("all")
    for name, law in tables["residuals"].laws.items():
        assert isinstance(law, HuberFit)
        data = drawing.data[drawing.data["fit"] == name]
        predicted = law.predict(data.assign(**dict(zip(("width", "depth"), _sides(data["shape"]), strict=True))))
        assert list(data["residual_percent"]) == pytest.approx(
            list(100 * np.log(data["loss_nats_per_token"] / predicted))
        )
        assert sorted(data["loss_nats_per_token"]) == sorted(main["loss"])
    panels = drawing.figure.axes
    assert len(panels) == 6
    for i, axes in enumerate(panels):
        name = list(tables["residuals"].laws)[i // 3]
        drawn = sorted(y for line in axes.get_lines() for y in line.get_ydata() if len(line.get_ydata()) != 2)
        assert drawn == sorted(drawing.data.loc[drawing.data["fit"] == name, "residual_percent"])
    # The losses depend on width/depth: less of that is left where the law knows of it.
    left = drawing.tables["Residuals by model"].groupby("fit")["mean_residual_percent"].std()
    assert left["approach_3_all_width_depth"] < 0.7 * left["approach_3_all"]


def _sides(shapes: pd.Series) -> tuple[pd.Series, pd.Series]:
    sides = shapes.str.split("x", expand=True).astype(float)
    return sides[0], sides[1]


def test_spikes_are_ringed(tables: dict[str, Tables]) -> None:
    anomalies = pd.DataFrame(
        {
            "suite": ["small", "small", "small", "other", "small"],
            "run": ["64x3", "96x2", "96x2", "32x2", "32x2"],
            "step": [90, 135, None, 90, 90],
            "validation_set": ["held_out", "held_out", None, "held_out", "web"],
            "kind": ["spike", "spike", "throughput", "spike", "spike"],
        }
    )
    drawing = draw(replace(tables["residuals"], others={"anomalies": anomalies}))
    flagged = drawing.data[drawing.data["flagged"]]
    assert set(zip(flagged["run"], flagged["step"], strict=True)) == {("64x3", 90), ("96x2", 135)}
    for axes in drawing.figure.axes:
        (ring,) = [line for line in axes.get_lines() if line.get_markerfacecolor() == "none"]
        assert len(ring.get_ydata()) == 2
    assert "spike" in [text.get_text() for text in drawing.figure.legends[0].get_texts()]


def test_held_out_errors_are_the_tables_in_percent(drawings: dict[str, Drawing], tables: dict[str, Tables]) -> None:
    drawing, table = drawings["held_out"], tables["held_out"].others["comparison"]
    names = ["leave_one_run_out", "small_to_large", "short_to_long"]
    for name, axes in zip(names, drawing.figure.axes, strict=True):
        of_test = drawing.data[drawing.data["test"] == name]
        assert list(of_test["error_percent"]) == list(100 * table[f"{name}_mean_absolute_error"].dropna())
        filled, hollow = (
            sorted(x for line in axes.get_lines() if (line.get_markerfacecolor() == "white") == white
                   and line.get_marker() != "|" for x in line.get_xdata())
            for white in (False, True)
        )  # fmt: skip
        again = of_test["parameters_from"] == "fitted here"
        assert filled == sorted(of_test.loc[again, "error_percent"])
        assert hollow == sorted(of_test.loc[~again, "error_percent"])
    labels = [label.get_text() for label in drawing.figure.axes[0].get_yticklabels()]
    assert labels[-3:] == ["params, tokens (authors)", "Chinchilla (published)", "Kaplan (published)"]


def test_industry_models_are_drawn_where_given(tables: dict[str, Tables]) -> None:
    shapes = draw(replace(tables["shapes"], others={"industry": INDUSTRY}))
    assert set(shapes.data.loc[shapes.data["group"] == "industry", "name"]) == set(INDUSTRY["name"])
    labels = [text.get_text() for text in shapes.figure.legends[0].get_texts()]
    assert "2  Qwen2-7B,\n     Qwen2.5-7B" in labels
    overtraining = draw(with_industry(tables["overtraining"]))
    (shown,) = overtraining.tables.values()
    assert set(shown["name"]) <= set(INDUSTRY["name"])


def test_colours_do_not_depend_on_the_figure(tables: dict[str, Tables]) -> None:
    assert model_styles(tables["shapes"]) == model_styles(tables["cooldown"])
    styles = model_styles(tables["shapes"])
    assert len({(style.color, style.marker) for style in styles.values()}) == len(styles)
    laws = law_styles(load(CONFIG))
    assert len({laws[name] for name in FITS["approach_3"]}) == 2


def test_tables_are_read_by_the_names_of_their_files(tables: dict[str, Tables], tmp_path: Path) -> None:
    given = tables["approach_3"]
    write_parquet(given.losses, tmp_path / "losses.parquet")
    write_csv(given.shapes, tmp_path / "shapes.csv")
    write_csv(INDUSTRY, tmp_path / "industry.csv")
    for name, law in given.laws.items():
        write_json(law.to_json(), tmp_path / f"{name}.json")
    for name, table in given.prescriptions.items():
        write_parquet(table, tmp_path / f"{name}.parquet")
    write_parquet(given.others["overspend"], tmp_path / "overspend.parquet")
    fits = FITS["approach_3"]
    inputs = SimpleNamespace(
        losses=str(tmp_path / "losses.parquet"),
        shapes=str(tmp_path / "shapes.csv"),
        laws=[str(tmp_path / f"{name}.json") for name in reversed(fits)],
        prescriptions=[str(tmp_path / f"{name}.parquet") for name in fits],
        others=[str(tmp_path / "overspend.parquet"), str(tmp_path / "industry.csv")],
    )
    read = read_tables(inputs, {"kind": "approach_3", "fits": fits, "selection": None}, CONFIG)
    assert list(read.laws) == fits
    assert read.laws == dict(given.laws)
    assert list(read.prescriptions) == fits
    assert set(read.others) == {"overspend", "industry"}


def test_small_helpers() -> None:
    assert [human(value) for value in (950e6, 2.4e9, 999_999_999, 300e9, 12, 0.003)] == [
        "950M", "2.4B", "1B", "300B", "12", "0.003",
    ]  # fmt: skip
    assert [scientific(value) for value in (7.016e19, 1e-3)] == ["7.02×10¹⁹", "10⁻³"]
    assert log_ticks(1e18, 1e28, 6) == [1e18, 1e20, 1e22, 1e24, 1e26, 1e28]
    assert log_ticks(90, 700, 5) == [100, 200, 500]
    places = spread(pd.Series([0.5, 0.5, 0.51, 0.9]).to_numpy(float), 0.1)
    assert min(b - a for a, b in pairwise(places)) >= 0.1 - 1e-12
    assert places[-1] == pytest.approx(0.9)
