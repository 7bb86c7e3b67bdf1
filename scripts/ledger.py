"""Account for what training has taken."""

import logging
from pathlib import Path

from gemstones import logs
from gemstones.cluster.ledger import account_for, write
from gemstones.study import load

logs.start(snakemake)
found = account_for(load(snakemake.config), Path(snakemake.output.csv).parents[2])
logging.info("elapsed times are from: %s", found.source)
write(found, snakemake.output.csv, snakemake.output.html, "Ledger of training")
