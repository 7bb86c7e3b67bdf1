"""Have lm-eval evaluate a run's last checkpoint."""

from pathlib import Path

from gemstones import logs
from gemstones.evaluation.harness import evaluate_checkpoint
from gemstones.files import write_json

logs.start(snakemake)
params = snakemake.params
command, tasks, folder = snakemake.resources.command, params.tasks, params.task_folder
found = evaluate_checkpoint(Path(params.manifest), Path(snakemake.input.data), command, tasks, folder)
write_json(found, snakemake.output[0])
