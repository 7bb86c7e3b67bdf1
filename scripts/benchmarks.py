"""Accuracies on benchmarks at checkpoints of the authors' runs."""

from gemstones import logs
from gemstones.losses import benchmarks, table

logs.start(snakemake)
found = benchmarks.released_benchmarks(table.read(snakemake.input.losses), snakemake.params.downloads)
benchmarks.write(found, snakemake.output.benchmarks, {"source": benchmarks.RELEASED})
benchmarks.write_final(found, snakemake.output.csv, snakemake.output.html)
