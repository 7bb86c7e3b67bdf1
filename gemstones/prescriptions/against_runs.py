"""A prescription held against the runs that have spent its budget: what they reached, and what the law says of each.

A law that is at its minimum may still be wrong where it prescribes. The runs of its own rows know better: at a budget within the
data, each has a loss there, and the law a prediction for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from gemstones.laws.power_law import PowerLaw
from gemstones.laws.rows import run_names
from gemstones.prescriptions.search import UNITS

if TYPE_CHECKING:
    from gemstones.laws.fit import HuberFit
    from gemstones.study import Resource

# So many runs of the lowest losses are compared: the best shapes, of which a prescription must be one.
LOWEST = 5
# A loss is off by less than the first: usable; by more than the second: not to be planned by. One percent of the loss is about what
# a fifth of the budget buys (losses fall as C^-0.05).
USABLE, ROUGH = 0.01, 0.02
# A run within this factor of the prescribed parameters has the prescribed size. Without one, no run can have reached the promised loss.
SAME_SIZE = 1.5
COLUMNS = ("run", "width", "depth", "params", "tokens", "loss", "predicted", "deviation")


@dataclass(frozen=True)
class AgainstRuns:
    """What the runs say of a budget.

    Attributes
    ----------
    runs : those that have spent the budget, lowest loss first, with `COLUMNS`: tokens and loss (nats per token) at the budget, the
        law's prediction, and predicted / observed − 1.
    promised, params : loss that the law promises on the budget, nats per token, and the parameters that it prescribes for it.
    pattern : how far the law's residuals are known to lie off with size, as a share of the loss (:mod:`gemstones.laws.patterns`).
    """

    budget: float
    resource: Resource
    runs: pd.DataFrame
    promised: float
    params: float
    pattern: float = 0.0

    @property
    def lowest(self) -> pd.DataFrame:
        """The runs of the lowest losses."""
        return self.runs.head(LOWEST)

    @property
    def above_lowest(self) -> float:
        """Promised loss / lowest loss that a run reached − 1."""
        return self.promised / float(self.runs["loss"].iloc[0]) - 1

    @property
    def off(self) -> float:
        """Largest deviation, without its sign, of the law from the lowest runs."""
        return float(self.lowest["deviation"].abs().max())

    @property
    def of_that_size(self) -> bool:
        """Whether a run has about the parameters that are prescribed."""
        away = np.abs(np.log(self.runs["params"].to_numpy(float) / self.params))
        return bool((away <= np.log(SAME_SIZE)).any())

    @property
    def verdict(self) -> str:
        """usable, rough, unproven, or do not plan by this; no runs where there is none to ask.

        A promise far below the lowest run is wrong where a run of that size has been, or where the law is known to miss losses by size.
        Elsewhere it is unproven.
        """
        if self.runs.empty:
            return "no runs"
        below = self.above_lowest < -USABLE
        if self.off > ROUGH or (below and (self.of_that_size or self.pattern > USABLE)):
            return "do not plan by this"
        if below:
            return "unproven"
        return "usable" if self.off <= USABLE else "rough"

    def said(self) -> str:
        """The verdict and its reasons, in a sentence."""
        unit = f"{self.budget:.3g} {UNITS[self.resource]}"
        if self.runs.empty:
            return f"no run has spent {unit}: none can confirm this prescription"
        low, high = 100 * self.lowest["deviation"].min(), 100 * self.lowest["deviation"].max()
        best, above = self.runs.iloc[0], 100 * self.above_lowest
        beside = "below" if above < 0 else "above"
        return (
            f"{self.verdict}: of the {len(self.runs)} runs that have spent {unit}, the law misses the {len(self.lowest)} lowest by "
            f"{low:+.2f} to {high:+.2f} %, and promises {self.promised:.3f}, {abs(above):.2g} % {beside} the lowest that any reached, "
            f"{best['loss']:.3f} ({best['run']})"
            + ("; no run of that size is known there" if not self.of_that_size else "")
        )

    def to_json(self) -> dict[str, Any]:
        empty = self.runs.empty
        return {
            "verdict": self.verdict,
            "said": self.said(),
            "promised_above_lowest": None if empty else self.above_lowest,
            "runs": self.runs.to_dict("records"),
        }


def checkpoints_of(rows: pd.DataFrame, losses: pd.DataFrame) -> pd.DataFrame:
    """All rows that the losses table has of the runs of a selection: a selection may leave out where they were at a budget."""
    key = [name for name in ("suite", "run", "phase", "validation_set") if name in rows and name in losses]
    wanted = rows[key].drop_duplicates()
    return losses.merge(wanted, on=key, how="inner")


def against_runs(
    law: HuberFit | PowerLaw, rows: pd.DataFrame, resource: Resource, budget: float, promised: float, params: float
) -> AgainstRuns:
    """Hold what a law prescribes on a budget against the runs that it was fitted to.

    Parameters
    ----------
    rows : of the law's selection; reads `run`, `loss`, the law's columns, `width`, `depth`, `params`, `tokens`, and `flops` or
        `gpu_hours`.
    promised, params : the law's loss at its optimum on the budget, nats per token, and the optimum's parameters.

    Returns
    -------
    AgainstRuns; log losses and log tokens are interpolated between a run's checkpoints in the log of what they have spent.
    """
    return AgainstRuns(budget, resource, _runs_at(law, rows, resource, budget), promised, params, _pattern(law))


def _pattern(law: HuberFit | PowerLaw) -> float:
    """Largest share of the loss by which early losses of small or large runs lie off a fit, where that is no chance."""
    found = {} if isinstance(law, PowerLaw) else law.evidence.get("patterns", {})
    told = [each for each in found.get("early", {}).values() if isinstance(each, dict) and each["p"] < 0.01]
    return max((abs(each[end]) for each in told for end in ("low", "high")), default=0.0)


def table(fits: list[AgainstRuns]) -> pd.DataFrame:
    """A row for each budget that some run has spent, for a page: verdict, promised loss, the lowest run and the law's deviations."""
    return pd.DataFrame(
        [
            {
                UNITS[each.resource]: each.budget,
                "verdict": each.verdict,
                "promised loss": each.promised,
                "lowest loss of a run": each.runs["loss"].iloc[0],
                "run": each.runs["run"].iloc[0],
                "promised above lowest, %": 100 * each.above_lowest,
                f"law off the {LOWEST} lowest, % from": 100 * each.lowest["deviation"].min(),
                "% to": 100 * each.lowest["deviation"].max(),
                "runs": len(each.runs),
            }
            for each in fits
            if not each.runs.empty
        ]
    )


