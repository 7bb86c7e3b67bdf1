"""Fit the laws from loss to error and accuracy on benchmarks."""

import pandas as pd

from gemstones import logs
from gemstones.files import write_csv, write_json, write_parquet
from gemstones.laws.downstream import fit_downstream, pages
from gemstones.losses import table
from gemstones.report import write_html_table
from gemstones.study import load

logs.start(snakemake)
study, out = load(snakemake.config), snakemake.output
losses, accuracies = table.read(snakemake.input.losses), pd.read_parquet(snakemake.input.benchmarks)
found = fit_downstream(losses, accuracies, study)
write_json(found.to_json(), out.json)
write_csv(found.laws, out.csv)
write_parquet(found.points, out.points)
write_parquet(found.resamples, out.resamples)
write_html_table(pages(found.laws), out.html, "From loss to error and accuracy")
