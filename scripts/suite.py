"""Write the table of shapes and the table of planned jobs."""

import logging

from gemstones import logs
from gemstones.files import write_csv
from gemstones.study import load
from gemstones.suite.tables import plan_table, shapes_table

logs.start(snakemake)
study = load(snakemake.config)
write_csv(shapes_table(study.suite), snakemake.output.shapes)
plan = plan_table(study)
write_csv(plan, snakemake.output.plan)
logging.info("planned, by phase:\n%s", plan.groupby("phase")[["hours", "node_hours"]].sum().round(1))
