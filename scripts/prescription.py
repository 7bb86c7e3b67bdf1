"""Prescribe shapes and tokens over a range of budgets, by one fit."""

import pandas as pd

from gemstones import files, laws, logs
from gemstones.losses import table
from gemstones.prescriptions.page import write_page
from gemstones.prescriptions.study import growth_of, prescriptions_of
from gemstones.study import load

logs.start(snakemake)
study, fit, paths, out = load(snakemake.config), snakemake.wildcards.fit, snakemake.input, snakemake.output
law, resamples = laws.read(paths.law), pd.read_parquet(paths.resamples)
found = prescriptions_of(study, fit, law, resamples, table.read(paths.losses))
files.write_parquet(found, out.table, dict(snakemake.params.items()))
write_page(found, out.html, out.csv, fit, study.bootstrap.level, growth_of(study, law, resamples))
