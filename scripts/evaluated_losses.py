"""Join the runs' losses on further corpora to a source of the losses table."""

import pandas as pd

from gemstones import logs
from gemstones.evaluation.checkpoints import losses_table
from gemstones.losses import table

logs.start(snakemake)
evaluated = [pd.read_parquet(path) for path in snakemake.input.evaluated]
losses = losses_table(evaluated, table.read(snakemake.input.trained))
table.write(losses, snakemake.output[0], dict(snakemake.params.items()))
