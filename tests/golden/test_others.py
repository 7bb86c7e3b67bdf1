"""Losses that others published: our fits are as low as the best that is known of them."""

import pandas as pd
import pytest

from gemstones.laws import fit_huber
from gemstones.losses.own import read_own
from tests.conftest import ROOT

FOLDER = ROOT.parent / "shared/realdata"
FITS = pd.read_csv(FOLDER / "fits.tsv", sep="\t").to_dict("records") if FOLDER.is_dir() else []


@pytest.mark.skipif(not FITS, reason="needs ../shared/realdata")
@pytest.mark.parametrize("known", FITS, ids=[known["name"] for known in FITS])
def test_no_fit_lies_above_the_best_known(known):
    options = dict(zip(*[iter(known["options"].split())] * 2, strict=True))
    query = None if known["query"] == "-" else known["query"]
    covariates = options["--law"].split(",")
    rows = read_own(FOLDER / "data" / f"{known['file']}.csv", query=query, wanted=(*covariates, "loss"))
    fit = fit_huber(rows, covariates, huber_delta=float(options["--delta"]))
    assert len(rows) == known["rows"]
    assert fit.objective <= known["best_objective"] * (1 + 1e-9)
    assert fit.converged
