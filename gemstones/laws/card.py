"""The fit card: what must be known of a law to trust it and to repeat it, as questions and answers.

Sections and questions follow the checklist of Li, Kudugunta and Zettlemoyer, "(Mis)Fitting: A Survey of Scaling Laws" (2025, arXiv
2502.18969): form, training, data, fitting; then what is known of the fit's errors, and what it takes to repeat it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from gemstones.laws import minimize, starts
from gemstones.laws.fit import HuberFit
from gemstones.laws.hull import HOFFMANN_BINS, HullFit
from gemstones.laws.minima import CONVERGED_GRADIENT
from gemstones.laws.objective import HIGHEST_EXPONENT
from gemstones.laws.power_law import exponent_names
from gemstones.losses.columns import COLUMNS
from gemstones.losses.origin import NOT_KNOWN, measured, training
from gemstones.report import number, write_html_table

if TYPE_CHECKING:
    from pathlib import Path

    from gemstones.study import Study

Fit = HuberFit | HullFit
Answers = dict[str, str]


def card(fit: Fit, rows: pd.DataFrame, study: Study | None = None) -> dict[str, Answers]:
    """Answers by question by section, for the law's JSON and its page.

    Parameters
    ----------
    fit : with its evidence.
    rows : that it was fitted to.
    study : the config; without it, little is known of the training.
    """
    return {
        "Form": _hull_form(fit) if isinstance(fit, HullFit) else _power_law_form(fit),
        "Training": training(rows, study),
        "Data": {**_rows(fit, study), **measured(rows, study)},
        "Fitting": _hull_fitting(fit) if isinstance(fit, HullFit) else _huber_fitting(fit),
        "Certainty": {**({} if isinstance(fit, HullFit) else _certificate(fit)), **_intervals(fit), **_held_out(fit)},
        "Repeating it": _repeating(fit, study),
    }


def write_card(fit: Fit, path: str | Path, name: str) -> None:
    """The page of a fit that has its card: the law's numbers, then the card."""
    sections = {section: _table(answers) for section, answers in fit.evidence["card"].items()}
    tables = {"Law": _numbers(fit), **sections}
    if isinstance(fit, HullFit):
        tables["Points of the hull"] = pd.DataFrame(map(vars, fit.hull)).rename(columns={"resource": fit.resource})
    write_html_table(tables, path, f"Fit card of {name}", equation(fit))


def equation(fit: Fit) -> str:
    """The law with its numbers."""
    if isinstance(fit, HullFit):
        lines = fit.lines.items()
        return "; ".join(f"{y} = {_factor(line.intercept)} · {fit.resource}^{line.slope:.4g}" for y, line in lines)
    law = fit.law
    columns = dict(zip(law.roles, law.columns, strict=True))
    found = [f"loss = {law.irreducible_loss:.4g}"]
    for c, term in zip(law.log_coefficients, law.terms, strict=True):
        below = " · ".join(f"{columns[role]}^{alpha:.4g}" for role, alpha in term.items())
        found.append(f"{_factor(c)} / {below}" if len(term) == 1 else f"{_factor(c)} / ({below})")
    return " + ".join(found)


def _factor(log: float) -> str:
    return f"{math.exp(log):.4g}" if abs(log) < 700 else f"exp({log:.4g})"  # beyond, floats end


def _numbers(fit: Fit) -> pd.DataFrame:
    """Every parameter with its ranges and intervals."""
    if isinstance(fit, HullFit):
        values = {
            f"{part}_{y}": getattr(line, part) for y, line in fit.lines.items() for part in ("slope", "intercept")
        }
    else:
        law = fit.law
        values = dict(zip(exponent_names(law.covariates), law.flat_exponents, strict=True))
        values |= {f"log_coefficient_{role}": c for role, c in zip(law.covariates, law.log_coefficients, strict=True)}
        values["irreducible_loss"] = law.irreducible_loss
        values |= {} if law.slope is None else {"slope": law.slope}
    table = pd.DataFrame({"parameter": list(values), "value": list(values.values())})
    intervals = fit.evidence.get("intervals", {})
    for label, found in (
        ("objective_within_1_%", fit.evidence.get("ranges")),
        (intervals.get("name", "").replace(" ", "_"), intervals.get("quantities")),
    ):
        if found:
            ends = [found.get(name) or (None, None) for name in values]
            table[f"{label}_from"], table[f"{label}_to"] = zip(*ends, strict=True)
    return table


