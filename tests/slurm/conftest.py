"""The Slurm of tests: started for the first test that needs it, and stopped after all of them (tests/conftest.py)."""

import pytest

from tests.slurm import cluster


@pytest.fixture(scope="session")
def slurm() -> None:
    try:
        cluster.start(until_tests_end=True)
    except cluster.Unavailable as error:
        pytest.skip(f"no private Slurm here: {error}")
