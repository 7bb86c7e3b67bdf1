import numpy as np
import pytest

from gemstones.laws import PowerLaw
from gemstones.study import Suite


@pytest.fixture(scope="session")
def published() -> PowerLaw:
    """The authors' Eq. 2 law of the selection `all`, delta 1e-4."""
    return PowerLaw(
        ("width", "depth", "params", "tokens"),
        (0.2195783536, 0.4758917337, 0.3636454068, 0.4935127042),
        (1.082043835, -0.2186969889, 6.0902355695, 10.4720427681),
        float(np.exp(0.4282048563)),
    )


@pytest.fixture(scope="session")
def two_covariates() -> PowerLaw:
    return PowerLaw(("params", "tokens"), (0.34, 0.28), (6.0, 6.4), 1.7)


@pytest.fixture(scope="session")
def suite() -> Suite:
    return Suite()


@pytest.fixture(scope="session")
def small_suite() -> Suite:
    """Shapes of a toy study: heads of 16, a vocabulary of 512."""
    return Suite(head_size=16, vocabulary_size=512, context_length=128, width_range=(32, 256), depth_range=(1, 16))
