"""The loss of training longer than the optimum on the same budget."""

import pandas as pd

from gemstones import laws, logs
from gemstones.files import write_parquet
from gemstones.losses import table
from gemstones.prescriptions.study import overtraining_of
from gemstones.study import load

logs.start(snakemake)
study, paths = load(snakemake.config), snakemake.input
losses, spec = table.read(paths.losses), study.overtraining
fits = zip(spec.fits, map(laws.read, paths.laws), map(pd.read_parquet, paths.resamples), strict=True)
costs = pd.concat([overtraining_of(study, *fit, losses) for fit in fits], ignore_index=True)
write_parquet(costs, snakemake.output[0], dict(snakemake.params.items()))
