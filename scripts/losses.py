"""Join the sources of losses into the one table."""

import pandas as pd

from gemstones import logs
from gemstones.losses import table

logs.start(snakemake)
losses = pd.concat([table.read(path) for path in snakemake.input], ignore_index=True)
table.write(losses, snakemake.output[0], {"sources": list(snakemake.input)})
