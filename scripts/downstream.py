"""Fit the laws from loss to error and accuracy on benchmarks."""

import pandas as pd

from gemstones import logs
from gemstones.laws.downstream import fit_downstream
from gemstones.losses import table
from gemstones.study import load

logs.start(snakemake)
losses, accuracies = table.read(snakemake.input.losses), pd.read_parquet(snakemake.input.benchmarks)
fit_downstream(losses, accuracies, load(snakemake.config)).write(**dict(snakemake.output.items()))
