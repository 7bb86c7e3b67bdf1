"""Every kind of figure: what is drawn, that it is readable, and that its files are whole and repeatable."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, groupby, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import BEST_LR_BASE, CONFIG, TOKENS_PER_STEP, small_study, small_tables, true_loss
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from gemstones.errors import UserError
from gemstones.figures import draw
from gemstones.figures.against_runs import FEWEST, PANELS
from gemstones.figures.axes import human, log_ticks, scientific, spread
from gemstones.figures.frontier import COLORS
from gemstones.figures.held_out import chosen_form
from gemstones.figures.hulls import plot_runs
from gemstones.figures.inputs import Tables, read_tables
from gemstones.figures.interaction import WITHIN
from gemstones.figures.kinds import KINDS
from gemstones.figures.output import Drawing, save
from gemstones.figures.plane import params_by_width
from gemstones.figures.style import APART, MARKERS, PALETTE, law_styles, model_styles
from gemstones.files import write_csv, write_json, write_parquet
from gemstones.laws.choice import COLUMNS as CHOICE
from gemstones.laws.fit import HuberFit
from gemstones.laws.hull import HullFit, best_per_bin
from gemstones.laws.uncertainty import Uncertainty
from gemstones.prescriptions.against_runs import LOWEST
from gemstones.prescriptions.run_curves import Curves
from gemstones.study import Figure as FigureRow
from gemstones.study import Study, load
from gemstones.suite.shapes import architecture
from gemstones.suite.tables import shapes_table
from tests.conftest import config_of

FITS = {
    "approach_1": ["approach_1_all", "approach_1_all_gpu_hours"],
    "frontier": ["approach_1_all", "approach_1_all_gpu_hours"],
    "reduced_sampling": ["approach_3_all", "approach_3_late"],
    "approach_3": ["approach_3_all_width_depth", "approach_3_all", "approach_1_all"],
    "bootstrap_pairs": ["approach_3_all", "approach_3_late"],
    "residuals": ["approach_3_all", "approach_3_all_width_depth"],
    "rainbow": ["approach_1_all", "approach_3_all", "approach_3_late", "approach_3_all_width_depth"],
    "against_runs": ["approach_3_all_width_depth"],
    "interaction": ["approach_3_all", "approach_3_late", "approach_3_all_width_depth", "approach_3_all_interaction"],
}
OPTIONS: dict[str, dict[str, Any]] = {"approach_1": {"panels": "small", "binning": True}}
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
        figure=FigureRow(kind=kind, fits=tuple(fits), **OPTIONS.get(kind, {})),
        laws={name: tables.laws[name] for name in fits},
        resamples={name: tables.resamples[name] for name in fits},
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
    if kind in ("loss_curves", "approach_1", "frontier", "lr_ablation", "lr_transfer", "cooldown", "overtraining"):
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
    assert "The first 200 of 252 rows; rainbow.csv has all of them." in page


def test_loss_curves_draw_each_loss_twice(drawings: dict[str, Drawing], losses: pd.DataFrame) -> None:
    main = losses[losses["phase"] == "main"]
    assert len(drawings["loss_curves"].data) == len(main)
    for axes in drawings["loss_curves"].figure.axes:
        assert sorted(y for line in curves(axes) for y in line.get_ydata()) == sorted(main["loss"])
    last = main[main["step"] == 450].sort_values("loss", ascending=False)
    labels = sorted(drawings["loss_curves"].figure.axes[1].texts, key=lambda text: -text.xy[1])  # type: ignore[attr-defined]
    assert [label.get_text() for label in labels] == list(last["run"])


def curves(axes: Axes) -> list[Line2D]:
    """Lines that draw data, not those that join a curve to its name."""
    return [line for line in axes.get_lines() if line.get_transform() != axes.transAxes]


def test_frontier_in_the_data_is_the_laws(drawings: dict[str, Drawing], tables: dict[str, Tables]) -> None:
    law = tables["approach_1"].laws["approach_1_all"]
    assert isinstance(law, HullFit)
    data = drawings["approach_1"].data
    hull = data[data["on_hull"] & (data["fit"] == "approach_1_all")].sort_values("flops")
    assert list(hull["flops"]) == [point.resource for point in law.hull]
    assert list(hull["loss_nats_per_token"]) == [point.loss for point in law.hull]
    (lines,) = drawings["approach_1"].tables.values()
    frontier = lines[(lines["fit"] == "approach_1_all") & (lines["method"] == "frontier")]
    assert list(frontier["slope"]) == [line.slope for line in law.lines.values()]


def test_a_line_through_the_frontier_has_the_band_of_its_resamples(
    drawings: dict[str, Drawing], tables: dict[str, Tables]
) -> None:
    law, resamples = (of["approach_1_all"] for of in (tables["approach_1"].laws, tables["approach_1"].resamples))
    uncertainty = Uncertainty(law, resamples)
    (lines,) = drawings["approach_1"].tables.values()
    row = lines.query("fit == 'approach_1_all' and method == 'frontier' and quantity == 'tokens_per_param'").iloc[0]
    assert (row["slope_low"], row["slope_high"]) == uncertainty.interval(resamples["slope_tokens_per_param"])
    _, _, panel, _ = drawings["approach_1"].figure.axes
    (band,) = panel.collections
    ends = band.get_paths()[0].vertices[1:]
    (resource, low), high = ends[0], ends[ends[:, 0] == ends[0, 0], 1].max()
    values = np.exp(resamples["slope_tokens_per_param"] * np.log(resource) + resamples["intercept_tokens_per_param"])
    assert (low, high) == pytest.approx(uncertainty.interval(values))
    assert f"({row['slope_low']:.2f}, {row['slope_high']:.2f})".replace("-", "−") in panel.get_title(loc="left")
    without = draw(replace(tables["approach_1"], resamples={}))
    assert not without.figure.axes[2].collections
    assert "(" not in without.figure.axes[2].get_title(loc="left")


def test_published_laws_are_drawn_where_the_resource_is_flops(drawings: dict[str, Drawing]) -> None:
    def black(axes: Axes) -> int:
        return sum(line.get_color() == "black" for line in axes.get_lines())

    assert [black(axes) for axes in drawings["approach_1"].figure.axes] == [1, 1, 2, 0]  # frontiers above


def test_bins_have_a_line_of_their_own(drawings: dict[str, Drawing], tables: dict[str, Tables]) -> None:
    kept = best_per_bin(tables["approach_1"].rows("all"), "flops")
    data = drawings["approach_1"].data.query("fit == 'approach_1_all' and best_of_bin")
    assert sorted(data["flops"]) == list(kept["flops"])
    (lines,) = drawings["approach_1"].tables.values()
    slopes = lines[(lines["fit"] == "approach_1_all") & (lines["method"] == "bins")].set_index("quantity")["slope"]
    slope = np.polyfit(np.log(kept["flops"]), np.log(kept["tokens"] / kept["params"]), 1)[0]
    assert slopes["tokens_per_param"] == pytest.approx(slope)
    panel = drawings["approach_1"].figure.axes[2]
    assert panel.get_title(loc="right") == f"bins {slope:.2f}".replace("-", "−")


def test_approach_1_has_a_row_of_panels_for_every_quantity(tables: dict[str, Tables]) -> None:
    full = FigureRow(kind="approach_1", fits=tuple(FITS["approach_1"]))
    drawing = draw(replace(tables["approach_1"], figure=full))
    labels = [axes.get_ylabel() for axes in drawing.figure.axes[::2]]
    assert labels == ["validation loss\n(nats/token)", "optimal parameters", "optimal tokens", "tokens per parameter"]
    (lines,) = drawing.tables.values()
    assert set(lines["method"]) == {"frontier"}


def test_ends_of_cooldowns_are_joined_in_the_order_of_the_resource(tables: dict[str, Tables]) -> None:
    rows = pd.DataFrame(
        {"run": ["8x1-cooldown-900", "8x1-cooldown-1000", "8x2-cooldown-900"], "shape": ["8x1", "8x1", "8x2"],
         "flops": [9.0, 10.0, 18.0], "loss": [3.0, 2.0, 2.5]}
    ).sort_values("run")  # fmt: skip
    law = tables["approach_1"].laws["approach_1_all"]
    assert isinstance(law, HullFit)
    axes = Figure().subplots()
    plot_runs(axes, rows, law, {})
    assert [list(line.get_xdata()) for line in axes.get_lines()] == [[9.0, 10.0], [18.0]]


def test_the_frontier_is_coloured_by_quartiles_of_the_aspect_ratio(
    drawings: dict[str, Drawing], tables: dict[str, Tables]
) -> None:
    drawing = drawings["frontier"]
    data = drawing.data
    models = data.drop_duplicates(["width", "depth"])
    assert models["quartile"].value_counts().between(3, 5).all()  # fifteen models
    assert list(models.sort_values("aspect_ratio")["quartile"]) == sorted(models["quartile"])
    for axes, (fit, rows) in zip(drawing.figure.axes, data.groupby("fit", sort=False), strict=True):
        hull = rows[rows["on_hull"]]
        points = {line.get_color(): set(line.get_ydata()) for line in axes.get_lines() if line.get_marker() == "o"}
        wanted = {
            COLORS[int(str(quartile)) - 1]: set(of["loss_nats_per_token"]) for quartile, of in hull.groupby("quartile")
        }
        assert points == wanted
        law = tables["frontier"].laws[str(fit)]
        assert isinstance(law, HullFit)
        turns = [name for name, _ in groupby(str(point.run) for point in law.hull)]
        assert [text.get_text() for text in sorted(axes.texts, key=lambda text: -text.get_position()[1])] == turns  # type: ignore[attr-defined]


def test_reduced_sampling_says_how_many_points_give_which_slope(
    drawings: dict[str, Drawing], tables: dict[str, Tables]
) -> None:
    drawing, laws = drawings["reduced_sampling"], tables["reduced_sampling"].laws
    (slopes,) = drawing.tables.values()
    assert list(slopes["rows"]) == [150, 105]
    assert list(slopes["slope"]) == [law.law.slope for law in laws.values()]  # type: ignore[union-attr]
    assert (slopes["slope_low"] < slopes["slope"]).all()
    assert (slopes["slope"] < slopes["slope_high"]).all()
    first = slopes.iloc[0]
    label = f"A3 all: 150 points, a = {first['slope']:.2f} ({first['slope_low']:.2f}, {first['slope_high']:.2f})"
    assert label in [text.get_text() for text in drawing.figure.legends[0].get_texts()]


@pytest.fixture(scope="module")
def paper() -> Study:
    return load(config_of("released"))


def test_feasible_shapes_of_the_papers_suite(paper: Study) -> None:
    shapes = shapes_table(paper.suite)
    drawing = draw(Tables(paper, FigureRow(kind="feasible_shapes"), pd.DataFrame(), shapes))
    (counts,) = drawing.tables.values()
    assert list(counts["feasible_shapes"]) == [5, 13, 28, 62, 74, 97, 107]
    labels = [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    assert {"7B: 107", "50M: 5", "feasible: 16", "pinned: 6"} <= set(labels)


def test_flops_per_token_over_6n_of_the_papers_suite(paper: Study) -> None:
    shapes = shapes_table(paper.suite)
    drawing = draw(Tables(paper, FigureRow(kind="flops_ratio"), pd.DataFrame(), shapes))
    ratios = drawing.data.set_index("shape")["flops_ratio"]
    assert (round(ratios["256x80"], 3), round(ratios["768x3"], 3)) == (1.591, 0.709)
    (axes,) = drawing.figure.axes
    assert {"1.591", "0.709"} <= {text.get_text() for text in axes.texts}
    base, per_layer = params_by_width(np.array([512.0, 2560]), architecture(paper.suite))
    wanted = shapes.set_index("shape").loc[["512x12", "2560x8"], "params"]
    assert list(base + per_layer * [12, 8]) == pytest.approx(list(wanted))


def test_rainbow_is_labelled_in_the_order_of_the_lines_ends(drawings: dict[str, Drawing]) -> None:
    drawing = drawings["rainbow"]
    last = drawing.data[drawing.data["flops"] == drawing.data["flops"].max()].sort_values("params")
    wanted = [name.replace("approach_1", "A1").replace("approach_3", "A3").replace("_", " ") for name in last["name"]]
    labels = list(drawing.figure.axes[1].texts)
    assert [label.get_text() for label in sorted(labels, key=lambda text: text.get_position()[1])] == wanted
    table, _ = drawing.tables.values()
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
    for axes in [drawings["rainbow"].figure.axes[0], *drawings["approach_3"].figure.axes]:
        (shade,) = axes.patches
        assert shade.get_x() == pytest.approx(end)  # type: ignore[attr-defined]


def test_rainbow_shows_the_intervals_of_optimal_parameters(
    drawings: dict[str, Drawing], tables: dict[str, Tables]
) -> None:
    points = drawings["rainbow"].tables["Intervals"].set_index(["name", "flops"])
    end = tables["rainbow"].data_ends()[1]
    assert set(points.index.get_level_values("flops")) == {end, drawings["rainbow"].data["flops"].max()}
    law: Any = tables["rainbow"].laws["approach_3_all"]
    at = points.loc[("approach_3_all", end)]
    # The line is interpolated in logs, where it is straight.
    assert at["params"] == pytest.approx(law.law.allocation().params(end))
    assert at["low"] < at["params"] < at["high"]
    assert points.loc[("approach_1_all", end), "low"] < points.loc[("approach_1_all", end), "high"]
    assert np.isnan(points.loc[("Kaplan", end), "low"])
    data = drawings["rainbow"].data.set_index(["name", "flops"]).loc[points.index]
    assert list(data["params_low"].dropna()) == list(points["low"].dropna())


def test_rainbow_draws_published_fits_where_asked_for(tables: dict[str, Tables], drawings: dict[str, Drawing]) -> None:
    given = tables["rainbow"]
    drawing = draw(replace(given, figure=given.figure.model_copy(update={"published": True})))
    curve = drawing.data.set_index("name")["published_params"].dropna()
    assert set(curve.index) == {"approach_3_all"}
    theirs = given.others["published"].set_index("fit").loc["approach_3_all"]
    slope = np.polyfit(np.log(drawing.data["flops"].unique()), np.log(curve.to_numpy()), 1)[0]
    assert slope == pytest.approx(theirs["slope_published"]) == pytest.approx(0.45 / 0.8)
    assert len(drawing.figure.axes[0].get_lines()) == len(drawings["rainbow"].figure.axes[0].get_lines()) + 1


def test_interaction_draws_additive_laws_at_the_left_on_the_same_axes(
    drawings: dict[str, Drawing], tables: dict[str, Tables]
) -> None:
    drawing, given = drawings["interaction"], tables["interaction"]
    left, right, *_ = drawing.figure.axes
    assert [axes.get_title() for axes in (left, right)] == ["additive", "with an interaction:\nparams, tokens*params"]
    assert left.get_ylim() == right.get_ylim()
    assert set(drawing.data.groupby("interaction")["fit"].unique()[True]) == {"approach_3_all_interaction"}
    for name in ("approach_3_all", "approach_3_all_interaction"):
        curve = drawing.data[drawing.data["fit"] == name]
        optimum = given.laws[name].law.allocation()  # type: ignore[union-attr]
        assert list(curve["params"]) == pytest.approx(list(optimum.params(curve["flops"])))
        assert list(curve["tokens_per_param"]) == pytest.approx(
            list(optimum.tokens(curve["flops"]) / optimum.params(curve["flops"]))
        )
        assert (curve["params_low"] < curve["params"]).all()
        assert (curve["params"] < curve["params_high"]).all()
    prescribed = given.prescriptions["approach_3_all_width_depth"].query("variant == 'relaxed' and resource == 'flops'")
    curve = drawing.data[drawing.data["fit"] == "approach_3_all_width_depth"]
    assert list(curve["params"]) == list(prescribed.sort_values("budget")["params"])


def test_interaction_lines_are_thick_where_their_rows_have_budgets(
    drawings: dict[str, Drawing], tables: dict[str, Tables]
) -> None:
    drawing, given = drawings["interaction"], tables["interaction"]
    for name in ("all", "late"):
        spent = given.rows(name)["flops"]
        within = drawing.data[(drawing.data["selection"] == name) & drawing.data["within_data"]]["flops"]
        assert spent.min() <= within.min() < within.max() <= spent.max()
    thick = [line for line in drawing.figure.axes[0].get_lines() if line.get_linewidth() == WITHIN]
    wanted = drawing.data[~drawing.data["interaction"]].groupby("fit")["within_data"].sum()
    assert sorted(np.isfinite(line.get_ydata()).sum() for line in thick) == sorted(wanted)


def test_interaction_says_what_the_lines_spread_at_a_budget_within_all_data(drawings: dict[str, Drawing]) -> None:
    drawing = drawings["interaction"]
    ((title, table),) = drawing.tables.items()
    budget = float(title.split()[1])
    assert budget <= drawing.data.loc[drawing.data["within_data"], "flops"].max()
    additive = table.loc[~table["interaction"], "params"]
    (text,) = [text.get_text() for text in drawing.figure.axes[0].texts]
    ends = (human(float(f"{value:.2g}")) for value in (additive.min(), additive.max()))
    assert text == f"{scientific(budget)} FLOPs: {'–'.join(ends)}"


def test_interaction_wants_laws_with_an_optimum(tables: dict[str, Tables]) -> None:
    given = tables["interaction"]
    hull = {"approach_1_all": tables["approach_1"].laws["approach_1_all"]}
    with pytest.raises(UserError, match="approach_1_all is of Approach 1; name fits of Approach 3"):
        draw(replace(given, laws=hull))
    shaped = {name: law for name, law in given.laws.items() if name.endswith("width_depth")}
    with pytest.raises(UserError, match="none of its fits has an optimum"):
        draw(replace(given, laws=shaped, prescriptions={}))


def test_rainbow_tells_laws_with_an_interaction_by_their_lines(tables: dict[str, Tables]) -> None:
    given = tables["interaction"]
    names = ("approach_3_all", "approach_3_all_interaction")
    figure = given.figure.model_copy(update={"kind": "rainbow", "fits": names})
    drawing = draw(replace(given, figure=figure, laws={name: given.laws[name] for name in names}))
    lines = drawing.figure.axes[0].get_lines()[: len(names)]
    assert len({line.get_linestyle() for line in lines}) == 2
    labels = [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    assert labels[:2] == ["Approach 3", "Approach 3, interaction"]


def test_approach_3_draws_each_law_by_what_it_knows(drawings: dict[str, Drawing], tables: dict[str, Tables]) -> None:
    data, given = drawings["approach_3"].data, tables["approach_3"]
    series = set(data[["series", "name"]].itertuples(index=False, name=None))
    assert {("relaxed", "approach_3_all_width_depth"), ("feasible", "approach_3_all_width_depth")} <= series
    assert {("closed_form", "approach_3_all"), ("approach_1", "approach_1_all")} <= series
    assert not {("relaxed", "approach_3_all"), ("feasible", "approach_3_all")} & series
    law: Any = given.laws["approach_3_all"]
    closed, hull = (data[data["series"] == name] for name in ("closed_form", "approach_1"))
    assert list(closed["params"]) == pytest.approx(list(law.law.allocation().params(closed["flops"])))
    found = given.laws["approach_1_all"].predict(hull["flops"])
    for quantity in ("params", "tokens", "tokens_per_param"):
        assert list(hull[quantity]) == pytest.approx(list(found[quantity]))


def test_approach_3_draws_the_published_law_beside_the_fit(
    drawings: dict[str, Drawing], tables: dict[str, Tables]
) -> None:
    rows = drawings["approach_3"].data.query("series == 'published'")
    slope = np.polyfit(np.log(rows["flops"]), np.log(rows["params"]), 1)[0]
    assert set(rows["name"]) == {"approach_3_all"}
    assert slope == pytest.approx(0.45 / 0.8)
    given = tables["approach_3"]
    without = draw(replace(given, others={name: table for name, table in given.others.items() if name != "published"}))
    assert "published" not in set(without.data["series"])


def test_approach_3_draws_feasible_shapes_of_a_single_fit_only(tables: dict[str, Tables]) -> None:
    given = tables["approach_3"]
    names = ("approach_3_all_width_depth", "approach_3_late_width_depth")
    late = given.prescriptions[names[0]].assign(fit=names[1])
    study = load({**CONFIG, "fits": {**CONFIG["fits"], names[1]: CONFIG["fits"][names[0]]}})
    both = replace(
        given, study=study, figure=given.figure.model_copy(update={"fits": names}), laws={},
        prescriptions={names[0]: given.prescriptions[names[0]], names[1]: late},
    )  # fmt: skip
    assert set(draw(both).data["series"]) == {"relaxed", "Chinchilla", "Kaplan"}


def test_small_panels_are_those_of_the_papers_figure(tables: dict[str, Tables]) -> None:
    given = tables["approach_3"]
    drawing = draw(replace(given, figure=given.figure.model_copy(update={"panels": "small"})))
    assert [axes.get_ylabel() for axes in drawing.figure.axes] == ["width / depth", "tokens per parameter"]


def test_budgets_may_be_gpu_hours(tables: dict[str, Tables]) -> None:
    given, name = tables["approach_3"], "approach_3_all_width_depth"
    table = given.prescriptions[name].assign(resource="gpu_hours", nodes=16)
    table = table.assign(gpu_hours=table["budget"] / 1e10, budget=table["budget"] / 1e10)
    figure = given.figure.model_copy(update={"resource": "gpu_hours", "fits": (name,)})
    drawing = draw(replace(given, figure=figure, laws={name: given.laws[name]}, prescriptions={name: table}))
    assert set(drawing.data["series"]) == {"relaxed", "feasible"}
    assert list(drawing.data["gpu_hours"].unique()) == list(table["budget"].unique())
    assert drawing.figure.axes[-1].get_xlabel() == "GPU-hours (on 16 nodes)"
    with pytest.raises(UserError, match="approach_1_all gives params by flops; wanted: params by gpu_hours"):
        draw(replace(given, figure=figure, laws={"approach_1_all": given.laws["approach_1_all"]}))


def test_the_authors_search_is_drawn_hollow_where_it_is_known(tables: dict[str, Tables]) -> None:
    given, name = tables["approach_3"], "approach_3_all_width_depth"
    table = given.prescriptions[name]
    reference = table[table["variant"] == "feasible"].assign(variant="reference")
    drawing = draw(replace(given, prescriptions={name: pd.concat([table, reference])}))
    assert (drawing.data["series"] == "reference").sum() == len(reference)
    hollow = [line for line in drawing.figure.axes[0].get_lines() if line.get_markerfacecolor() == "none"]
    assert [list(line.get_ydata()) for line in hollow] == [list(reference["aspect_ratio"])]


def test_slopes_are_the_tables(drawings: dict[str, Drawing], tables: dict[str, Tables]) -> None:
    drawing, table = drawings["slopes"], tables["slopes"].others["slopes"]
    for axes, column in zip(drawing.figure.axes, ("slope", "irreducible_loss"), strict=True):
        rings = [line for line in axes.get_lines() if line.get_markerfacecolor() == "none"]
        dots = [line for line in axes.get_lines() if line.get_marker() not in ("", "None") and line not in rings]
        assert sorted(x for line in dots for x in line.get_xdata()) == sorted(table[column].dropna())
        shown = sorted(x for line in rings for x in line.get_xdata() if x == x)
        assert shown == sorted(table[f"{column}_published"].dropna())
    chosen = draw(replace(tables["slopes"], figure=FigureRow(kind="slopes", fits=("approach_1_all",))))
    assert list(chosen.data["fit"]) == ["approach_1_all"]


def test_pairs_show_every_resample_and_the_fit(drawings: dict[str, Drawing], tables: dict[str, Tables]) -> None:
    drawing, given = drawings["bootstrap_pairs"], tables["bootstrap_pairs"]
    resamples = drawing.data[drawing.data["of"] == "resample"]
    for name, law in given.laws.items():
        part = resamples[resamples["fit"] == name]
        assert list(part["exponent_tokens"]) == list(given.resamples[name]["exponent_tokens"])
        fit = drawing.data.query("fit == @name and of == 'fit'").iloc[0]
        assert fit["slope"] == law.law.slope  # type: ignore[union-attr]
    grid = np.array(drawing.figure.axes).reshape(4, 4)
    for i, j in np.ndindex(4, 4):
        assert bool(grid[i, j].texts) == (i < j)
    rank = resamples.groupby("fit", sort=False)[["exponent_params", "exponent_tokens"]].corr("spearman").iloc[::2, 1]
    assert [text.get_text() for text in grid[0, 1].texts] == [f"{value:+.2f}".replace("-", "−") for value in rank]


def test_starts_stand_beside_the_published_fit(drawings: dict[str, Drawing], tables: dict[str, Tables]) -> None:
    data = drawings["starts"].data
    theirs = data[data["optimizer"] == "published"]
    assert list(theirs[["huber_delta", "starts"]].itertuples(index=False, name=None)) == [(1e-4, 4500)]
    assert theirs["slope_median"].item() == pytest.approx(0.45 / 0.8)
    minimum = data.groupby("huber_delta")["objective_minimum"].transform("first")
    assert list(data["excess_median"]) == pytest.approx(list(np.maximum(data["objective_median"] / minimum - 1, 1e-10)))
    assert len(drawings["starts"].figure.axes) == 4
    alone = draw(replace(tables["starts"], others={"early_stopping": tables["starts"].others["early_stopping"]}))
    assert set(alone.data["optimizer"]) == {"reference", "ours"}


def test_overspend_is_ordered_by_parameters_and_in_percent(
    drawings: dict[str, Drawing], tables: dict[str, Tables]
) -> None:
    data = drawings["overspend"].data
    assert data["params"].is_monotonic_increasing
    table = tables["overspend"].others["overspend"].query("frontier == 'step'")
    assert data["overspend_percent"].max() == pytest.approx(100 * table["overspend_interpolated"].max())
    labels = [label.get_text() for label in drawings["overspend"].figure.axes[2].get_yticklabels()]
    assert labels == list(dict.fromkeys(data["shape"]))


def test_overspend_map_has_stars_on_the_frontier(drawings: dict[str, Drawing], tables: dict[str, Tables]) -> None:
    drawing = drawings["overspend"]
    for axes, (_, rows) in zip(drawing.figure.axes[:2], drawing.data.groupby("resource", sort=True), strict=True):
        stars = {(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.get_lines() if line.get_marker() == "*"}
        assert stars == set(rows.loc[rows["on_frontier"], ["width", "depth"]].itertuples(index=False, name=None))
        assert len(axes.get_lines()) == len(rows)


def test_runs_on_other_nodes_than_their_siblings_have_a_star(drawings: dict[str, Drawing]) -> None:
    flagged = drawings["overspend"].data.dropna(subset=["nodes_of_siblings"])
    assert set(flagged["run"]) == {"64x3"}
    (right,) = drawings["overspend"].figure.axes[3].child_axes
    labels = [label.get_text() for label in right.get_yticklabels()]
    assert labels.count("1*") == 1
    assert labels.count("1") == len(labels) - 1
    ends = [panel.child_axes[0].get_yticklabels() for panel in drawings["overspend_trajectories"].figure.axes[:2]]
    starred = [[label.get_text().endswith("*") for label in labels].count(True) for labels in ends]
    assert starred == [0, 1]  # of FLOPs, of GPU-hours


def test_trajectories_mark_where_each_run_is_nearest_to_the_frontier(drawings: dict[str, Drawing]) -> None:
    drawing = drawings["overspend_trajectories"]
    (summary,) = drawing.tables.values()
    for axes, (resource, rows) in zip(
        drawing.figure.axes[:2], drawing.data.groupby("resource", sort=True), strict=True
    ):
        least = rows.loc[rows.groupby("run")["overspend_percent"].idxmin()].set_index("run")
        marks = sorted(line.get_xdata()[0] for line in axes.get_lines())
        assert marks == sorted(least["tokens"])
        of_resource = summary[summary["resource"] == resource].set_index("run")
        assert list(of_resource["least_percent"]) == pytest.approx(
            list(least.loc[of_resource.index, "overspend_percent"])
        )
        assert len(axes.collections) == len(least)


def test_budgets_beyond_the_data_are_marked(drawings: dict[str, Drawing]) -> None:
    titles = [axes.get_title() for axes in drawings["overtraining"].figure.axes]
    assert titles == ["3×10¹¹ FLOPs", "10¹² FLOPs", "10¹³ FLOPs, extrapolated", "0.02 GPU-hours"]


def test_overtraining_draws_the_increase_with_its_interval(drawings: dict[str, Drawing]) -> None:
    drawing = drawings["overtraining"]
    for axes, (_, rows) in zip(drawing.figure.axes, drawing.data.groupby(["resource", "budget"]), strict=True):
        (band,) = axes.collections
        drawn = band.get_paths()[0].vertices[:, 1]
        increase = rows[[f"loss_increase_{end}_nats_per_token" for end in ("low", "high")]]
        lowest = rows["loss_nats_per_token"].min()
        assert (drawn.min(), drawn.max()) == pytest.approx(
            (lowest + increase.min().min(), lowest + increase.max().max())
        )


def test_prescriptions_stand_among_the_lowest_runs_of_each_budget(tables: dict[str, Tables]) -> None:
    fits = ["approach_3_all", "approach_3_all_width_depth"]
    drawing = draw(of_kind(tables["rainbow"], "against_runs", fits))
    data = drawing.data
    assert list(data["fit"].unique()) == fits
    rows = tables["rainbow"].rows("all")
    for (fit, flops), part in data.groupby(["fit", "flops"]):
        reached = Curves.of(rows, "flops").at(flops)
        assert len(reached) >= FEWEST
        assert part["run"].tolist() == reached["run"].head(LOWEST).tolist()
        predicted = tables["rainbow"].laws[fit].predict(reached.head(LOWEST))
        assert part["deviation_percent"].to_numpy() == pytest.approx(
            100 * (predicted / part["loss_nats_per_token"].to_numpy() - 1)
        )
    below = drawing.figure.axes[2 * len(PANELS) :]
    for fit, axes in zip(fits, below, strict=True):
        of_fit = data[data["fit"] == fit].drop_duplicates("flops")
        (promised,) = [line for line in axes.lines if line.get_linestyle() == "--"]
        assert promised.get_ydata() == pytest.approx(of_fit["promised_above_lowest_percent"].to_numpy())
    worst = drawing.tables["Largest deviations"].set_index("fit")
    assert worst.loc[fits[0], "budgets"] == data[data["fit"] == fits[0]]["flops"].nunique()


def test_runs_cannot_be_held_against_fits_without_prescriptions(tables: dict[str, Tables]) -> None:
    with pytest.raises(UserError, match="'against_runs': approach_3_late is not among"):
        draw(of_kind(tables["rainbow"], "against_runs", ["approach_3_late"]))


def test_overtraining_of_several_laws_is_against_tokens_per_parameter_with_the_runs(
    tables: dict[str, Tables], drawings: dict[str, Drawing]
) -> None:
    given = tables["overtraining"]
    one = given.others["overtraining"]
    moved = one.assign(fit="approach_3_all", tokens_per_param=3 * one["tokens_per_param"])
    study = given.study.model_copy(
        update={
            "overtraining": given.study.overtraining.model_copy(update={"fits": (one["fit"].iloc[0], "approach_3_all")})
        }  # type: ignore[union-attr]
    )
    both = pd.concat([one, moved], ignore_index=True)
    drawing = draw(replace(given, study=study, others={**given.others, "overtraining": both}))
    assert drawings["overtraining"].figure.axes[-1].get_xlabel() == "nominal factor f on tokens per parameter"
    assert drawing.figure.axes[-1].get_xlabel() == "tokens per parameter"
    runs = drawing.tables["Runs drawn"]
    main = given.losses[(given.losses["phase"] == "main") & (given.losses["validation_set"] == "held_out")]
    for axes, (budget, rows) in zip(drawing.figure.axes, drawing.data.groupby(["resource", "budget"]), strict=True):
        curves = [line for line in axes.get_lines() if len(line.get_xdata()) > 2 and line.get_marker() == "None"]
        assert [list(line.get_xdata()) for line in curves] == [
            list(part["tokens_per_param"])
            for _, part in rows.dropna(subset="loss_nats_per_token").groupby("fit", sort=False)
        ]
        here = runs[(runs["resource"] == budget[0]) & (runs["budget"] == budget[1])]
        crosses = [line for line in axes.get_lines() if line.get_marker() == "x"]
        assert sum(len(line.get_xdata()) for line in crosses) == len(here)
        for run in here.itertuples():
            spent = main[main["run"] == run.run].sort_values(budget[0])
            assert run.loss_nats_per_token == pytest.approx(
                np.exp(np.interp(np.log(budget[1]), np.log(spent[budget[0]]), np.log(spent["loss"])))
            )
    assert len(runs) > 0
    assert "a run that has spent the budget" in [text.get_text() for text in drawing.figure.legends[0].get_texts()]


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
    (ends,) = drawings["lr_ablation"].tables.values()
    last = data[(data["shape"] == "64x3") & (data["step"] >= 405)]["difference_nats_per_token"]
    found = ends.set_index("shape").loc["64x3"].filter(like="difference")
    assert list(found) == [last.mean(), last.min(), last.max()]
    labels = [label.get_text() for label in drawings["lr_ablation"].figure.axes[1].get_yticklabels()]
    assert labels == list(dict.fromkeys(data["shape"]))


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
        assert drawn == sorted([*rows["accuracy_percent"], *rows["running_mean_percent"]])
    ends = data.groupby(["task", "run"])[["accuracy_percent", "running_mean_percent"]].first()
    assert list(ends["running_mean_percent"]) == list(ends["accuracy_percent"])


def test_a_studys_own_benchmarks_are_a_mark_a_run(tables: dict[str, Tables]) -> None:
    """Of one checkpoint a run, without errors or guessing where these are not known; one task has no mean."""
    given = tables["benchmarks"]
    table = given.others["benchmarks"]
    last = table[table["step"] == table["step"].max()]
    own = last.assign(
        standard_error=last["standard_error"].mask(last["task"] == "piqa"),
        random_chance=last["random_chance"].mask(last["task"] == "piqa"),
    )
    drawing = draw(replace(given, others={"benchmarks": own}))
    means = drawing.data[drawing.data["task"] == "mean of all tasks"]
    assert means["random_chance_percent"].isna().all()
    assert list(means["standard_error_percent"]) == pytest.approx([np.sqrt(2) / 3] * len(means))
    panels = {axes.get_title(): axes for axes in drawing.figure.axes}
    for task, chances, errors in (("piqa", 0, 0), ("siqa", 1, 1), ("mean of all tasks", 0, 1)):
        lines = panels[task].get_lines()
        marks = [line for line in lines if line.get_marker() in MARKERS and len(line.get_ydata()) == 1]
        assert len(marks) == last["run"].nunique()
        assert sum(list(line.get_xdata()) == [0, 1] for line in lines) == chances  # from edge to edge
        assert len(panels[task].containers) == errors
    one = draw(replace(given, others={"benchmarks": own[own["task"] == "siqa"]}))
    assert set(one.data["task"]) == {"siqa"}


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
        "exponent params", "N* at 3×10²¹", "hull: params slope",
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
        "frontier",
        "reduced_sampling",
        "approach_3",
        "rainbow",
        "residuals",
        "held_out",
        "overspend",
        "overspend_trajectories",
        "overtraining",
        "coverage",
        "benchmarks",
        "error_law",
        "accuracy_law",
        "slopes",
        "bootstrap_pairs",
        "starts",
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
        rows = drawing.data[drawing.data["fit"] == name]
        drawn = sorted(y for line in axes.get_lines() for y in line.get_ydata() if len(line.get_ydata()) != 2)
        runs = rows.groupby("run")["residual_percent"]
        if i % 3 == 1:  # against tokens
            assert drawn == sorted(rows["residual_percent"])
        else:
            assert drawn == pytest.approx(sorted(runs.median()))
            ranges: list[Any] = axes.collections
            ends = [tuple(lines.get_segments()[0][:, 1]) for lines in ranges]
            assert np.sort(np.array(ends), axis=0) == pytest.approx(np.c_[np.sort(runs.min()), np.sort(runs.max())])
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
    for axes in drawing.figure.axes[1::3]:  # against tokens
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
                   and line.get_marker() in ("o", "s") for x in line.get_xdata())
            for white in (False, True)
        )  # fmt: skip
        again = of_test["parameters_from"] == "fitted here"
        assert filled == sorted(of_test.loc[again, "error_percent"])
        assert hollow == sorted(of_test.loc[~again, "error_percent"])
    labels = [label.get_text() for label in drawing.figure.axes[0].get_yticklabels()]
    assert labels[-3:] == ["params, tokens (authors)", "Chinchilla (published)", "Kaplan (published)"]
    first = table[(table["selection"] == "all") & (table["parameters_from"] == "fitted here")]
    assert labels[: len(first)] == list(first.sort_values("leave_one_run_out_mean_absolute_error")["law"])
    bold = [label.get_text() for label in drawing.figure.axes[0].get_yticklabels() if label.get_fontweight() == "bold"]
    assert bold == [chosen_form(table)]


def test_the_chosen_form_is_the_simplest_within_a_standard_error() -> None:
    rows = [("a, b, c", 9, 0.002, 0.0, 0.0), ("a, b", 7, 0.0025, 0.0005, 0.0006), ("a", 5, 0.004, 0.002, 0.001)]
    columns = ["law", "parameters", *CHOICE]
    table = pd.DataFrame(rows, columns=columns).assign(selection="all", parameters_from="fitted here")
    assert chosen_form(table) == "a, b"
    assert chosen_form(table.assign(**{CHOICE[2]: 0.0})) == "a, b, c"
    assert chosen_form(table.assign(parameters_from="another suite")) is None


def test_slopes_of_laws_with_an_interaction_stand_on_the_line_of_the_additive_law(drawings: dict[str, Drawing]) -> None:
    drawing = drawings["slopes"]
    labels = [label.get_text() for label in drawing.figure.axes[0].get_yticklabels()]
    assert not [label for label in labels if "*" in label]
    assert "Approach 3, δ = 10⁻⁴, interaction" in [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    (row,) = drawing.tables["Additive laws, and the same with an interaction"].to_dict("records")
    table = drawing.data.set_index("fit")
    assert row["slope"] == table.at["approach_3_all", "slope"]
    assert row["slope_interaction"] == table.at["approach_3_all_interaction", "slope"]


def test_industry_models_are_drawn_where_given(tables: dict[str, Tables]) -> None:
    shapes = draw(replace(tables["shapes"], others={"industry": INDUSTRY}))
    assert set(shapes.data.loc[shapes.data["group"] == "industry", "name"]) == set(INDUSTRY["name"])
    labels = [text.get_text() for text in shapes.figure.legends[0].get_texts()]
    assert "2  Qwen2-7B,\n     Qwen2.5-7B" in labels
    overtraining = draw(with_industry(tables["overtraining"]))
    (shown,) = overtraining.tables.values()
    assert set(shown["name"]) <= set(INDUSTRY["name"])


def test_colours_do_not_depend_on_the_figure(tables: dict[str, Tables], drawings: dict[str, Drawing]) -> None:
    assert model_styles(tables["shapes"]) == model_styles(tables["cooldown"])
    styles = model_styles(tables["shapes"])
    for kind in ("shapes", "loss_curves", "lr_ablation", "cooldown"):
        colors = {line.get_color() for axes in drawings[kind].figure.axes for line in axes.get_lines()}
        assert {styles["32x2"].color, styles["64x3"].color} <= colors, kind
    assert len({(style.color, style.marker) for style in styles.values()}) == len(styles)


@pytest.mark.parametrize("study", ["config", "released", "frontier"])
def test_fits_that_are_drawn_together_look_different(study: str) -> None:
    given = load(config_of(study))
    styles = law_styles(given)
    for name, figure in given.figures.items():
        if figure.kind not in APART:
            assert len({styles[fit].color for fit in figure.fits}) == len(figure.fits), name


def test_colours_of_laws_go_by_their_form() -> None:
    styles = law_styles(load(config_of("released")))
    for rows in ("all", "lr_ablation", "cooldown_end"):
        assert styles[f"approach_3_{rows}_width_depth"].color == PALETTE[0]
        assert styles[f"approach_3_{rows}"].color == PALETTE[2]
    assert styles["approach_3_all_width_depth_interaction"].color == PALETTE[4]
    assert styles["approach_3_all_interaction"].color == PALETTE[5]
    for rows in ("hot", "all", "lr_ablation", "cooldown", "all_gpu_hours"):
        assert styles[f"approach_1_{rows}"].color == PALETTE[1]


def test_more_fits_than_colours_differ_by_their_lines() -> None:
    fits = {f"fit_{i}": {"approach": 3, "selection": "all", "huber_delta": 10.0**-i} for i in range(12)}
    figures = {"bootstrap_pairs": {"kind": "bootstrap_pairs", "fits": list(fits)}}
    styles = law_styles(
        load(
            {
                "study": "many",
                "losses": {"sources": ["released"]},
                "fits": fits,
                "figures": figures,
                "selections": {"all": "step > 0"},
            }
        )
    )
    assert len({(style.color, str(style.linestyle)) for style in styles.values()}) == 12


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
        prescriptions=[str(tmp_path / f"{name}.parquet") for name in given.prescriptions],
        others=[str(tmp_path / "overspend.parquet"), str(tmp_path / "industry.csv")],
    )
    read = read_tables(inputs, {"kind": "approach_3", "fits": fits, "selection": None}, CONFIG)
    assert list(read.laws) == fits
    assert read.laws == dict(given.laws)
    assert list(read.prescriptions) == list(given.prescriptions)
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
