"""Fit every law that saw anomalous rows once more, without them."""

from gemstones import logs
from gemstones.files import write_csv
from gemstones.laws.sensitivity import without_flagged
from gemstones.losses import anomalies, table
from gemstones.report import write_html_table
from gemstones.study import load

logs.start(snakemake)
found = anomalies.read(snakemake.input.anomalies)
effect = without_flagged(load(snakemake.config), table.read(snakemake.input.losses), found)
write_csv(effect, snakemake.output.csv)
write_html_table(effect, snakemake.output.html, "Fits with and without the anomalous rows")
