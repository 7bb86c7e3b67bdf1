"""Prescribe shapes and tokens over a range of budgets, by one fit."""

import pandas as pd

from gemstones import laws, logs
from gemstones.files import write_parquet
from gemstones.prescriptions.optimum import budgets, prescribe
from gemstones.study import load

logs.start(snakemake)
study = load(snakemake.config)
law = laws.read(snakemake.input.law)
uncertainty = laws.Uncertainty(law, pd.read_parquet(snakemake.input.resamples), study.bootstrap.level)
budget = budgets(study.prescriptions)
prescribed = prescribe(law, budget, study.suite, snakemake.wildcards.fit, uncertainty=uncertainty)
write_parquet(prescribed, snakemake.output[0], dict(snakemake.params.items()))
