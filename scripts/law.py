"""Fit one law."""

from gemstones import laws, logs
from gemstones.files import write_json
from gemstones.losses import table
from gemstones.losses.selections import select
from gemstones.study import load

logs.start(snakemake)
spec = load(snakemake.config).fits[snakemake.wildcards.fit]
rows = select(table.read(snakemake.input.losses), snakemake.params.query, spec.selection)
write_json(laws.fit(spec, rows, snakemake.params.seed).to_json(), snakemake.output[0])
