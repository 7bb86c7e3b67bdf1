"""Collect the losses of the study's own runs."""

from gemstones import files, logs
from gemstones.losses import table
from gemstones.losses.trained import read_curves, trained_losses, trained_steps
from gemstones.study import load

logs.start(snakemake)
study, specification = load(snakemake.config), dict(snakemake.params.items())
curves = read_curves(study, snakemake.params.training)
table.write(trained_losses(study, curves), snakemake.output.losses, specification)
files.write_parquet(trained_steps(study, curves), snakemake.output.steps, specification)
