"""Fit one law, and find out how sure it is."""

from dataclasses import replace
from pathlib import Path

from gemstones import laws, logs
from gemstones.files import write_json, write_parquet
from gemstones.losses import table
from gemstones.losses.selections import select
from gemstones.study import load

logs.start(snakemake)
study, params = load(snakemake.config), snakemake.params
spec = study.fits[snakemake.wildcards.fit]
rows = select(table.read(snakemake.input.losses), params.query, spec.selection)
law = laws.fit(spec, rows, params.seed)
law = replace(law, provenance={**law.provenance, "query": params.query})
options = {"seed": params.seed, "jobs": snakemake.threads, "unfinished": Path(params.unfinished)}
law, resamples = laws.assess(law, rows, study.bootstrap, study.holdout, **options)
write_parquet(resamples, snakemake.output.resamples, dict(law.provenance))
write_json(law.to_json(), snakemake.output.law)
