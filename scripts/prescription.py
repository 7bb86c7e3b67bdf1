"""Prescribe shapes and tokens over a range of budgets, by one fit."""

import pandas as pd

from gemstones import laws, logs
from gemstones.files import write_parquet
from gemstones.losses import table
from gemstones.prescriptions.page import write_page
from gemstones.prescriptions.study import prescriptions_of
from gemstones.study import load

logs.start(snakemake)
study, name, paths = load(snakemake.config), snakemake.wildcards.fit, snakemake.input
law, resamples = laws.read(paths.law), pd.read_parquet(paths.resamples)
prescribed = prescriptions_of(study, name, law, resamples, table.read(paths.losses))
write_parquet(prescribed, snakemake.output.table, dict(snakemake.params.items()))
write_page(prescribed, snakemake.output.html, name, study.bootstrap.level)
