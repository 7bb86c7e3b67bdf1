"""Put slopes and irreducible losses of all fits into one table: CSV, page and LaTeX."""

from pathlib import Path

from gemstones import laws, logs
from gemstones.files import write_csv, write_text
from gemstones.laws.slopes import read_published, slopes, to_latex
from gemstones.report import write_html_table
from gemstones.study import load

logs.start(snakemake)
fits = {Path(path).stem: laws.read(path) for path in snakemake.input.laws}
table = slopes(load(snakemake.config), fits, read_published(snakemake.input.published))
write_csv(table, snakemake.output.csv)
write_html_table(table, snakemake.output.html, "Slopes and irreducible losses of all fits")
write_text(to_latex(table), snakemake.output.tex)
