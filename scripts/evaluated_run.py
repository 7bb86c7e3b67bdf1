"""Losses of a run's checkpoints on further corpora."""

from pathlib import Path

from gemstones import logs
from gemstones.evaluation.checkpoints import evaluate_run
from gemstones.files import write_parquet

logs.start(snakemake)
params = snakemake.params
losses = evaluate_run(Path(params.manifest), params.sets, params.least_bytes)
write_parquet(losses, snakemake.output[0], dict(params.items()))
