"""What anomalous rows do to the fits: each fit that saw some, with them and without."""

from __future__ import annotations

import pandas as pd

from gemstones.errors import UserError
from gemstones.laws import HullFit, fit
from gemstones.laws.power_law import ROLES, exponent_names
from gemstones.losses.columns import KEY
from gemstones.losses.selections import select
from gemstones.study import Approach1, Approach3, Study

RUN = ["suite", "run"]
NUMBERS = ["slope", "irreducible_loss", *(f"exponent_{role}" for role in ROLES), "objective_per_row", "hull_size"]
COLUMNS = ["fit", "rows", "flagged_rows", *(f"{name}{without}" for name in NUMBERS for without in ("", "_without"))]


def without_flagged(study: Study, losses: pd.DataFrame, anomalies: pd.DataFrame) -> pd.DataFrame:
    """Every fit of the study whose rows hold anomalies, fitted with all its rows and without the anomalous ones.

    Left out are spikes and, by fits on GPU-hours alone, runs with an unusual throughput. Gaps have no rows to leave out.

    Parameters
    ----------
    losses : the losses table.
    anomalies : what :func:`gemstones.losses.anomalies.find_anomalies` found in it.

    Returns
    -------
    DataFrame with one row a fit: rows and flagged_rows; pairs `<number>`, `<number>_without` of slope (of log params on the
    log resource, where the law has one), irreducible_loss (nats), one exponent a covariate, objective_per_row and
    hull_size; `flagged`, which rows these are; `fault`, why there is no fit without them.
    """
    spikes, runs = anomalies[anomalies["kind"] == "spike"], anomalies[anomalies["kind"] == "throughput"]
    effects = []
    for name, spec in study.fits.items():
        rows = select(losses, study.selections[spec.selection], spec.selection)
        flagged = _index(rows, KEY).isin(_index(spikes, KEY))
        if spec.approach == 1 and spec.resource == "gpu_hours":
            flagged |= _index(rows, RUN).isin(_index(runs, RUN))
        if not flagged.any():
            continue
        effect = {
            "fit": name,
            "rows": len(rows),
            "flagged_rows": int(flagged.sum()),
            **_numbers(spec, rows, study.seed),
        }
        fault = None
        try:
            without = _numbers(spec, rows[~flagged].reset_index(drop=True), study.seed)
            effect |= {f"{key}_without": value for key, value in without.items()}
        except UserError as error:
            fault = str(error)
        names = [
            run if run in set(runs["run"]) else f"{run} at {', '.join(map(str, steps))}"
            for run, steps in rows[flagged].groupby("run")["step"]
        ]
        effects.append({**effect, "flagged": "; ".join(names), "fault": fault})
    return pd.DataFrame(effects, columns=[*COLUMNS, "flagged", "fault"])


def _index(table: pd.DataFrame, columns: list[str]) -> pd.MultiIndex:
    return pd.MultiIndex.from_frame(table[columns].astype(str))


def _numbers(spec: Approach1 | Approach3, rows: pd.DataFrame, seed: int) -> dict[str, float | None]:
    fitted = fit(spec, rows, seed)
    if isinstance(fitted, HullFit):
        return {"slope": fitted.lines["params"].slope, "hull_size": fitted.hull_size}
    law = fitted.law
    exponents = dict(zip(exponent_names(law.covariates), law.flat_exponents, strict=True))
    per_row = fitted.objective / fitted.n_rows
    return {"slope": law.slope, "irreducible_loss": law.irreducible_loss, **exponents, "objective_per_row": per_row}
