"""All figures of a study, small, with their captions on one Markdown page, for people who have not run anything."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from gemstones.files import write_text, write_with

WIDTH, COLORS = 720, 64  # pixels, and colours of a palette: some 30 kB a figure
INTRODUCTION = """# Gallery

The figures of `make released`: what the losses that the paper's authors published say. All are drawn anew at each run, as SVG,
PDF and PNG, with the drawn data as CSV and a caption; this page is written by `snakemake gallery`.
"""


class Shown(NamedTuple):
    """A figure of the gallery; the caption is reStructuredText without directives, which reads as Markdown, too."""

    name: str
    category: str
    caption: str
    picture: Path


def write_gallery(figures: Iterable[Shown], page: Path) -> None:
    """Write the page, and `images/gallery/<figure>.png` beside it; equal figures give equal bytes."""
    parts = [INTRODUCTION]
    by_category = sorted(figures, key=lambda figure: figure.category)
    for i, figure in enumerate(by_category):
        if i == 0 or figure.category != by_category[i - 1].category:
            parts.append(f"## {figure.category.partition(' ')[2]}\n")
        small = Path("images/gallery", f"{figure.name}.png")
        shrink(figure.picture, page.parent / small)
        title = figure.name.replace("_", " ")
        parts.append(f"### {title}\n\n![{title}]({small})\n\n{figure.caption.strip()}\n")
    write_text("\n".join(parts), page)


def shrink(picture: Path, target: Path) -> None:
    """Write a figure's PNG with fewer pixels and colours."""
    with Image.open(picture) as opened:
        whole = opened.convert("RGB")
    height = round(whole.height * WIDTH / whole.width)
    small = whole.resize((WIDTH, height), Image.Resampling.LANCZOS)
    small = small.quantize(COLORS, dither=Image.Dither.NONE)

    def write(path: Path) -> None:
        small.save(path, format="png", optimize=True)

    write_with(write, target)
