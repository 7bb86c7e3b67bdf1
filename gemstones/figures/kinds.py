"""Every kind of figure: where it stands in the report, and what it needs of a study. Plain data, for config and workflow."""

from __future__ import annotations

from typing import Literal, NamedTuple

Fits = Literal["none", "hull", "huber", "optimum", "any"]


class Kind(NamedTuple):
    """What a figure of some kind needs.

    Attributes
    ----------
    category : of the report: the stage whose tables it shows.
    fits : which fits it draws, of which it needs at least one; `optimum` are those that say what is optimal
        for a budget: Approach 1, laws of params and tokens, and those of `prescriptions.fits`.
    tables : further tables that it reads, `<stage>/<name>.<csv or parquet>`; those of `RELEASED` only where a study has them.
    section : of the config, without which there is nothing to draw; `released` stands for losses.sources, `benchmarks` for
        that or evaluation.tasks.
    resamples, prescriptions : whether it reads those of its fits.
    code : modules that it draws with, besides its own and those of all figures (tests/rules/test_code.py).
    """

    category: str
    fits: Fits = "none"
    tables: tuple[str, ...] = ()
    section: str | None = None
    resamples: bool = False
    prescriptions: bool = False
    code: tuple[str, ...] = ()


SUITE, LOSSES, LAWS, PRESCRIPTIONS = "1 Suite", "2 Losses", "3 Laws", "4 Prescriptions"
INDUSTRY, PREFLIGHT, PUBLISHED = "losses/industry.csv", "losses/preflight.csv", "laws/published.csv"
BENCHMARKS = "losses/benchmarks.parquet"
RELEASED = (INDUSTRY, PREFLIGHT, PUBLISHED)  # tables that only a study with released losses has
OWN = {BENCHMARKS: "evaluation/benchmarks.parquet"}  # and what others have in place of theirs
DOWNSTREAM = ("laws/downstream.csv", "laws/downstream_points.parquet", "laws/downstream_resamples.parquet")
OVERSPEND = ("prescriptions/overspend.parquet", "losses/anomalies.csv")
PLANE = ("suite/counting", "suite/shapes")  # what figures.plane draws with
KINDS = {
    "shapes": Kind(SUITE, tables=(INDUSTRY,), code=PLANE),
    "feasible_shapes": Kind(SUITE, code=PLANE),
    "flops_ratio": Kind(SUITE, code=PLANE),
    "loss_curves": Kind(LOSSES),
    "lr_ablation": Kind(LOSSES),
    "validation_sets": Kind(LOSSES, section="released", code=("losses/columns",)),
    "benchmarks": Kind(LOSSES, tables=(BENCHMARKS,), section="benchmarks", code=("losses/benchmarks",)),
    "lr_transfer": Kind(LOSSES, tables=(PREFLIGHT,), code=("suite/recipe", "suite/runs")),
    "cooldown": Kind(LOSSES),
    "approach_1": Kind(LAWS, fits="hull", resamples=True),
    "frontier": Kind(LAWS, fits="hull"),
    "reduced_sampling": Kind(LAWS, fits="huber", resamples=True),
    "rainbow": Kind(LAWS, fits="any", tables=(PUBLISHED,), resamples=True, prescriptions=True),
    "interaction": Kind(LAWS, fits="optimum", resamples=True, prescriptions=True),
    "slopes": Kind(LAWS, tables=("laws/slopes.csv",)),
    "bootstrap_pairs": Kind(LAWS, fits="huber", resamples=True),
    "starts": Kind(LAWS, tables=("laws/early_stopping.csv", PUBLISHED), section="early_stopping"),
    "residuals": Kind(LAWS, fits="huber", tables=("losses/anomalies.csv",)),
    "held_out": Kind(LAWS, tables=("laws/comparison.csv",), section="comparisons", code=("laws/choice",)),
    "error_law": Kind(LAWS, tables=DOWNSTREAM, section="released", code=("figures/accuracy_law",)),
    "accuracy_law": Kind(LAWS, tables=DOWNSTREAM, section="released"),
    "coverage": Kind(LAWS, tables=("laws/coverage.csv",), section="simulation"),
    "approach_3": Kind(PRESCRIPTIONS, fits="optimum", tables=(INDUSTRY, PUBLISHED), prescriptions=True),
    "against_runs": Kind(
        PRESCRIPTIONS,
        fits="huber",
        prescriptions=True,
        code=("prescriptions/against_runs", "prescriptions/run_curves", "laws/rows"),
    ),
    "overspend": Kind(PRESCRIPTIONS, tables=OVERSPEND, section="overspend"),
    "overspend_trajectories": Kind(
        PRESCRIPTIONS, tables=OVERSPEND, section="overspend", code=("figures/overspend", "prescriptions/overspend")
    ),
    "overtraining": Kind(
        PRESCRIPTIONS,
        tables=("prescriptions/overtraining.parquet", INDUSTRY),
        section="overtraining",
        code=("prescriptions/run_curves", "laws/rows"),
    ),
}


def tables_of(kind: str, released: bool) -> list[str]:
    """The further tables of a kind of figure in a study with or without released losses."""
    tables = KINDS[kind].tables
    return [*tables] if released else [OWN.get(table, table) for table in tables if table not in RELEASED]
