"""Have lm-eval evaluate a run's last checkpoint."""

from pathlib import Path

from gemstones import logs
from gemstones.evaluation.harness import evaluate_checkpoint
from gemstones.files import write_json

logs.start(snakemake)
manifest, data = (Path(snakemake.input[name]) for name in ("manifest", "data"))
found = evaluate_checkpoint(manifest, data, command=snakemake.resources.command, **dict(snakemake.params.items()))
write_json(found, snakemake.output[0])
