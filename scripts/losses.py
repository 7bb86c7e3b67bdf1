"""Join the sources of losses into the one table, and take out what the config excludes."""

import pandas as pd

from gemstones import logs
from gemstones.files import write_csv
from gemstones.losses import table
from gemstones.losses.selections import exclude
from gemstones.study import load

logs.start(snakemake)
sources = list(snakemake.input.sources)
losses = table.check(pd.concat(map(table.read, sources), ignore_index=True), ", ".join(sources))
losses, excluded = exclude(losses, load(snakemake.config).losses.exclusions)
write_csv(excluded, snakemake.output.excluded)
table.write(losses, snakemake.output.losses, {"sources": sources, **dict(snakemake.params.items())})