def runs_at(rows: pd.DataFrame, resource: Resource, budget: float, columns: Sequence[str] = ()) -> pd.DataFrame:
    """The runs that have spent a budget: `run`, `width`, `depth`, `params`, further columns, `tokens` and `loss` there, lowest loss first."""
    names = run_names(rows) if {resource, "tokens", "loss"} <= set(rows) else None
    wanted = ["run", *dict.fromkeys(["width", "depth", "params", *columns, "tokens", "loss"])]
    if names is None:
        return pd.DataFrame(columns=wanted)
    found = []
    for run, of_run in rows.groupby(names, sort=True):
        known = of_run[of_run[resource].notna()].sort_values(resource)
        spent = known[resource].to_numpy(float)
        # A cooldown counts with its main run, whose losses are other ones at the same budget.
        if "phase" in known and known["phase"].nunique(dropna=False) > 1:
            continue
        if len(spent) < 2 or not spent[0] <= budget <= spent[-1]:
            continue
        at = {
            name: float(np.exp(np.interp(np.log(budget), np.log(spent), np.log(known[name].to_numpy(float)))))
            for name in wanted[1:]
            if name in rows
        }
        found.append({"run": str(run), **at})
    return pd.DataFrame(found, columns=wanted).sort_values("loss", ignore_index=True)


def _runs_at(law: HuberFit | PowerLaw, rows: pd.DataFrame, resource: Resource, budget: float) -> pd.DataFrame:
    table = runs_at(rows, resource, budget, law.columns if isinstance(law, PowerLaw) else law.law.columns)
    if not table.empty:
        table["predicted"] = law.predict(table)
        table["deviation"] = table["predicted"] / table["loss"] - 1
    return table.reindex(columns=list(COLUMNS))