def _table(answers: Answers) -> pd.DataFrame:
    return pd.DataFrame({"question": list(answers), "answer": list(answers.values())})


def _power_law_form(fit: HuberFit) -> Answers:
    law = fit.law
    columns = dict(zip(law.roles, law.columns, strict=True))
    terms = []
    for j, term in enumerate(law.terms, 1):
        powers = "".join(
            f" − α_{j}{'abcdefgh'[i] if len(term) > 1 else ''} · log {columns[role]}" for i, role in enumerate(term)
        )
        terms.append(f"exp(c_{j}{powers})")
    shape = " (here also of the shape: Gemstones, Eq. 2 and 3)" if law.knows_shapes else ""
    products = [covariates for covariates in law.covariates if "*" in covariates]
    assumed = "each covariate lowers the loss by a power law of its own, whatever the others are"
    if products:
        assumed = f"each term is a power law of its own; in {', '.join(products)}, what one covariate gains depends on the other"
    return {
        "Which equation is fitted?": f"loss = E + {' + '.join(terms)}, natural logs; the coefficient A_j of a power law is exp(c_j)",
        "Which quantities does it relate?": _quantities(("loss", *law.columns)),
        "Which parameters are free?": f"{law.n_parameters}: c and α of each term, and the irreducible loss E",
        "Where does the form come from, and what does it assume?": (
            f"Hoffmann et al. (2022), section 3.3{shape}{'; the product is this project’s' if products else ''}: {assumed}, down to "
            "a loss that none of them reaches"
        ),
        "What is optimal by it?": (
            f"params ∝ C^{law.slope:.4g} under C = 6 · params · tokens, in closed form ({'this project' if products else 'Hoffmann et al., Eq. 4'})"
            if law.slope is not None
            else "no closed form; shapes and tokens of a budget are searched for, by FLOPs as counted below"
        ),
    }


def _hull_form(fit: HullFit) -> Answers:
    return {
        "Which equation is fitted?": f"log y = slope · log {fit.resource} + intercept, natural logs, for y in {', '.join(fit.lines)}",
        "Which quantities does it relate?": _quantities((fit.resource, fit.param_count, "tokens", "loss")),
        "Which parameters are free?": f"{2 * len(fit.lines)}: slope and intercept of each line",
        "Where does the form come from, and what does it assume?": (
            "Hoffmann et al. (2022), section 3.1, with the lower convex hull in place of bins (Gemstones, section 4.1): the rows on "
            "the hull are taken for the best that their resource buys, and the best to follow a power law"
        ),
    }


def _quantities(columns: tuple[str, ...]) -> str:
    return "; ".join(f"{name}: {COLUMNS[name].description}" if name in COLUMNS else name for name in columns)


def _rows(fit: Fit, study: Study | None) -> Answers:
    runs = "runs not named by all rows"
    if fit.n_runs is not None:
        runs = f"{fit.n_runs} runs, cooldowns counted with their main run"
    selection = f"selection {fit.selection}" if fit.selection else "all that were given"
    query = fit.provenance.get("query")
    outliers = "none by the fit"
    if study:
        outliers = "no: the study excludes none (fits without those flagged: laws/without_anomalies.csv)"
        excluded = study.losses.exclusions.items()
        outliers = "\n".join(f"yes, {name}: {it.query} ({it.reason})" for name, it in excluded) or outliers
    return {
        "Which rows are fitted?": f"{fit.n_rows} rows, {runs}: {selection}" + (f", {query}" if query else ""),
        "Are outliers dropped?": outliers,
        "Which numbers exactly?": f"SHA-256 {fit.provenance.get('rows_sha256', NOT_KNOWN)} of the sorted rows",
    }


