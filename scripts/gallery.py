"""All figures, small, on one page."""

from pathlib import Path

from gemstones import logs
from gemstones.figures.gallery import Shown, write_gallery

logs.start(snakemake)
pictures = map(Path, snakemake.input.pictures)
figures = [Shown(path.stem, *snakemake.params.described[path.stem], path) for path in pictures]
write_gallery(figures, Path(snakemake.output.page))
