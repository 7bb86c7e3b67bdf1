"""Several training processes on one machine, where no launcher such as srun has started them."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType

# Seconds that processes have to end by themselves after one of them has failed.
GRACE = 5
PR_SET_PDEATHSIG = 1


def processes() -> int:
    """How many processes torchrun, srun or :func:`run` have started together, this one among them."""
    return max(int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "SLURM_NTASKS"))


def rank() -> int:
    """Which of them this one is."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")))


def local_rank() -> int:
    """Which of those on this machine this one is."""
    return int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")))


def run(number: int, command: Sequence[str]) -> int:
    """Run a command once a process, with RANK, WORLD_SIZE, LOCAL_RANK and where to meet; gives the exit status.

    Signals to stop are passed on. If a process fails, or this one is killed, so are all: one alone would wait for ever.
    """
    shared = os.environ | {"WORLD_SIZE": str(number), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    shared.setdefault("OMP_NUM_THREADS", "1")
    started = [
        subprocess.Popen(
            command, env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, preexec_fn=_die_with_parent
        )
        for rank in range(number)
    ]

    def pass_on(number: int, frame: FrameType | None) -> None:
        for process in started:
            if process.poll() is None:
                process.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, pass_on)
    running = list(started)
    while running and not any(process.returncode for process in started):
        time.sleep(0.05)
        running = [process for process in running if process.poll() is None]
    # The first failure counts: the others fail since that one is gone. All stop with the same status when out of time.
    failed = next((process.returncode for process in started if process.returncode), 0)
    if failed < 0:
        print(f"error: one of {len(started)} processes was ended by {signal.Signals(-failed).name}", file=sys.stderr)
    end = time.monotonic() + GRACE
    for process in running:
        try:
            process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return failed if failed >= 0 else 128 - failed


def _free_port() -> int:
    """One below those that the system gives to whoever asks, which may be taken before processes have started."""
    while True:
        port = random.SystemRandom().randrange(10_000, 16_000)
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port


def again() -> list[str]:
    """The command of this process."""
    return [sys.executable, "-m", "gemstones", *sys.argv[1:]]


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
