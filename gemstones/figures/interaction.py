"""What additive laws prescribe and what laws with an interaction do, side by side, of several selections of the same runs."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from gemstones.errors import UserError
from gemstones.figures.axes import beyond_data, beyond_handles, human, legend_below, log_axis, scientific
from gemstones.figures.inputs import Tables
from gemstones.figures.output import Drawing
from gemstones.figures.style import FONT, GREY, LINES, PALETTE, UNSTYLED, Style, figure, interacts
from gemstones.laws.fit import HuberFit
from gemstones.laws.power_law import Allocation
from gemstones.laws.uncertainty import Uncertainty

PANELS = {"params": "optimal parameters", "tokens_per_param": "tokens per parameter"}
COLUMNS = {False: "additive", True: "with an interaction"}
BUDGETS = 41
BAND: dict[str, Any] = {"alpha": 0.15, "linewidth": 0, "zorder": 1}
WITHIN, OUTSIDE = 2.0, 0.8  # widths of a line where its rows have budgets, and elsewhere
MARK: dict[str, Any] = {"color": GREY, "linewidth": 0.8, "linestyle": (0, (3, 2)), "zorder": 0.5}


def draw_interaction(tables: Tables) -> Drawing:
    """N* above T/N, additive laws at the left, on the same axes; bands of the first fit of each side alone, which would hide others."""
    data = optima(tables)
    sides = [side for side in COLUMNS if (data["interaction"] == side).any()]
    looks = _looks(tables)
    ends = tables.data_ends()
    reference = 10.0 ** np.floor(np.log10(ends[0])) if ends[0] else None
    drawn = figure(5.6, 7.0 if len(sides) > 1 else 4.2)
    grid = drawn.subplots(
        len(PANELS), len(sides), sharex=True, sharey="row", squeeze=False, gridspec_kw={"wspace": 0.08}
    )
    for column, side in enumerate(sides):
        part = data[data["interaction"] == side]
        grid[0, column].set_title(_title(side, part))
        for axes, name in zip(grid[:, column], PANELS, strict=True):
            for i, (_, curve) in enumerate(part.groupby("fit", sort=False)):
                _draw(axes, curve, name, looks[str(curve["selection"].iloc[0])], banded=i == 0)
            if reference is not None:
                axes.axvline(reference, ymax=0.9, **MARK)
                text = f"{scientific(reference)} FLOPs: {_span(part, name, reference)}"
                axes.text(reference, 0.92, text, transform=axes.get_xaxis_transform(), fontsize=FONT + 1, ha="center")
    for row, (name, label) in zip(grid, PANELS.items(), strict=True):
        row[0].set(ylabel=label, ylim=(data[name].min() / 1.4, data[name].max() * 1.4))
        for axes in row:
            axes.set_xlim(data["flops"].min(), data["flops"].max())
            log_axis(axes, "x", "power", most=5)
            log_axis(axes, "y", "count" if name == "params" else "plain", most=7)
            axes.tick_params(labelleft=axes is row[0])
            beyond_data(axes, ends)
    for axes in grid[-1]:
        axes.set_xlabel("training FLOPs")
    drawn.align_ylabels()
    legend_below(drawn, _handles(tables, data, looks, ends), 3)
    at_reference = {} if reference is None else {f"At {reference:.0e} FLOPs": at_budget(data, reference)}
    return Drawing(drawn, data, at_reference)


def optima(tables: Tables) -> pd.DataFrame:
    """Optima of every fit over the study's budgets, additive ones first, with intervals where they are known.

    Returns
    -------
    DataFrame with `fit`, `selection`, `law`, `interaction` (whether a term is a product), `flops`, `within_data` (whether the fit's
    rows reach from below the budget to above it), and `params` and `tokens_per_param` with `_low` and `_high`. Laws of params and
    tokens follow their closed form, others their relaxed prescriptions.

    Raises
    ------
    UserError
        If a fit is none of Approach 3, or no fit has an optimum.
    """
    parts = []
    for name, fit in tables.laws.items():
        if not isinstance(fit, HuberFit):
            raise UserError(f"figure of kind 'interaction': {name} is of Approach 1; name fits of Approach 3")
        found = _closed_form(tables, name, fit) if fit.law.slope is not None else _prescribed(tables, name)
        if found is None:
            logging.warning("interaction: %s has no optimum on a budget of FLOPs", name)
            continue
        selection = tables.study.fits[name].selection
        spent = tables.rows(selection)["flops"].dropna()
        law = ", ".join(fit.law.covariates)
        described = {"fit": name, "selection": selection, "law": law, "interaction": interacts(fit.law.covariates)}
        parts.append(found.assign(**described, within_data=found["flops"].between(spent.min(), spent.max())))
    if not parts:
        raise UserError("figure of kind 'interaction': none of its fits has an optimum on a budget of FLOPs")
    columns = ["fit", "selection", "law", "interaction", "flops", "within_data"]
    columns += [f"{name}{end}" for name in PANELS for end in ("", "_low", "_high")]
    data = pd.concat(parts, ignore_index=True).reindex(columns=columns)
    return data.sort_values("interaction", ignore_index=True, kind="stable")


def at_budget(data: pd.DataFrame, budget: float) -> pd.DataFrame:
    """A row for each fit: N* and T/N at a budget, interpolated in logs, with intervals."""
    names = [f"{name}{end}" for name in PANELS for end in ("", "_low", "_high")]
    rows = []
    for (fit, law), curve in data.groupby(["fit", "law"], sort=False):
        x = np.log(curve["flops"].to_numpy(float))
        at = {name: np.exp(np.interp(np.log(budget), x, np.log(curve[name].to_numpy(float)))) for name in names}
        rows.append({"fit": fit, "law": law, "interaction": curve["interaction"].iloc[0], **at})
    return pd.DataFrame(rows)


def _closed_form(tables: Tables, name: str, fit: HuberFit) -> pd.DataFrame:
    flops = np.geomspace(*tables.study.prescriptions.flops_range, BUDGETS)
    optimum = fit.law.allocation()
    columns = {"flops": flops, "params": optimum.params(flops)}
    columns["tokens_per_param"] = optimum.tokens(flops) / columns["params"]
    resamples = tables.resamples.get(name)
    if resamples is not None and not resamples.empty:
        many = Allocation.of_laws(resamples, fit.law.covariates)
        uncertainty = Uncertainty(fit, resamples, tables.study.bootstrap.level)
        log_params = many.log_params(flops)
        for quantity, values in (("params", log_params), ("tokens_per_param", many.log_tokens(flops) - log_params)):
            columns[f"{quantity}_low"], columns[f"{quantity}_high"] = map(np.exp, uncertainty.interval(values))
    return pd.DataFrame(columns)


def _prescribed(tables: Tables, name: str) -> pd.DataFrame | None:
    table = tables.prescriptions.get(name)
    if table is None:
        return None
    relaxed = table.query("resource == 'flops' and variant == 'relaxed'").sort_values("budget")
    return relaxed.assign(flops=relaxed["budget"])


def _looks(tables: Tables) -> dict[str, Style]:
    """Lines by their selection: the same on both sides, and in all such figures of a study."""
    figures = [figure for figure in tables.study.figures.values() if figure.kind == tables.figure.kind]
    fits = [name for figure in (*figures, tables.figure) for name in figure.fits]
    selections = dict.fromkeys(tables.study.fits[name].selection for name in fits)
    return {
        name: Style(PALETTE[i % len(PALETTE)], LINES[i // len(PALETTE) % len(LINES)], "o")
        for i, name in enumerate(selections)
    }


def _draw(axes: Axes, curve: pd.DataFrame, name: str, look: Style, *, banded: bool) -> None:
    if banded and curve[f"{name}_low"].notna().any():
        axes.fill_between(curve["flops"], curve[f"{name}_low"], curve[f"{name}_high"], color=look.color, **BAND)
    axes.plot(curve["flops"], curve[name], **look.line(linewidth=OUTSIDE))
    axes.plot(curve["flops"], curve[name].where(curve["within_data"]), **look.line(linewidth=WITHIN))


def _title(side: bool, part: pd.DataFrame) -> str:
    laws = part["law"].unique()
    return f"{COLUMNS[side]}:\n{laws[0]}" if len(laws) == 1 else COLUMNS[side]


def _span(part: pd.DataFrame, name: str, budget: float) -> str:
    """From the lowest fit to the highest one at a budget."""
    values = at_budget(part, budget)[name]
    write = human if name == "params" else "{:.2g}".format
    return "–".join(dict.fromkeys(write(float(f"{value:.2g}")) for value in (values.min(), values.max())))


def _handles(tables: Tables, data: pd.DataFrame, looks: dict[str, Style], ends: tuple[float, float]) -> list[Artist]:
    handles: list[Artist] = [
        Line2D([], [], label=name.replace("_", " ").replace("120b", "120B"), **look.line(linewidth=WITHIN))
        for name, look in looks.items()
        if name in set(data["selection"])
    ]
    handles.append(Line2D([], [], label="outside the fit's own rows", **UNSTYLED.line(linewidth=OUTSIDE)))
    firsts = data.groupby("interaction", sort=False).head(1)
    if data.loc[data["fit"].isin(firsts["fit"]), "params_low"].notna().any():
        color = looks[str(firsts["selection"].iloc[0])].color
        level = f"{100 * tables.study.bootstrap.level:g} %"
        names = " and ".join(dict.fromkeys(firsts["selection"]))
        handles.append(Patch(facecolor=color, alpha=0.3, linewidth=0, label=f"{level} interval of {names}"))
    return [*handles, *beyond_handles(ends)]
