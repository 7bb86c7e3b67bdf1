"""A prescription held against the runs that have spent its budget: what they reached, and what the law says of each.

A law that is at its minimum may still be wrong where it prescribes. The runs of its own rows know better: at a budget within the
data, each has a loss there, and the law a prediction for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from gemstones.laws.hull import HullFit
from gemstones.laws.power_law import PowerLaw
from gemstones.prescriptions.bands import Laws
from gemstones.prescriptions.optimum import with_run_loss
from gemstones.prescriptions.run_curves import Curves
from gemstones.prescriptions.search import UNITS

if TYPE_CHECKING:
    from gemstones.laws.fit import HuberFit
    from gemstones.laws.uncertainty import Uncertainty
    from gemstones.study import Resource

# So many runs of the lowest losses are compared: the best shapes, of which a prescription must be one.
LOWEST = 5
# A loss is off by less than the first: usable; by more than the second: not to be planned by. One percent of the loss is about what
# a fifth of the budget buys (losses fall as C^-0.05).
USABLE, ROUGH = 0.01, 0.02
# A run within this factor of the prescribed width, depth and parameters is like the prescription. The law's error at such runs says most
# of its error there; without one, no run can have reached the promised loss.
ALIKE = 1.5
COLUMNS = (
    "run", "width", "depth", "params", "tokens", "loss", "predicted", "deviation", "run_loss_low", "run_loss_high", "alike",
)  # fmt: skip


# Columns of a table of prescriptions, with their types.
VERDICT = {
    "verdict": "str", "lowest_loss": "float64", "lowest_run": "str", "above_lowest": "float64", "deviation_low": "float64",
    "deviation_high": "float64", "asked": "Int64", "in_interval": "Int64", "alike": "Int64", "runs": "Int64",
}  # fmt: skip


@dataclass(frozen=True)
class AgainstRuns:
    """What the runs say of a budget.

    Attributes
    ----------
    runs : those that have spent the budget, lowest loss first, with `COLUMNS`: tokens and loss (nats per token) at the budget, the
        law's prediction, predicted / observed − 1, the law's interval for the loss of such a run (null where it is not known), and
        whether the run is like the prescription.
    promised : loss that the law promises on the budget, nats per token.
    pattern : how far the law's residuals are known to lie off with size, as a share of the loss (:mod:`gemstones.laws.patterns`).
    """

    budget: float
    resource: Resource
    runs: pd.DataFrame
    promised: float
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
    def alike(self) -> pd.DataFrame:
        """The runs like the prescription."""
        return self.runs[self.runs["alike"].astype(bool)]

    @property
    def asked(self) -> pd.DataFrame:
        """The runs that the law must not miss: the lowest, and those like the prescription."""
        return self.runs[(self.runs.index < LOWEST) | self.runs["alike"].astype(bool)]

    @property
    def off(self) -> float:
        """Largest deviation, without its sign, of the law from the runs that are asked."""
        return float(self.asked["deviation"].abs().max())

    @property
    def in_interval(self) -> int | None:
        """How many of the runs that are asked lie in the law's interval for such a run; None where it is not known."""
        asked = self.asked
        if asked["run_loss_low"].isna().any():
            return None
        return int(asked["loss"].between(asked["run_loss_low"], asked["run_loss_high"]).sum())

    @property
    def verdict(self) -> str:
        """usable, rough, unproven, or do not plan by this; no runs where there is none to ask.

        A promise far below the lowest run is no fault in itself: no run need have the best shape, and GPU-hours buy more on fewer nodes.
        It is one where the law predicts too low a loss for runs like the prescription as well, or is known to miss losses by size.
        Where there are no runs like it, it is unproven.
        """
        if self.runs.empty:
            return "no runs"
        below = self.above_lowest < -USABLE
        # A promise far above them is worse than a run that can be copied, be the law or the shapes that it chose from at fault.
        if (
            self.off > ROUGH
            or self.above_lowest > ROUGH
            or (below and (self.alike["deviation"].min() < -USABLE or self.pattern > USABLE))
        ):
            return "do not plan by this"
        if below and self.alike.empty:
            return "unproven"
        return "usable" if self.off <= USABLE else "rough"

    def said(self) -> str:
        """The verdict and its reasons, in two sentences or three."""
        unit = f"{self.budget:.3g} {UNITS[self.resource]}"
        if self.runs.empty:
            return f"no run has spent {unit}: none can confirm this prescription"
        asked, best = self.asked, self.runs.iloc[0]
        low, high = 100 * asked["deviation"].min(), 100 * asked["deviation"].max()
        others, inside = len(asked) - len(self.lowest), self.in_interval
        many = f"the {len(self.lowest)} lowest of {_count(len(self.runs))} that have spent {unit}"
        above = f"{100 * abs(self.above_lowest):.2g} % {'below' if self.above_lowest < 0 else 'above'}"
        return (
            f"{self.verdict}: the law misses {many}"
            + (f", and {others} more like the prescribed," if others else "")
            + f" by {low:+.2f} to {high:+.2f} %"
            + (f" ({inside} of {len(asked)} lie in its interval for a run)" if inside is not None else "")
            + f". It promises {self.promised:.3f}, {above} the lowest loss of a run there, {best['loss']:.3f} ({best['run']})"
            + ("; no run like the prescribed is known there" if self.alike.empty else "")
            + (
                f". Early losses of small or large runs lie up to {100 * self.pattern:.2g} % off the law"
                if self.pattern > USABLE
                else ""
            )
        )

    def row(self) -> tuple[Any, ...]:
        """Values of `VERDICT`; some run must have spent the budget."""
        asked, best = self.asked, self.runs.iloc[0]
        deviations = float(asked["deviation"].min()), float(asked["deviation"].max())
        counts = len(asked), self.in_interval, len(self.alike), len(self.runs)
        return (self.verdict, float(best["loss"]), best["run"], self.above_lowest, *deviations, *counts)

    def to_json(self) -> dict[str, Any]:
        empty = self.runs.empty
        return {
            "verdict": self.verdict,
            "said": self.said(),
            "promised_above_lowest": None if empty else self.above_lowest,
            "in_interval": None if empty else self.in_interval,
            "runs": self.runs.astype(object).where(self.runs.notna(), None).to_dict("records"),
        }


