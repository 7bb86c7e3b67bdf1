"""`python -m tests.slurm.snakemake …`: Snakemake, but jobs' states are asked for every second, for tests.

The executor has no option for it: it waits ten seconds longer after each time that nothing has ended.
"""

import asyncio
import sys

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor


async def _sleep(self: RemoteExecutor) -> None:
    await asyncio.sleep(1)


if __name__ == "__main__":
    RemoteExecutor.sleep = _sleep
    sys.argv[0] = "snakemake"
    main()
