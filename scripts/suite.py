"""Write the table of shapes and the table of planned jobs."""

from gemstones import logs
from gemstones.files import write_csv
from gemstones.study import load
from gemstones.suite.tables import plan_table, shapes_table

logs.start(snakemake)
study = load(snakemake.config)
write_csv(shapes_table(study.suite), snakemake.output.shapes)
write_csv(plan_table(study), snakemake.output.plan)
