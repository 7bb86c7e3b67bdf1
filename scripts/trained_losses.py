"""Collect the losses of the study's own runs."""

from gemstones import logs
from gemstones.losses import table
from gemstones.losses.trained import trained_losses
from gemstones.study import load

logs.start(snakemake)
losses = trained_losses(load(snakemake.config), snakemake.params.training)
table.write(losses, snakemake.output[0], dict(snakemake.params.items()))
