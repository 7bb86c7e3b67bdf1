"""Fit one law, find out how sure it is, and write its card."""

from dataclasses import replace
from pathlib import Path

from gemstones import laws, logs
from gemstones.files import write_json, write_parquet
from gemstones.laws.card import card, write_card
from gemstones.losses import table
from gemstones.losses.selections import select
from gemstones.study import load

logs.start(snakemake)
study, name, params = load(snakemake.config), snakemake.wildcards.fit, snakemake.params
rows = select(table.read(snakemake.input.losses), params.query, study.fits[name].selection)
law = laws.fit(study.fits[name], rows, params.seed, params.query)
options = {"seed": params.seed, "jobs": snakemake.threads, "unfinished": Path(params.unfinished)}
law, resamples = laws.assess(law, rows, study.bootstrap_of(name), study.holdout, **options)
law = replace(law, evidence={**law.evidence, "card": card(law, rows, study)})
write_parquet(resamples, snakemake.output.resamples, dict(law.provenance))
write_json(law.to_json(), snakemake.output.law)
write_card(law, snakemake.output.card, name)