def against_runs(
    law: HuberFit | PowerLaw,
    runs: Curves,
    budget: float,
    optimum: Mapping[str, Any] | pd.Series[Any],
    uncertainty: Uncertainty | None = None,
) -> AgainstRuns:
    """Hold what a law prescribes on a budget against the runs that it was fitted to.

    Parameters
    ----------
    runs : those that the law was fitted to, with its columns.
    optimum : the law's on the budget: `loss` (nats per token), `width`, `depth` and `params`. Of a law without width and depth only the
        parameters count, since its shapes are none that it knows.
    uncertainty : the law's resamples, for intervals.

    Returns
    -------
    AgainstRuns; log losses and log tokens are interpolated between a run's checkpoints in the log of what they have spent.
    """
    plain = law if isinstance(law, PowerLaw) else law.law
    found = runs.at(budget)
    if not found.empty:
        found["predicted"] = law.predict(found)
        found["deviation"] = found["predicted"] / found["loss"] - 1
        compared = ["width", "depth", "params"] if plain.knows_shapes else ["params"]
        away = np.abs(np.log(found[compared].to_numpy(float) / [float(optimum[name]) for name in compared]))
        found["alike"] = (away <= np.log(ALIKE)).all(axis=1)
        if uncertainty is not None and not uncertainty.resamples.empty:
            found = found.assign(**_intervals(law, plain, found, uncertainty))
    return AgainstRuns(
        budget, runs.resource, found.reindex(columns=list(COLUMNS)), float(optimum["loss"]), _pattern(law)
    )


def _pattern(law: HuberFit | PowerLaw) -> float:
    """Largest share of the loss by which early losses of small or large runs lie off a fit, where that is no chance."""
    found = {} if isinstance(law, PowerLaw) else law.evidence.get("patterns", {})
    told = [each for each in found.get("early", {}).values() if isinstance(each, dict) and each["p"] < 0.01]
    return max((abs(each[end]) for each in told for end in ("low", "high")), default=0.0)


def with_verdicts(table: pd.DataFrame, uncertainty: Uncertainty, rows: pd.DataFrame) -> pd.DataFrame:
    """A table of prescriptions, with what the runs say of each relaxed optimum; null where none has spent the budget.

    Parameters
    ----------
    table : as :func:`gemstones.prescriptions.optimum.prescribe` gives it.
    uncertainty : the fit that prescribes, with its resamples.
    rows : of the runs that it was fitted to (:func:`~gemstones.prescriptions.run_curves.checkpoints_of`).

    Returns
    -------
    The table with the columns `VERDICT`: `verdict`; `lowest_loss` that a run reached on the budget (nats per token) and that
    `lowest_run`; `above_lowest`, promised / lowest loss − 1; `deviation_low` and `deviation_high` of the law from the runs that are
    asked (predicted / observed − 1), how many are `asked`, how many of them lie `in_interval`; how many runs are `alike`; `runs`.
    """
    law, told = uncertainty.fit, {}
    assert not isinstance(law, HullFit)
    for resource, optima in table[table["variant"] == "relaxed"].groupby("resource", sort=False):
        runs = Curves.of(rows, resource, law.law.columns)
        for index, optimum in optima.iterrows():
            found = against_runs(law, runs, optimum["budget"], optimum, uncertainty)
            if not found.runs.empty:
                told[index] = found.row()
    held = pd.DataFrame.from_dict(told, orient="index", columns=list(VERDICT))
    return table.join(held.astype(VERDICT))


def _intervals(
    law: HuberFit | PowerLaw, plain: PowerLaw, runs: pd.DataFrame, uncertainty: Uncertainty
) -> dict[str, pd.Series[float]]:
    """Ends of the law's prediction interval for each run: the spread of its resamples, and the noise of runs."""
    log_x = {role: np.log(runs[name].to_numpy(float)) for role, name in zip(plain.roles, plain.columns, strict=True)}
    low, high = uncertainty.interval(Laws(plain, uncertainty.resamples).loss(log_x))
    of_law = pd.DataFrame({"loss": runs["predicted"], "loss_low": low, "loss_high": high})
    of_run = with_run_loss(of_law, law, uncertainty.level)
    return {name: of_run[name] for name in ("run_loss_low", "run_loss_high")}


def _count(runs: int) -> str:
    return f"{runs} run" if runs == 1 else f"{runs} runs"
