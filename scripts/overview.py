"""The first page of the report: what the study has found."""

from pathlib import Path

import pandas as pd

from gemstones import laws, logs
from gemstones.files import write_text
from gemstones.laws.choice import read_choice
from gemstones.overview import overview
from gemstones.study import load

logs.start(snakemake)
readers = {".csv": pd.read_csv, ".parquet": pd.read_parquet}
tables = {path.stem: readers[path.suffix](path) for path in map(Path, snakemake.input.tables)}
fits = {Path(path).stem: laws.read(path) for path in snakemake.input.laws}
choice = read_choice(Path(snakemake.input.choice[0])) if snakemake.input.choice else None
page = overview(load(snakemake.config), tables, Path(snakemake.input.template), choice, fits)
write_text(page, snakemake.output[0])
