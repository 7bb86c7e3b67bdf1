"""Count how often intervals hold the truth."""

import pandas as pd

from gemstones import logs
from gemstones.files import write_csv
from gemstones.laws.coverage import coverage, side_by_side
from gemstones.report import write_html_table

logs.start(snakemake)
table = coverage(pd.concat([pd.read_parquet(path) for path in snakemake.input.parts], ignore_index=True))
write_csv(table, snakemake.output.csv)
write_html_table({**side_by_side(table), "All": table}, snakemake.output.html, "How often intervals hold the truth")