def _huber_fitting(fit: HuberFit) -> Answers:
    if math.isinf(fit.huber_delta):
        objective = "sum over rows of half the squared log residual (least squares of log losses)"
    else:
        objective = f"sum over rows of the Huber loss, δ = {fit.huber_delta:g}, of the log residual"
    highest = HIGHEST_EXPONENT
    products = (
        "" if all(len(term) == 1 for term in fit.law.terms) else f", further factors of a product from −{highest:g} on"
    )
    seed = fit.provenance.get("seed", NOT_KNOWN)
    return {
        "What is minimised?": f"{objective}, log observed − log predicted loss; {number(fit.objective)} at the minimum",
        "Are rows weighted?": f"by column {fit.weights}" if fit.weights else "no: all alike",
        "Are over- and underestimates alike?": (
            "yes"
            if fit.overestimate_penalty == 1
            else f"no: rows whose loss is overestimated count {fit.overestimate_penalty:g} times"
        ),
        "Which algorithm?": (
            "Levenberg: damped Newton steps on the exact Hessian, every start by itself, through decreasing δ from "
            f"{minimize.FIRST_DELTA:g} on, each {minimize.DELTA_RATIO:g} of the last; in (A_j, α_j · A_j, E) of centred log covariates, "
            "where the valley of the minimum is straight; where these leave a doubt, L-BFGS-B of SciPy from 13 points"
        ),
        "With which settings?": (
            f"until the predicted relative decrease is below {minimize.TOLERANCE:g}; 0 ≤ α_j ≤ {highest:g}{products}, A_j > 0, E ≥ 0"
        ),
        "From which starts?": (
            f"{fit.starts}, seed {seed}: the best of a grid of α between {starts.EXPONENT_GRID[0]:g} and {starts.EXPONENT_GRID[1]:g}, "
            f"c and E by least squares, others drawn from its best {starts.SCREENED}, and wide ones with α up to "
            f"{starts.WIDE_EXPONENTS[1]:g}, more of them where ends differ"
        ),
    }


def _hull_fitting(fit: HullFit) -> Answers:
    return {
        "What is minimised?": f"squared residuals of log y, line by line, over the {fit.hull_size} points of the hull",
        "Are rows weighted?": f"no: points of the hull alike, the other {fit.n_rows - fit.hull_size} of {fit.n_rows} rows not at all",
        "Are rows binned?": f"no: every row may be on the hull (Hoffmann et al. keep the best of each of {HOFFMANN_BINS} bins)",
        "Which algorithm?": (
            f"exact: lower convex hull of (log {fit.resource}, log loss) as far as the loss falls, then linear least squares; no "
            "starts, no tolerance, no seed"
        ),
    }


def _certificate(fit: HuberFit) -> Answers:
    told = (fit.evidence.get("patterns") or {}).get("warnings", [])
    limit = f"{'below' if fit.converged else 'not below'} {CONVERGED_GRADIENT:g}"
    return {
        "Is it at a minimum?": (
            f"{'yes' if fit.converged else 'no'}: gradient norm {fit.gradient_norm:.2g} a row and δ, {limit}; lowest curvature of the "
            f"Hessian, scaled to a unit diagonal, {fit.lowest_curvature:.2g}"
        ),
        "Is it the lowest one?": (
            f"{100 * fit.share_of_starts_at_optimum:.3g} % of {fit.starts} starts ended there, none lower"
        ),
        "How flat is it?": _spans(fit.evidence.get("ranges"), "within 1 % of the objective, all else refitted: "),
        "What do the rows not identify?": "; ".join(w for w in fit.warnings if w not in told) or "no warning",
        "Do the residuals still have a pattern?": _patterns(fit.evidence.get("patterns")),
        "How far do runs lie off it?": _noise(fit.evidence.get("noise")),
    }


