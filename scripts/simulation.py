"""Simulate one part of a scenario's suites, and give their laws intervals by every method."""

from gemstones import logs
from gemstones.files import write_parquet
from gemstones.prescriptions.coverage import part_of
from gemstones.study import load

logs.start(snakemake)
scenario, part = snakemake.wildcards.scenario, int(snakemake.wildcards.part)
intervals = part_of(load(snakemake.config), scenario, part)
write_parquet(intervals, snakemake.output[0], {**snakemake.params.simulation, "scenario": scenario, "part": part})
