"""Write the table of shapes, the table of planned jobs, and a page of what they take of a cluster."""

from gemstones import logs
from gemstones.cluster.page import write_page
from gemstones.cluster.plan import plan_table, rounded
from gemstones.files import write_csv
from gemstones.study import load
from gemstones.suite.tables import shapes_table

logs.start(snakemake)
study = load(snakemake.config)
write_csv(shapes_table(study.suite), snakemake.output.shapes)
plan = plan_table(study)
write_csv(rounded(plan), snakemake.output.plan)
write_page(study, plan, snakemake.output.html)
