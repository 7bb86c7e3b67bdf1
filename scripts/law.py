"""Fit one law."""

from gemstones import laws, logs
from gemstones.files import write_json
from gemstones.losses import table
from gemstones.losses.selections import select
from gemstones.study import load

logs.start(snakemake)
spec = load(snakemake.config).fits[snakemake.wildcards.fit]
rows = select(table.read(snakemake.input.losses), snakemake.params.query, spec.selection)
law = laws.fit(spec, rows, snakemake.params.seed).to_json()
law["provenance"]["query"] = snakemake.params.query
write_json(law, snakemake.output[0])
