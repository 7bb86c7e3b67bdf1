"""Archive what has been trained."""

from pathlib import Path

from gemstones import logs
from gemstones.cluster.storage import archive_all
from gemstones.study import load

logs.start(snakemake)
archive_all(load(snakemake.config), Path(snakemake.params.training), Path(snakemake.params.archive))
