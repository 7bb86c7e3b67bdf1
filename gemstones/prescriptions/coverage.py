"""Intervals of laws and of what they prescribe, of simulated suites whose truth is known.

A suite's law may be fitted in the form of its truth, in another one, or in the form that the comparison of held-out errors would
choose, as a user's is. N*, T* and the rest are those of the form that is fitted: in closed form under C = 6·N·T where it knows no
shape, otherwise those of the best real width and depth, by FLOPs as they are counted.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from gemstones.laws.choice import above_best, simplest_near_best
from gemstones.laws.coverage import intervals
from gemstones.laws.fit import HuberFit, fit_huber
from gemstones.laws.holdout import LEAVE_ONE_RUN_OUT, held_out
from gemstones.laws.hull import HullFit, fit_hull
from gemstones.laws.power_law import Allocation, PowerLaw, exponent_names, factors, has_closed_form
from gemstones.laws.simulation import checkpoints, law_of, suite
from gemstones.prescriptions.bands import Laws, relaxed_optima
from gemstones.prescriptions.search import Search
from gemstones.study import Scenario, Simulation, Study
from gemstones.suite import counting
from gemstones.suite.shapes import architecture, parse

# The forms that a comparison chooses from.
FORMS = (
    ("params", "tokens"),
    ("params", "tokens*params"),
    ("width", "depth", "params", "tokens"),
    ("width", "depth", "params", "tokens*params"),
)
# Of the optimum on a budget, by the names that searches have for them.
OPTIMUM = {
    "params": "params",
    "tokens": "tokens",
    "tokens_per_param": "tokens_per_param",
    "aspect_ratio": "aspect_ratio",
}


def part_of(study: Study, name: str, part: int) -> pd.DataFrame:
    """Intervals of one part of a scenario's suites; a suite is the same whatever the number of parts.

    Returns
    -------
    One row a suite, method and quantity: scenario, suite, fitted (the form), quantity, method, truth, estimate, low, high.
    """
    if study.simulation is None:
        raise ValueError("the study has no section simulation")
    scenario = study.simulation.scenarios[name]
    rows = checkpoints(study, scenario.shapes)
    found = []
    for number in range(part, scenario.suites, study.simulation.parts):
        generator = np.random.default_rng([study.seed, zlib.crc32(name.encode()), number])
        found.append(_suite(study, study.simulation, scenario, rows, generator).assign(scenario=name, suite=number))
    return pd.concat(found, ignore_index=True)


def chosen_form(rows: pd.DataFrame, forms: Sequence[tuple[str, ...]] = FORMS) -> HuberFit:
    """The fit, of several forms, that the comparison of held-out errors would choose."""
    fits = {", ".join(form): fit_huber(rows, form) for form in forms}
    errors = {}
    for name, fit in fits.items():
        by_run = held_out(fit, rows)[LEAVE_ONE_RUN_OUT].get("by_run", {})
        errors[name] = {run: each["mean_absolute_error"] for run, each in by_run.items()}
    told = [
        {"law": name, "parameters": fits[name].n_parameters, "error": float(np.mean(list(errors[name].values()))),
         "above_best": difference, "above_best_se": error}
        for name, (difference, error) in above_best(errors).items()
    ]  # fmt: skip
    chosen = simplest_near_best(told)
    return fits[chosen["law"]] if chosen else next(iter(fits.values()))


def _suite(
    study: Study, simulation: Simulation, scenario: Scenario, rows: pd.DataFrame, generator: np.random.Generator
) -> pd.DataFrame:
    """Intervals of one suite: of the law's quantities and of its hull's lines."""
    truth = law_of(simulation.laws[scenario.law])
    losses = suite(rows, simulation.laws[scenario.law], generator)
    bootstrap = study.bootstrap.model_copy(update={"resamples": scenario.resamples})
    if scenario.fitted == "chosen":
        fit = chosen_form(losses)
    else:
        fit = fit_huber(losses, truth.covariates if scenario.fitted == "truth" else scenario.fitted)
    of_fit = partial(quantities, fit.law, study, simulation)
    expected = quantities(truth, study, simulation, _row(truth)).iloc[0]
    if set(fit.law.covariates) != set(truth.covariates):
        # Exponents, E and slopes of another form stand for something else.
        expected = expected[[name for name in expected.index if name.startswith(("log_loss", "log_optimal"))]]
    law = intervals(fit, losses, of_fit, expected, bootstrap, generator)
    # A finite suite has a hull of its own without any error, and that is what its intervals are about.
    clean = fit_hull(rows.assign(loss=truth.predict(rows)))
    hull = intervals(fit_hull(losses), losses, _of_hull, _of_hull(_lines(clean)).iloc[0], bootstrap, generator)
    found = pd.concat([law.assign(fitted=", ".join(fit.law.covariates)), hull.assign(fitted="hull")], ignore_index=True)
    return found[found["truth"].notna()].reset_index(drop=True)


def quantities(law: PowerLaw, study: Study, simulation: Simulation, laws: pd.DataFrame) -> pd.DataFrame:
    """Of each law of a table with the terms of `law`: exponents, E, slope, the log loss of a run ahead, and logs of the optimum on
    each budget: params, tokens, tokens per parameter, width/depth and loss.
    """
    width, depth = parse(simulation.ahead[0])
    params = counting.params(width, depth, architecture(study.suite))
    at = {"params": params, "tokens": simulation.ahead[1], "width": width, "depth": depth}
    exponents = laws[exponent_names(law.covariates)]
    found = {name: exponents[name] for name in exponents} | {"irreducible_loss": laws["irreducible_loss"]}
    found["log_loss_ahead"] = np.log(_loss(law, laws, at))
    budgets = np.array(simulation.flops)
    if has_closed_form(law.covariates):
        allocation = Allocation.of_laws(laws, law.covariates)
        found["slope"] = allocation.a[:, 0]
        log_params, log_tokens = allocation.log_params(budgets), allocation.log_tokens(budgets)
        optimum = {"params": log_params, "tokens": log_tokens, "tokens_per_param": log_tokens - log_params}
        loss = [
            _loss(law, laws, {"params": np.exp(log_params[:, i]), "tokens": np.exp(log_tokens[:, i])})
            for i in range(len(budgets))
        ]
        optimum["loss"] = np.log(np.stack(loss, axis=1))
    else:
        relaxed = relaxed_optima(Laws(law, laws), Search.of(law, study.suite), budgets)
        optimum = {name: np.log(relaxed[name]) for name in (*OPTIMUM, "loss")}
    for name, values in optimum.items():
        label = "log_loss" if name == "loss" else f"log_optimal_{name}"
        found |= {f"{label}_{budget:.0e}": values[:, i] for i, budget in enumerate(budgets.tolist())}
    return pd.DataFrame(found)


def _loss(law: PowerLaw, laws: pd.DataFrame, at: Mapping[str, Any]) -> pd.Series[float]:
    loss, names = laws["irreducible_loss"], iter(exponent_names(law.covariates))
    for term in law.covariates:
        power = sum(laws[next(names)] * np.log(at[role]) for role in factors(term))
        loss = loss + np.exp(laws[f"log_coefficient_{term}"] - power)
    return loss


def _row(law: PowerLaw) -> pd.DataFrame:
    """A law as a table of resamples has it."""
    coefficients = (f"log_coefficient_{term}" for term in law.covariates)
    columns = {"irreducible_loss": law.irreducible_loss}
    columns |= dict(zip(exponent_names(law.covariates), law.flat_exponents, strict=True))
    return pd.DataFrame([columns | dict(zip(coefficients, law.log_coefficients, strict=True))])


def _lines(hull: HullFit) -> pd.DataFrame:
    return pd.DataFrame([{f"slope_{name}": line.slope for name, line in hull.lines.items()}])


def _of_hull(laws: pd.DataFrame) -> pd.DataFrame:
    return laws.filter(regex="^slope_").add_prefix("hull_")
