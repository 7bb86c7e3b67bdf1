"""Accuracies on benchmarks at checkpoints of the authors' runs."""

from gemstones import logs
from gemstones.losses import benchmarks, table
from gemstones.report import write_html_table

logs.start(snakemake)
found = benchmarks.released_benchmarks(table.read(snakemake.input.losses), snakemake.params.downloads)
benchmarks.write(found, snakemake.output.benchmarks, {"source": benchmarks.RELEASED})
final = benchmarks.final_accuracies(found)
write_html_table(final, snakemake.output.html, "Accuracies of the final checkpoints on benchmarks (%)")
