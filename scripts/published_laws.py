"""Put every fit beside its published counterpart."""

from pathlib import Path

from gemstones import laws, logs
from gemstones.files import write_csv
from gemstones.laws.published import compare, published_laws
from gemstones.losses import table
from gemstones.report import write_html_table
from gemstones.study import load

logs.start(snakemake)
study, fits = load(snakemake.config), {Path(path).stem: laws.read(path) for path in snakemake.input.laws}
published = published_laws(study, snakemake.params.downloads)
compared = compare(study, table.read(snakemake.input.losses), fits, published)
write_csv(compared, snakemake.output.csv)
write_html_table(compared, snakemake.output.html, "Fits beside the published ones")
