"""Staging copies packages and shards to the nodes, and where it cannot, what is shared is used, with a line that says so."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

# A node of its own: runs the command that follows srun's options; sbcast copies.
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""
SBCAST = """#!/bin/bash
echo "$2" >> sbcast.log
cp "$2" "$3"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in {
        "bin/srun": SRUN,
        "bin/sbcast": SBCAST,
        "bin/python": f"#!/bin/bash\necho {tmp_path}/packages\n",
        "packages/module/__init__.py": "",
        "packages/module-1.0.dist-info/METADATA": "",
        "data/shards/train-00000.bin": "tokens",
        "data/shards/train-00000.documents.npy": "",
        "data/manifest.json": "{}",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    return tmp_path


def stage(folder: Path, *, nodes: str = "1", manifest: str = "data/manifest.json") -> subprocess.CompletedProcess[str]:
    script = (
        f'set -euo pipefail; source {ROOT}/envs/stage.sh {manifest}; echo "${{PYTHONPATH-}} ${{GEMSTONES_SHARDS-}}"'
    )
    environment = {
        "PATH": f"{folder}/bin:{os.environ['PATH']}",
        "GEMSTONES_STAGE": f"{folder}/node",
        "GEMSTONES_PYTHON": f"{folder}/bin/python",
        "SLURM_JOB_NUM_NODES": nodes,
        "SLURM_JOB_ID": "7",
    }
    done = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done


def test_packages_and_shards_are_on_the_node(folder: Path) -> None:
    done = stage(folder)
    packages, shards = done.stdout.split()
    assert done.stderr == ""
    assert packages.startswith(f"{folder}/node/")
    assert (Path(packages) / "module/__init__.py").exists()
    assert shards == f"{folder}/node/shards"
    assert [path.name for path in Path(shards).iterdir()] == ["train-00000.bin"]
    assert stage(folder, manifest="").stdout.split() == [packages]


def test_packages_are_packed_once_and_again_after_a_change(folder: Path) -> None:
    stage(folder, manifest="")
    (packed,) = (folder / "results/environment").iterdir()
    first = packed.stat()
    stage(folder, manifest="")
    assert packed.stat() == first
    (folder / "packages/other-1.0.dist-info").mkdir()
    assert stage(folder, manifest="").stdout.split() != []
    assert len(list((folder / "results/environment").iterdir())) == 2


@pytest.mark.parametrize("broken", ["sbcast", "srun", "nodes"])
def test_what_fails_is_said_and_the_shared_files_are_used(folder: Path, broken: str) -> None:
    if broken != "nodes":
        (folder / "bin" / broken).write_text("#!/bin/bash\nexit 1\n")
    done = stage(folder, nodes="" if broken == "nodes" else "1")
    assert done.stdout.split() == ["data/shards"]
    lines = done.stderr.splitlines()
    assert len(lines) == (2 if broken == "sbcast" else 1)
    assert all(line.startswith("stage: ") and "going on with" in line for line in lines)
