"""Draw one figure and write it in every format, with its data."""

from pathlib import Path

from gemstones import logs
from gemstones.figures import draw
from gemstones.figures.inputs import read_tables
from gemstones.figures.output import save

logs.start(snakemake)
tables = read_tables(snakemake.input, snakemake.params.figure, snakemake.config)
save(draw(tables), Path(snakemake.output.svg).with_suffix(""), snakemake.params.caption)
