"""Fit by the authors' optimiser from a sample of their starts, and by ours beside it."""

import pandas as pd

from gemstones import logs
from gemstones.files import write_csv
from gemstones.laws.early_stopping import early_stopping
from gemstones.losses import table
from gemstones.losses.selections import select
from gemstones.report import write_html_table

logs.start(snakemake)
spec, params = snakemake.params.early_stopping, snakemake.params
losses, (deltas, starts) = table.read(snakemake.input.losses), (spec["huber_deltas"], spec["starts"])
of_each = [
    early_stopping(select(losses, query, name), name, deltas, starts, params.seed)
    for name, query in params.queries.items()
]
found = pd.concat(of_each, ignore_index=True)
write_csv(found, snakemake.output.csv)
write_html_table(found, snakemake.output.html, "The lowest of so many ends, by two optimisers")
