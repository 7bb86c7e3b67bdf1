"""Axes and legends that every figure shares: round logarithmic ticks, plain losses, shading beyond the data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator, ScalarFormatter
from numpy.typing import NDArray

from gemstones.figures.style import BEYOND, FONT, Style

SUPERSCRIPT = str.maketrans("-.0123456789", "⁻·⁰¹²³⁴⁵⁶⁷⁸⁹")
Form = Literal["count", "power", "plain"]


def human(value: float) -> str:
    """Counts for people: 950M, 2.4B, 300B."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size * 0.9995:
            scaled = value / size
            return f"{scaled:.3g}{unit}" if scaled < 1000 else f"{scaled:.0f}{unit}"
    return f"{value:.3g}"


def scientific(value: float) -> str:
    """10²⁰ or 3.2×10²⁰; plain characters, since mathematical text takes much longer to draw."""
    exponent = math.floor(math.log10(value) + 1e-9)
    digits = f"{value / 10**exponent:.3g}"
    power = f"10{str(exponent).translate(SUPERSCRIPT)}"
    return power if digits == "1" else f"{digits}×{power}"


def log_axis(axes: Axes, which: Literal["x", "y"], form: Form = "count", most: int = 6) -> None:
    """Logarithmic axis with at most `most` labelled ticks: counts (950M), powers or plain numbers; call it after drawing."""
    getattr(axes, f"set_{which}scale")("log")
    low, high = sorted(getattr(axes, f"get_{which}lim")())
    axis = axes.xaxis if which == "x" else axes.yaxis
    ticks = log_ticks(low, high, most)
    write = {"count": human, "power": scientific, "plain": "{:g}".format}[form]
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FixedFormatter([write(tick) for tick in ticks]))
    # Every tick costs time, so the minor ones are sparse where there are many decades.
    multiples = range(1, 10) if high / low <= 150 else (1,)
    minor = [m * 10.0**e for e in _decades(low, high) for m in multiples] if high / low < 1e12 else []
    axis.set_minor_locator(FixedLocator([tick for tick in minor if low <= tick <= high]) if minor else NullLocator())
    axis.set_minor_formatter(FixedFormatter([""] * len(minor)))


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """Round values within the limits: 1, 2 and 5 times powers of ten, fewer where these are more than `most`."""
    found: list[float] = []
    for multiples, every in (((1, 1.5, 2, 3, 4, 5, 6, 8), 1), ((1, 2, 5), 1), ((1, 3), 1), ((1,), 1)):
        found = [float(f"{m}e{e}") for e in _decades(low, high) for m in multiples if e % every == 0]
        found = [tick for tick in found if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
        if len(found) <= most:
            return found
    for every in (2, 3, 4, 5, 10):
        kept = [tick for tick in found if round(math.log10(tick)) % every == 0]
        if len(kept) <= most:
            return kept
    return found[:: max(1, len(found) // most)]


def _decades(low: float, high: float) -> range:
    return range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)


def loss_axis(axes: Axes, label: str = "validation loss (nats/token)") -> None:
    """Loss on a logarithmic y axis with plain numbers."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel(label)


def beyond_data(axes: Axes, ends: tuple[float, float]) -> None:
    """Shade what lies right of the data's end: lightly from the first fit's, in full from the last one's; the axis keeps its range."""
    low, high = axes.get_xlim()
    for end, alpha in ((ends[0], 0.5), (ends[1], 1.0)):
        if end < high and (alpha == 1 or ends[0] < ends[1]):
            axes.axvspan(max(end, low), high, color=BEYOND, alpha=alpha, zorder=0, linewidth=0)
    axes.set_xlim(low, high)


def beyond_handles(ends: tuple[float, float]) -> list[Patch]:
    """Legend entries for what is shaded."""
    labels = {1.0: "beyond the data (extrapolated)"}
    if ends[0] < ends[1]:
        labels = {0.5: "beyond the data of some fits", 1.0: "of all fits (extrapolated)"}
    return [
        Patch(facecolor=BEYOND, alpha=alpha, edgecolor="#C0C0C0", linewidth=0.5, label=label)
        for alpha, label in labels.items()
    ]


def model_handles(styles: dict[str, Style], names: Sequence[str], *, markers: bool = False) -> list[Line2D]:
    """Legend entries of models, the largest first as their losses lie lowest."""
    chosen = [name for name in styles if name in set(names)]
    return [
        Line2D([], [], label=name, **(styles[name].points() if markers else styles[name].line()))
        for name in chosen[::-1]
    ]


def legend_right(figure: Figure, groups: Sequence[tuple[str, Sequence[Artist]]]) -> Legend:
    """One legend outside the axes at the right, its groups under their titles; two columns where it is too long."""
    handles: list[Artist] = []
    titles = []
    for title, members in groups:
        titles.append(len(handles))
        handles += [Line2D([], [], linestyle="none", label=title), *members]
    rows = (figure.get_figheight() - 0.1) / (FONT / 72 * 1.28)
    columns = 1 if len(handles) <= rows else 2
    legend = figure.legend(
        handles=handles,
        loc="outside right upper",
        ncols=columns,
        labelspacing=0.25,
        borderaxespad=0.2,
        columnspacing=0.8,
    )
    for place in titles:
        legend.get_texts()[place].set_fontweight("bold")
    return legend


def legend_below(figure: Figure, handles: Sequence[Artist], columns: int) -> Legend:
    """A legend outside the axes at the foot."""
    return figure.legend(handles=list(handles), loc="outside lower center", ncols=columns, columnspacing=1.2)


def label_ends(axes: Axes, ends: Mapping[str, float], styles: Mapping[str, Style], *, markers: bool = False) -> None:
    """Models' names at the right of the axes, in the order of their curves' ends and joined to these, instead of a legend.

    Call it when the limits are set.
    """
    to_axes = axes.transScale + axes.transLimits
    wanted = {name: float(to_axes.transform((axes.get_xlim()[1], end))[1]) for name, end in ends.items()}
    names = sorted(wanted, key=lambda name: wanted[name])
    height = axes.figure.bbox.height / axes.figure.dpi - 1.0  # inches, about: the layout is made later
    places = spread(np.clip([wanted[name] for name in names], 0, 1), min(FONT * 1.25 / 72 / height, 1 / len(names)))
    for name, place in zip(names, places, strict=True):
        look = styles[name].points(markeredgewidth=0) if markers else {}
        look |= styles[name].line(linewidth=0.9, markevery=[2], clip_on=False)
        axes.plot([1, 1.07, 1.10], [wanted[name], place, place], transform=axes.transAxes, **look)
        axes.annotate(name, (1.10, place), (4, 0), "axes fraction", "offset points", va="center", fontsize=FONT)


def spread(wanted: NDArray[np.float64], gap: float) -> NDArray[np.float64]:
    """Places nearest to the wanted ones (ascending, within 0 and 1) that are at least `gap` apart: least squares."""
    blocks: list[tuple[float, int]] = []
    for i, place in enumerate(wanted):
        blocks.append((float(place) - i * gap, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (mean_b, n_b), (mean_a, n_a) = blocks.pop(), blocks.pop()
            blocks.append(((mean_a * n_a + mean_b * n_b) / (n_a + n_b), n_a + n_b))
    shifted = np.concatenate([np.full(n, mean) for mean, n in blocks])
    return np.asarray(np.clip(shifted, 0, max(0.0, 1 - (len(wanted) - 1) * gap)) + np.arange(len(wanted)) * gap)
