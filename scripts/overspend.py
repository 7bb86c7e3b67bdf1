"""What each run used beyond the frontier that reaches its loss."""

import pandas as pd

from gemstones import logs
from gemstones.files import write_parquet
from gemstones.losses import table
from gemstones.losses.selections import select
from gemstones.prescriptions.overspend import overspend

logs.start(snakemake)
spec = snakemake.params.overspend
rows = select(table.read(snakemake.input.losses), snakemake.params.query, spec["selection"])
costs = pd.concat([overspend(rows, spec["step"]), overspend(rows)], ignore_index=True)
write_parquet(costs, snakemake.output[0], dict(snakemake.params.items()))
