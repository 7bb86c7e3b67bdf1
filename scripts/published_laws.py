"""Put every fit beside its published counterpart."""

from pathlib import Path

from gemstones import laws, logs
from gemstones.figures.output import Drawing, to_html
from gemstones.files import write_csv, write_text
from gemstones.laws.published import compare, published_laws
from gemstones.losses import table
from gemstones.study import load

logs.start(snakemake)
study, fits = load(snakemake.config), {Path(path).stem: laws.read(path) for path in snakemake.input.laws}
published = published_laws(study, snakemake.params.downloads)
compared = compare(study, table.read(snakemake.input.losses), fits, published)
write_csv(compared, snakemake.output.csv)
write_text(to_html(Drawing(None, compared), "published"), snakemake.output.html)
