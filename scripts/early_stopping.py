"""Fit by the authors' optimiser from a sample of their starts, and by ours beside it."""

from gemstones import logs
from gemstones.files import write_csv
from gemstones.laws.early_stopping import early_stopping
from gemstones.losses import table
from gemstones.losses.selections import select
from gemstones.report import write_html_table

logs.start(snakemake)
spec, params = snakemake.params.early_stopping, snakemake.params
rows = select(table.read(snakemake.input.losses), params.query, spec["selection"])
found = early_stopping(rows, spec["selection"], spec["huber_deltas"], spec["starts"], params.seed)
write_csv(found, snakemake.output.csv)
write_html_table(found, snakemake.output.html, "The lowest of so many ends, by two optimisers")
