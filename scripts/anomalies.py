"""Look for anomalies in the losses table."""

import logging

from gemstones import logs
from gemstones.files import write_csv
from gemstones.losses import table
from gemstones.losses.anomalies import find_anomalies
from gemstones.report import write_html_table

logs.start(snakemake)
found = find_anomalies(table.read(snakemake.input.losses), table.read(snakemake.input.excluded))
logging.info("found: %s", found["kind"].value_counts().to_dict())
write_csv(found, snakemake.output.csv)
write_html_table(found, snakemake.output.html, "Anomalies of the losses")
