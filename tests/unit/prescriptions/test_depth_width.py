"""How depth grows with width along the optimum."""

import numpy as np
import pytest

from gemstones.laws import PowerLaw, Uncertainty
from gemstones.prescriptions.depth_width import depth_width
from gemstones.prescriptions.search import Search
from tests.unit.prescriptions.test_bands import fit_of, resamples_of

POWER, LOG = "b of depth ∝ width^b", "b of log width = a + b·depth"


def test_growth_is_that_of_the_optima_with_the_interval_of_the_resamples(published, suite):
    uncertainty = Uncertainty(fit_of(published), resamples_of([published] * 3))
    (row,) = depth_width(uncertainty, suite, {"these": (1e19, 1e22)}).to_dict("records")
    width, depth = Search.of(published, suite).relaxed(np.geomspace(1e19, 1e22, 9))
    assert row[POWER] == pytest.approx(np.polyfit(np.log(width), np.log(depth), 1)[0])
    assert row[LOG] == pytest.approx(np.polyfit(depth, np.log(width), 1)[0])
    for name in (POWER, LOG):
        assert row[f"{name}, from"] == pytest.approx(row[name], rel=2e-2)
        assert row[f"{name}, to"] == pytest.approx(row[name], rel=2e-2)
    # Over three decades a power holds, a logarithm does not.
    assert row[f"{POWER}: off by, %"] < row[f"{LOG}: off by, %"]


def test_laws_that_know_no_shape_have_none(two_covariates, suite):
    law = fit_of(two_covariates)
    assert depth_width(Uncertainty(law, resamples_of([two_covariates])), suite, {"these": (1e19, 1e22)}).empty
    flat = PowerLaw(("width", "depth", "tokens"), (0.1, 0.1, 0.0), (1.0, 1.0, 1.0), 1.0)
    assert depth_width(Uncertainty(fit_of(flat), resamples_of([flat])), suite, {"these": (1e19, 1e22)}).empty
