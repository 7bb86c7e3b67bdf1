"""Shared by all tests: the studies of config/, the authors' data where they are, and a finished study."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gemstones.study import Study, load
from tests.slurm import cluster

ROOT = Path(__file__).parent.parent
TINY = ROOT / "tests/tiny.yaml"
PARTS = ["Snakefile", "config", "envs", "gemstones", "profiles", "scripts", "workflow"]


def config_of(name: str) -> dict:
    return yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text())


@pytest.fixture(scope="session")
def mini() -> Study:
    return load(config_of("config"), "config/config.yaml")


@pytest.fixture(scope="session")
def frontier() -> Study:
    return load(config_of("frontier"), "config/frontier.yaml")


@pytest.fixture(scope="session")
def released() -> Study:
    return load(config_of("released"), "config/released.yaml")


@pytest.fixture(scope="session")
def released_folder() -> Path:
    """The authors' files, laid out as upstream."""
    folder = os.environ.get("GEMSTONES_DATA")
    if not folder:
        pytest.skip("GEMSTONES_DATA does not name a folder with the authors' released data")
    return Path(folder)


def copy_project(folder: Path) -> Path:
    """A copy of the project's files, so that a test may run and edit it; the study of tests is config/tiny.yaml there."""
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, folder / part)
    shutil.copy2(TINY, folder / "config/tiny.yaml")
    return folder


def snakemake(folder: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Snakemake's command line, as a user calls it in the project's folder."""
    command = [str(Path(sys.executable).with_name("snakemake")), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="session")
def finished(tmp_path_factory, worker_id) -> Path:
    """A project folder in which the study of tests has run to its end: not to be changed, and shared by all workers."""
    root = tmp_path_factory.getbasetemp()
    folder = (root if worker_id == "master" else root.parent) / "finished"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            copy_project(folder)
            snakemake(folder, "--cores", "2", "--configfile", "config/tiny.yaml")
    return folder


@pytest.fixture
def project(finished, tmp_path) -> Path:
    """A copy of the finished project, with its times, that the test may change."""
    return Path(shutil.copytree(finished, tmp_path / "project", symlinks=True))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Stop the Slurm of tests, which any worker may have started and all of them use."""
    if not hasattr(session.config, "workerinput"):
        cluster.stop_after_tests()
