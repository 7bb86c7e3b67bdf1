"""Compare laws of several forms on the same rows, and choose the one that prescribes."""

from gemstones import logs
from gemstones.files import write_csv, write_json
from gemstones.laws.choice import choose
from gemstones.laws.comparison import compare_selections
from gemstones.losses import table
from gemstones.report import write_html_table
from gemstones.study import load

logs.start(snakemake)
study, losses = load(snakemake.config), table.read(snakemake.input.losses)
compared = compare_selections(study, losses, snakemake.params.downloads)
write_csv(compared, snakemake.output.csv)
write_json(choose(study, compared), snakemake.output.choice)
write_html_table(compared, snakemake.output.html, "Laws compared on the same rows")
