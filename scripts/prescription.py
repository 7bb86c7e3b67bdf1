"""Prescribe shapes and tokens over a range of budgets, by one fit."""

import pandas as pd

from gemstones import files, laws, logs
from gemstones.losses import table
from gemstones.losses.selections import select
from gemstones.prescriptions.against_runs import checkpoints_of
from gemstones.prescriptions.page import write_page
from gemstones.prescriptions.study import growth_of, prescriptions_of
from gemstones.study import load

logs.start(snakemake)
study, fit, paths, out = load(snakemake.config), snakemake.wildcards.fit, snakemake.input, snakemake.output
law, losses = laws.read(paths.law), table.read(paths.losses)
resamples = pd.read_parquet(paths.resamples)
known = laws.Uncertainty(law, resamples, study.bootstrap.level)
found = prescriptions_of(study, fit, law, resamples, losses)
files.write_parquet(found, out.table, dict(snakemake.params.items()))
rows = checkpoints_of(select(losses, snakemake.params.query, fit), losses)
write_page(found, out.html, out.csv, fit, known.level, known, rows, growth_of(study, law, resamples))
