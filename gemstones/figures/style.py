"""How every figure looks: fonts, one colour, line style and marker per model and per law.

Models are coloured by their place in the order of parameters (viridis), their line style tells the aspect ratio and their
marker tells apart neighbours. Laws have the colour-blind-safe palette of Okabe and Ito, by their form. Both depend on the study
alone, so that a model or a law looks the same in every figure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gemstones.study import Fit, Study

if TYPE_CHECKING:
    from gemstones.figures.inputs import Tables

WIDTH = 7.0  # inches: a page's text
FONT = 8.0  # points: the smallest text of any figure
# Okabe and Ito (2008) without black, which is kept for references, and without yellow, which is faint on white; lighter ones last.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#882255", "#E69F00", "#56B4E9")
GREY, BEYOND = "#6E6E6E", "#F0F0F0"  # the second shades what lies beyond the data
LINES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.2, 1.2, 1.2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h")
# What the authors published, about the marker of what is fitted here.
RING: dict[str, Any] = {
    "marker": "o", "color": "black", "linestyle": "none", "markersize": 5.5, "markerfacecolor": "none", "markeredgewidth": 0.8,
    "zorder": 4,
}  # fmt: skip
REFERENCE: dict[str, dict[str, Any]] = {
    "Chinchilla": {"color": "black", "linestyle": (0, (4, 2)), "linewidth": 1.1},
    "Kaplan": {"color": "black", "linestyle": (0, (1, 1.5)), "linewidth": 1.3},
}

RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": FONT,
    "axes.titlesize": FONT + 1,
    "axes.titley": 1.0,  # looking for ticks above the axes takes a third of the time to draw
    "axes.labelsize": FONT,
    "xtick.labelsize": FONT,
    "ytick.labelsize": FONT,
    "legend.fontsize": FONT,
    "legend.title_fontsize": FONT,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#EBEBEB",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "savefig.dpi": 200,
    "svg.hashsalt": "gemstones",
    "svg.fonttype": "path",
    "pdf.fonttype": 3,
}
# Of laws: places in the palette of Approach 1, and of Approach 3 by covariates; those from SPARE on are for further laws of a form,
# and laws with a product have two of them.
HULL, WITH_SHAPE, PLAIN, WITHOUT_PARAMS, SPARE = 1, 0, 2, 3, 4
INTERACTING_SHAPE, INTERACTING = 4, 5
# Kinds of figures that give each law panels, or an order of colours, of their own.
APART = ("approach_1", "frontier", "residuals", "rainbow", "interaction")


class Style(NamedTuple):
    """Of a model or a law."""

    color: Any
    linestyle: Any
    marker: str

    def line(self, **extra: Any) -> dict[str, Any]:
        return {"color": self.color, "linestyle": self.linestyle, **extra}

    def points(self, **extra: Any) -> dict[str, Any]:
        return {"color": self.color, "marker": self.marker, "linestyle": "none", **extra}


UNSTYLED = Style(GREY, "-", "o")  # what has no model or law


def figure(height: float, width: float = WIDTH) -> Figure:
    """A figure in inches, not registered with pyplot; `RC` must be in force (see :func:`gemstones.figures.draw`)."""
    return Figure(figsize=(width, height), layout="constrained")


def shape_names(rows: pd.DataFrame) -> pd.Series:
    """`<width>x<depth>` of each row."""
    return rows["width"].astype("Int64").astype("string") + "x" + rows["depth"].astype("Int64").astype("string")


def model_styles(tables: Tables) -> dict[str, Style]:
    """Style of every shape that is selected or has losses, ordered by parameters."""
    trained = tables.losses.loc[tables.losses["run"].notna(), ["width", "depth", "params"]].drop_duplicates()
    trained = trained.assign(shape=shape_names(trained))
    chosen = tables.shapes.loc[tables.shapes["selected"], ["shape", "width", "depth", "params"]]
    shapes = pd.concat([trained, chosen]).astype({"shape": str}).drop_duplicates("shape")
    shapes = shapes.sort_values(["params", "shape"], ignore_index=True)
    classes = aspect_classes(shapes["width"].astype(float) / shapes["depth"].astype(float))
    places = np.linspace(0, 0.92, len(shapes))
    return {
        str(shape): Style(mpl.colormaps["viridis"](float(place)), LINES[kind], MARKERS[i % len(MARKERS)])
        for i, (shape, place, kind) in enumerate(zip(shapes["shape"], places, classes, strict=True))
    }


def aspect_limits(ratios: Iterable[float]) -> tuple[float, float]:
    """Two width/depth ratios that part deep from standard and standard from wide: thirds of the range in log."""
    values = np.log(np.asarray(list(ratios), dtype=float))
    low, high = values.min(), values.max()
    first, second = (float(f"{math.exp(low + (high - low) * part):.2g}") for part in (1 / 3, 2 / 3))
    return first, second


def aspect_classes(ratios: Iterable[float]) -> list[int]:
    """0 for standard, 1 for wide, 2 for deep shapes; indices into `LINES`."""
    ratios = list(ratios)
    if not ratios:
        return []
    first, second = aspect_limits(ratios)
    return [2 if ratio < first else 1 if ratio > second else 0 for ratio in ratios]


def aspect_handles(tables: Tables) -> list[Line2D]:
    """Legend entries for the line styles of the aspect ratios, with their limits."""
    ratios = [width / depth for width, depth in (map(int, name.split("x")) for name in model_styles(tables))]
    first, second = aspect_limits(ratios)
    labels = {1: f"w/d > {second:g}", 0: f"w/d {first:g}–{second:g}", 2: f"w/d < {first:g}"}
    return [Line2D([], [], color=GREY, linestyle=LINES[kind], label=label) for kind, label in labels.items()]


def law_styles(study: Study) -> dict[str, Style]:
    """Style of every fit, the same in all figures of a study.

    Colour, line and marker go by the form of the law, so that figures of other rows compare with one another. Of fits of one form
    that a figure draws together, the first that any figure draws has the form's colour, and the others those to spare, or where
    these run out, other lines.
    """
    figures = [figure.fits for figure in study.figures.values() if figure.kind not in APART]
    figures += [study.overtraining.fits] if study.overtraining else []
    together = [set(fits) for fits in figures]
    styles: dict[str, Style] = {}
    for name in dict.fromkeys([*(name for fits in figures for name in fits), *study.fits]):
        own, line, marker = _form(study.fits[name])
        near = [styles[other] for group in together if name in group for other in group if other in styles]
        colors = [PALETTE[own], *(color for color in PALETTE[SPARE:] + PALETTE[:SPARE] if color != PALETTE[own])]
        looks = [Style(color, LINES[(line + i) % len(LINES)], marker) for i in range(len(LINES)) for color in colors]
        taken = {other.color for other in near}
        lines = {(other.color, other.linestyle) for other in near}
        styles[name] = next(
            (look for look in looks if look.color not in taken),
            next((look for look in looks if (look.color, look.linestyle) not in lines), looks[0]),
        )
    return styles


def _form(fit: Fit) -> tuple[int, int, str]:
    """Places of a law's form in `PALETTE` and `LINES`, and its marker."""
    if fit.approach == 1:
        return HULL, 1, "o"
    if interacts(fit.covariates):
        return (INTERACTING, 3, "v") if fit.closed_form else (INTERACTING_SHAPE, 0, "D")
    covariates = set(fit.covariates)
    if covariates == {"params", "tokens"}:
        return PLAIN, 3, "o"
    return (WITH_SHAPE, 0, "s") if "params" in covariates else (WITHOUT_PARAMS, 0, "^")


def interacts(covariates: Iterable[str]) -> bool:
    """Whether a law has a term that is a product, in which covariates interact."""
    return any("*" in term for term in covariates)


def fit_label(name: str) -> str:
    """How a fit is named in figures: its name in the config with spaces, A1 and A3 for the approaches."""
    for long, short in (
        ("approach_1", "A1"), ("approach_3", "A3"), ("gpu_hours", "GPU-hours"), ("_", " "), ("embedding", "emb."),
    ):  # fmt: skip
        name = name.replace(long, short)
    return name.replace("emb.s", "emb.").replace("delta 3", "δ = 1e-3").replace("120b", "120B")
