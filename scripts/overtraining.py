"""The loss of training longer than the optimum on the same budget."""

import pandas as pd

from gemstones import laws, logs
from gemstones.files import write_parquet
from gemstones.losses import table
from gemstones.prescriptions.study import overtraining_of
from gemstones.study import load

logs.start(snakemake)
study, paths = load(snakemake.config), snakemake.input
law, resamples = laws.read(paths.law), pd.read_parquet(paths.resamples)
costs = overtraining_of(study, law, resamples, table.read(paths.losses))
write_parquet(costs, snakemake.output[0], dict(snakemake.params.items()))
