"""Figures: one module per kind, `draw_<kind>(tables) -> Drawing`, all in one style."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    from gemstones.figures.inputs import Tables
    from gemstones.figures.output import Drawing


def draw(tables: Tables) -> Drawing:
    """Draw the figure that `tables.figure` describes; only the module of its kind is imported."""
    import matplotlib as mpl

    from gemstones.figures.style import RC

    kind = tables.figure.kind
    module = import_module(f"gemstones.figures.{kind}")
    function = cast("Callable[[Tables], Drawing]", getattr(module, f"draw_{kind}"))
    with mpl.rc_context(RC):
        return function(tables)
