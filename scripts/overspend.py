"""What each run used beyond the frontier that reaches its loss."""

from gemstones import logs
from gemstones.files import write_parquet
from gemstones.losses import table
from gemstones.losses.selections import select
from gemstones.prescriptions.overspend import overspend

logs.start(snakemake)
spec = snakemake.params.overspend
rows = select(table.read(snakemake.input.losses), snakemake.params.query, spec["selection"])
write_parquet(overspend(rows, spec["step"]), snakemake.output[0], dict(snakemake.params.items()))
