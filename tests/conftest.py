"""Shared by all tests: the studies of config/, and the authors' data where they are."""

import os
from pathlib import Path

import pytest
import yaml

from gemstones.study import Study, load

ROOT = Path(__file__).parent.parent


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
