"""Archive a run that has ended."""

from pathlib import Path

from gemstones import logs
from gemstones.cluster.storage import archive

logs.start(snakemake)
archive(Path(snakemake.params.manifest), Path(snakemake.output.record), snakemake.config["study"])
