"""Debian's packages for tests that need a program of the system: installed once, by one process at a time, as root."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

LOCK = Path("/var/tmp/gemstones-tests-apt.lock")


class Unavailable(Exception):
    """Why a package cannot be installed here."""


def install(packages: Sequence[str], programs: Sequence[str]) -> None:
    """Install packages unless all the programs that they bring are there; none of their services is started.

    Raises
    ------
    Unavailable
        If this is no machine where that can be done.
    """
    if all(map(shutil.which, programs)):
        return
    if os.geteuid() or not shutil.which("apt-get"):
        raise Unavailable(f"{', '.join(programs)}: not there, and only root can install Debian's packages")
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        policy = Path("/usr/sbin/policy-rc.d")  # packages must not start what they bring
        made = not policy.exists()
        if made:
            policy.write_text("#!/bin/sh\nexit 101\n")
            policy.chmod(0o755)
        try:
            _apt("update", timeout=300)
            _apt("install", "-y", "--no-install-recommends", *packages, timeout=600)
        except subprocess.CalledProcessError as error:
            said = (error.stderr or error.stdout or "").strip().splitlines()
            raise Unavailable(f"apt-get: {said[-1] if said else error}") from None
        except subprocess.TimeoutExpired as error:
            raise Unavailable(f"apt-get took more than {error.timeout:.0f} seconds") from None
        finally:
            if made:
                policy.unlink()


def _apt(*words: str, timeout: float) -> None:
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "-qq", *words], check=True, capture_output=True, text=True, timeout=timeout, env=quiet)
