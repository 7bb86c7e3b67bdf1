"""Put slopes and irreducible losses of all fits into one table: CSV, page and LaTeX."""

from pathlib import Path

from gemstones import laws, logs
from gemstones.laws.slopes import read_published, slopes, write
from gemstones.study import load

logs.start(snakemake)
fits = {Path(path).stem: laws.read(path) for path in snakemake.input.laws}
table = slopes(load(snakemake.config), fits, read_published(snakemake.input.published))
write(table, **dict(snakemake.output.items()))
