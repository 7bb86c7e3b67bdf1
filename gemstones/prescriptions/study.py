"""Prescriptions and costs of a fit of a study: its budgets, the speeds that its runs recorded, and its law's intervals."""

from __future__ import annotations

import logging

import pandas as pd

from gemstones.laws.fit import HuberFit
from gemstones.laws.uncertainty import Uncertainty
from gemstones.losses.selections import select
from gemstones.prescriptions.against_runs import with_verdicts
from gemstones.prescriptions.depth_width import depth_width
from gemstones.prescriptions.optimum import budgets, gpu_hour_budgets, prescribe
from gemstones.prescriptions.overtraining import overtraining
from gemstones.prescriptions.run_curves import checkpoints_of
from gemstones.prescriptions.speeds import Speeds, speeds_of, too_few
from gemstones.study import Study

log = logging.getLogger(__name__)


def prescriptions_of(
    study: Study, name: str, law: HuberFit, resamples: pd.DataFrame, losses: pd.DataFrame
) -> pd.DataFrame:
    """Prescriptions with verdicts; says in the log why there are no GPU-hours, if there are none.

    See :func:`~gemstones.prescriptions.optimum.prescribe` and :func:`~gemstones.prescriptions.against_runs.with_verdicts`.

    Parameters
    ----------
    name : of the fit.
    law, resamples : the fit, and the laws fitted to resamples of its rows.
    losses : the study's losses table.
    """
    speeds = fitted_speeds(study, name, losses)
    if speeds is None:
        log.warning("%s", too_few(speeds))
    uncertainty = Uncertainty(law, resamples, study.bootstrap.level)
    found = prescribe(
        law,
        budgets(study.prescriptions),
        study.suite,
        name,
        uncertainty=uncertainty,
        speeds=speeds,
        gpu_hours=gpu_hour_budgets(study.prescriptions, speeds),
        with_reference=study.prescriptions.reference,
    )
    return with_verdicts(found, uncertainty, checkpoints_of(rows_of(study, name, losses), losses))


def growth_of(study: Study, law: HuberFit, resamples: pd.DataFrame) -> pd.DataFrame:
    """How depth grows with width along the optimum, within the fitted FLOPs and over all budgets of the config."""
    low, high = study.prescriptions.flops_range
    ranges = {"of the config": (low, high)}
    if law.min_flops and law.max_flops and max(low, law.min_flops) < min(high, law.max_flops):
        ranges = {"within the data": (max(low, law.min_flops), min(high, law.max_flops))} | ranges
    return depth_width(Uncertainty(law, resamples, study.bootstrap.level), study.suite, ranges)


def overtraining_of(
    study: Study, name: str, law: HuberFit, resamples: pd.DataFrame, losses: pd.DataFrame
) -> pd.DataFrame:
    """See :func:`~gemstones.prescriptions.overtraining.overtraining`; the log says why budgets of GPU-hours are left out, if they are.

    Parameters
    ----------
    name : of one of the fits of the section `overtraining`.
    law, resamples : the fit, and the laws fitted to resamples of its rows.
    losses : the study's losses table.
    """
    spec = study.overtraining
    assert spec is not None
    speeds = fitted_speeds(study, name, losses)
    if spec.gpu_hours and speeds is None:
        log.warning("%s", too_few(speeds))
    return overtraining(
        law,
        spec.flops,
        study.suite,
        name,
        uncertainty=Uncertainty(law, resamples, study.bootstrap.level),
        speeds=speeds,
        gpu_hours=spec.gpu_hours if speeds else (),
    )


def fitted_speeds(study: Study, name: str, losses: pd.DataFrame, nodes: int | None = None) -> Speeds | None:
    """The speeds that a study's runs recorded, with the most GPU-hours among the rows of a fit."""
    most = rows_of(study, name, losses)["gpu_hours"].max()
    return speeds_of(study, losses, None if pd.isna(most) else float(most), nodes)


def rows_of(study: Study, name: str, losses: pd.DataFrame) -> pd.DataFrame:
    """The rows of the losses table that a fit was fitted to."""
    selection = study.fits[name].selection
    return select(losses, study.selections[selection], selection)
