"""Compare laws of several forms on the same rows."""

import pandas as pd

from gemstones import logs
from gemstones.files import write_csv
from gemstones.laws.comparison import authors_laws, compare_laws
from gemstones.losses import table
from gemstones.losses.selections import select
from gemstones.report import write_html_table
from gemstones.study import load

logs.start(snakemake)
study, losses = load(snakemake.config), table.read(snakemake.input.losses)
tables = []
for name in study.comparisons:
    rows = select(losses, study.selections[name], name)
    authors = authors_laws(study, name, snakemake.params.downloads)
    tables.append(compare_laws(rows, name, authors, study.holdout, study.seed))
compared = pd.concat(tables, ignore_index=True)
write_csv(compared, snakemake.output.csv)
write_html_table(compared, snakemake.output.html, "Laws compared on the same rows")
