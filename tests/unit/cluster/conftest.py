"""A facility for tests: `sacct` and `squeue` that print what real ones once did, and the study of tests."""

import sys
from pathlib import Path

import pytest
import yaml

from gemstones.cluster.slurm import QUEUE_FIELDS
from gemstones.study import Study, load
from tests.conftest import TINY

SACCT = f"""#!{sys.executable}
import sys
from pathlib import Path
here = Path(__file__).parent
ids = sys.argv[sys.argv.index("-j") + 1].split(",")
with (here / "sacct.calls").open("a") as calls:
    print(*ids, file=calls)
(here / "sacct.options").write_text(" ".join(sys.argv[1:]))
for line in (here / "sacct.txt").read_text().splitlines():
    if line.split("|")[0] in ids:
        print(line)
"""
SQUEUE = f"""#!{sys.executable}
from pathlib import Path
here = Path(__file__).parent
with (here / "squeue.calls").open("a") as calls:
    print("asked", file=calls)
print((here / "squeue.txt").read_text(), end="")
"""


class Facility:
    """What its commands will say, and what they were asked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name, text in (("sacct", SACCT), ("squeue", SQUEUE)):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        self.account()
        self.queue()

    def account(self, *lines: str) -> None:
        """JobIDRaw|State|ElapsedRaw|NNodes|Submit|Start|End|ExitCode"""
        (self._folder / "sacct.txt").write_text("".join(f"{line}\n" for line in lines))

    def queue(self, *jobs: tuple[str, ...]) -> None:
        """JobID, State, Reason, TimeLeft, TimeUsed, NumNodes, StartTime, STDOUT of each"""
        lines = [
            "".join(cell.ljust(width) for cell, width in zip(job, QUEUE_FIELDS.values(), strict=True)) for job in jobs
        ]
        (self._folder / "squeue.txt").write_text("".join(f"{line}\n" for line in lines))

    def broken(self, name: str) -> None:
        (self._folder / name).write_text(
            "#!/bin/sh\necho 'first line\nsacct: error: Problem talking to the database' >&2\nexit 1\n"
        )

    def options(self, name: str) -> list[str]:
        return (self._folder / f"{name}.options").read_text().split()

    def calls(self, name: str) -> list[str]:
        path = self._folder / f"{name}.calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def no_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without Slurm, whatever this one has."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    return folder


@pytest.fixture
def facility(no_slurm: Path) -> Facility:
    return Facility(no_slurm)


@pytest.fixture
def tiny() -> Study:
    return load(yaml.safe_load(TINY.read_text()), "tests/tiny.yaml")
