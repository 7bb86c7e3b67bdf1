"""The prescriptions of one fit of a study: its budgets, the speeds that its runs recorded, and its law's intervals."""

from __future__ import annotations

import logging

import pandas as pd

from gemstones.laws.fit import HuberFit
from gemstones.laws.uncertainty import Uncertainty
from gemstones.losses.selections import select
from gemstones.prescriptions.optimum import budgets, gpu_hour_budgets, prescribe
from gemstones.prescriptions.speeds import Speeds, speeds_of, too_few
from gemstones.study import Study

log = logging.getLogger(__name__)


def prescriptions_of(
    study: Study, name: str, law: HuberFit, resamples: pd.DataFrame, losses: pd.DataFrame
) -> pd.DataFrame:
    """See :func:`~gemstones.prescriptions.optimum.prescribe`; says in the log why there are no GPU-hours, if there are none.

    Parameters
    ----------
    name : of the fit.
    law, resamples : the fit, and the laws fitted to resamples of its rows.
    losses : the study's losses table.
    """
    speeds = fitted_speeds(study, name, losses)
    if speeds is None:
        log.warning("%s", too_few(speeds))
    return prescribe(
        law,
        budgets(study.prescriptions),
        study.suite,
        name,
        uncertainty=Uncertainty(law, resamples, study.bootstrap.level),
        speeds=speeds,
        gpu_hours=gpu_hour_budgets(study.prescriptions, speeds),
    )


def fitted_speeds(study: Study, name: str, losses: pd.DataFrame, nodes: int | None = None) -> Speeds | None:
    """The speeds that a study's runs recorded, with the most GPU-hours among the rows of a fit."""
    selection = study.fits[name].selection
    most = select(losses, study.selections[selection], selection)["gpu_hours"].max()
    return speeds_of(study, losses, None if pd.isna(most) else float(most), nodes)