def _patterns(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "not tested"
    if found["warnings"]:
        return "yes: " + "; ".join(found["warnings"])
    if reason := found.get("not_tested"):
        return f"not tested: {reason}"
    return (
        "none that chance does not make in one of a hundred, or of 0.2 % of the loss: early against later losses, and runs by shape "
        "(a law with width and depth bends to the runs that it is fitted to, so that these show little)"
    )


def _noise(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return NOT_KNOWN
    seeds = "" if found.get("seeds") is None else f"; seeds of a shape differ by {100 * found['seeds']:.2g} %"
    how = (
        "seeds of a shape"
        if found["source"] == "replicates"
        else "runs around the law, of whose form they know what it misses"
    )
    return (
        f"by {100 * found['run']:.2g} % (standard deviation, from {found['runs']} {how}; {found['degrees_of_freedom']} degrees of "
        f"freedom), single checkpoints by {100 * found['within']:.2g} % around their run{seeds}"
    )


def _intervals(fit: Fit) -> Answers:
    found = fit.evidence.get("intervals")
    how = None
    if found:
        how = f"{found['name']}, {found['method']}, of {found['resamples']} resamples of {found['units']} {found['unit']}s ({found['resampling']}): "
    reach = NOT_KNOWN
    low, high = (
        (fit.min_flops, fit.max_flops) if isinstance(fit, HuberFit) else (fit.hull[0].resource, fit.hull[-1].resource)
    )
    if low is not None and high is not None:
        unit = "FLOPs" if isinstance(fit, HuberFit) or fit.resource == "flops" else "GPU-hours"
        reach = f"outside {low:.3g} to {high:.3g} {unit}"
    return {
        "How sure are its parameters?": _spans(found and found["quantities"], how or ""),
        "How sure are the ends of these?": _errors(found and found["ends_standard_error"]),
        "Where does it extrapolate?": reach,
    }


def _errors(found: Mapping[str, Any] | None) -> str:
    if not found:
        return "not computed"
    told = [f"{name} {ends[0]:.2g} and {ends[1]:.2g}" for name, ends in found.items() if ends]
    return "standard errors, for so many resamples: " + ("; ".join(told) or "none")


def _spans(found: Mapping[str, Any] | None, before: str) -> str:
    if not found:
        return "not computed"
    return before + "; ".join(f"{name} {_span(ends)}" for name, ends in found.items())


def _span(ends: list[float] | None) -> str:
    return f"{ends[0]:.4g} to {ends[1]:.4g}" if ends else "without interval"


def _held_out(fit: Fit) -> Answers:
    found = fit.evidence.get("held_out")
    if not found:
        return {"How well does it predict rows that it has not seen?": "not tested"}
    # A hull predicts no loss; what is tested is how far its lines depend on single runs.
    question = "How stable is it" if isinstance(fit, HullFit) else "How far off are its predictions (relative errors)"
    return {f"{question}: {test.replace('_', ' ')}?": _words(result) for test, result in found.items()}


def _words(value: Any) -> str:
    """Nested results in words; those of single runs are left to the JSON."""
    if isinstance(value, Mapping):
        told = {key.replace("_", " "): each for key, each in value.items() if key != "by_run" and each not in ([], {})}
        return ", ".join(
            f"{key} ({_words(each)})" if isinstance(each, Mapping | list) else f"{key} {_words(each)}"
            for key, each in told.items()
        )
    if isinstance(value, list):
        return "; ".join(map(_words, value))
    return number(value) if isinstance(value, int | float) else str(value)


def _repeating(fit: Fit, study: Study | None) -> Answers:
    versions = [
        f"{name} {fit.provenance[name]}" for name in ("gemstones", "python", "numpy", "scipy") if name in fit.provenance
    ]
    return {
        "Which versions made it?": ", ".join(versions) or NOT_KNOWN,
        "From which config?": f"study {study.study}, seed {study.seed} (starts and resamples)" if study else "none",
        "Is the code of the fit open?": "yes: this project, gemstones/laws",
    }
