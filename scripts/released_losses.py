"""Fetch the authors' released losses, those of their runs before the suite, and industry models' on the same set."""

from gemstones import logs
from gemstones.files import write_csv
from gemstones.losses import table
from gemstones.losses.released import industry_models, preflight_runs, released_losses
from gemstones.study import load

logs.start(snakemake)
losses = released_losses(load(snakemake.config), snakemake.params.downloads)
table.write(losses, snakemake.output.losses, dict(snakemake.params.items()))
write_csv(industry_models(snakemake.params.downloads), snakemake.output.industry)
write_csv(preflight_runs(snakemake.params.downloads), snakemake.output.preflight)
