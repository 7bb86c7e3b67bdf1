"""Results of lm-eval as a table of benchmarks."""

import json
from pathlib import Path

from gemstones import logs
from gemstones.evaluation.harness import benchmark_rows
from gemstones.losses import benchmarks, table

logs.start(snakemake)
results = [json.loads(Path(path).read_text()) for path in snakemake.input.results]
rows = benchmark_rows(results, snakemake.params.tasks, table.read(snakemake.input.trained))
benchmarks.write(rows, snakemake.output.benchmarks, dict(snakemake.params.items()))
benchmarks.write_final(rows, snakemake.output.csv, snakemake.output.html)
