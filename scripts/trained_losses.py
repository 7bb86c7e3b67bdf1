"""Collect the losses of the study's own runs."""

from gemstones import logs
from gemstones.losses import table
from gemstones.losses.trained import trained_losses
from gemstones.study import load

logs.start(snakemake)
table.write(trained_losses(load(snakemake.config), snakemake.params.training), snakemake.output[0])
