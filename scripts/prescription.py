"""Prescribe shapes and tokens over a range of budgets, by one fit."""

from gemstones import laws, logs
from gemstones.files import write_parquet
from gemstones.prescriptions.optimum import budgets, prescribe
from gemstones.study import load

logs.start(snakemake)
study = load(snakemake.config)
law = laws.read(snakemake.input.law)
prescribed = prescribe(law, budgets(study.prescriptions), study.suite, snakemake.wildcards.fit)
write_parquet(prescribed, snakemake.output[0], dict(snakemake.params.items()))
