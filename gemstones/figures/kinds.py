"""Every kind of figure: where it stands in the report, and what it needs of a study. Plain data, for config and workflow."""

from __future__ import annotations

from typing import Literal, NamedTuple

Fits = Literal["none", "hull", "huber", "prescribed", "any"]


class Kind(NamedTuple):
    """What a figure of some kind needs.

    Attributes
    ----------
    category : of the report: the stage whose tables it shows.
    fits : which fits it draws, of which it needs at least one; `prescribed` are those of `prescriptions.fits`.
    tables : further tables that it reads, `<stage>/<name>.<csv or parquet>`; industry models only where a study has them.
    section : of the config, without which there is nothing to draw; `released` stands for losses.sources.
    resamples, prescriptions : whether it reads those of its fits.
    code : modules that it draws with, besides its own and those of all figures.
    """

    category: str
    fits: Fits = "none"
    tables: tuple[str, ...] = ()
    section: str | None = None
    resamples: bool = False
    prescriptions: bool = False
    code: tuple[str, ...] = ()


SUITE, LOSSES, LAWS, PRESCRIPTIONS = "1 Suite", "2 Losses", "3 Laws", "4 Prescriptions"
INDUSTRY = "losses/industry.csv"
OVERSPEND = ("prescriptions/overspend.parquet", "losses/anomalies.csv")
KINDS = {
    "shapes": Kind(SUITE, tables=(INDUSTRY,)),
    "loss_curves": Kind(LOSSES),
    "lr_ablation": Kind(LOSSES),
    "lr_transfer": Kind(LOSSES),
    "cooldown": Kind(LOSSES),
    "approach_1": Kind(LAWS, fits="hull"),
    "rainbow": Kind(LAWS, fits="any", prescriptions=True),
    "residuals": Kind(LAWS, fits="huber", tables=("losses/anomalies.csv",)),
    "held_out": Kind(LAWS, tables=("laws/comparison.csv",), section="comparisons"),
    "coverage": Kind(LAWS, tables=("laws/coverage.csv",), section="simulation"),
    "approach_3": Kind(PRESCRIPTIONS, fits="prescribed", tables=(INDUSTRY,), prescriptions=True),
    "overspend": Kind(PRESCRIPTIONS, tables=OVERSPEND, section="overspend"),
    "overspend_trajectories": Kind(
        PRESCRIPTIONS, tables=OVERSPEND, section="overspend", code=("figures/overspend", "prescriptions/overspend")
    ),
    "overtraining": Kind(
        PRESCRIPTIONS, tables=("prescriptions/overtraining.parquet", INDUSTRY), section="overtraining"
    ),
}
