"""The command `gemstones fit`: a file's losses, a law, and how sure it is, as tables on a terminal or as JSON."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gemstones.errors import UserError
from gemstones.files import sha256
from gemstones.laws import assess, fit_huber, fit_hull, with_patterns
from gemstones.laws.fit import HuberFit
from gemstones.laws.hull import HullFit, hull_columns
from gemstones.laws.power_law import exponent_names, factors, has_closed_form, roles, written
from gemstones.losses.own import read_own

if TYPE_CHECKING:
    from rich.console import Console

    from gemstones.laws.uncertainty import Uncertainty


def fit_file(
    file: Path,
    *,
    columns: Mapping[str, str],
    query: str | None,
    hull: str | None,
    law: Mapping[str, Any],
    bootstrap: Mapping[str, Any],
    flops: Sequence[float],
    seed: int,
    jobs: int,
    as_json: bool,
) -> bool:
    """Fit a law (keywords of :func:`fit_huber`) or a hull over a resource to a file, and print it; false if it has not converged.

    Raises
    ------
    UserError
        Before anything is printed, if an option or the file is at fault.
    """
    if not hull:
        law = {**law, "covariates": written(law["covariates"])}
    if not 0 < bootstrap["level"] < 1:
        raise UserError(f"--level is {bootstrap['level']:g}; wanted: a share between 0 and 1")
    if flops:
        from gemstones.laws.budgets import check_budgets, optima

        check_budgets(hull or law["covariates"], flops)
    wanted = hull_columns(hull, "params") if hull else (*roles(law["covariates"]), "loss")
    rows = read_own(file, columns, query, (*wanted, *([law["weights"]] if law["weights"] else [])))
    found: HuberFit | HullFit
    uncertainty = None
    try:
        found = fit_hull(rows, hull) if hull else fit_huber(rows, seed=seed, **law)
        source = {"file": file.name, "file_sha256": sha256(file), "columns": dict(columns), "query": query}
        found = replace(found, provenance={**found.provenance, **source})
        if bootstrap["resamples"] or as_json:
            from gemstones.laws.card import card
            from gemstones.laws.uncertainty import Uncertainty
            from gemstones.study import Bootstrap

            found, resamples = assess(found, rows, Bootstrap(**bootstrap), None, seed, jobs, watch=_progress)
            if bootstrap["resamples"]:
                uncertainty = Uncertainty(found, resamples, bootstrap["level"])
            found = replace(found, evidence={**found.evidence, "card": card(found, rows)})
        elif isinstance(found, HuberFit):
            found = with_patterns(found, rows, seed)
    except UserError as error:
        raise UserError(f"{file}: {str(error).removeprefix('fit: ')}") from None
    budgets = optima(found, flops, uncertainty) if flops else []
    warnings = _warnings(found)
    if as_json:
        data = found.to_json() | ({"optima": budgets} if flops else {})
        print(json.dumps(data, indent=2, allow_nan=False))
        for warning in warnings:
            print(f"warning: {warning}", file=sys.stderr)
        return _converged(found)
    from rich.console import Console

    console = Console(highlight=False, markup=False, soft_wrap=True)
    _print_fit(console, found, uncertainty, file)
    _print_budgets(console, budgets)
    for warning in warnings:
        console.print(f"warning: {warning}", style="yellow")
    return _converged(found)


def _converged(found: HuberFit | HullFit) -> bool:
    return isinstance(found, HullFit) or found.converged


def mapping(pairs: Iterable[str]) -> dict[str, str]:
    """Columns by role, of pairs ROLE=NAME; raises UserError for anything else, or a role that is named twice."""
    columns: dict[str, str] = {}
    for pair in pairs:
        role, is_pair, name = pair.partition("=")
        if not (is_pair and role and name):
            raise UserError(f"--column {pair}: wanted: ROLE=NAME, such as loss=final_loss")
        if role in columns:
            raise UserError(f"--column {pair}: {role} is already read from '{columns[role]}'")
        columns[role] = name
    return columns


def _progress(chunks: Iterable[Any], number: int) -> Iterable[Any]:
    if not sys.stderr.isatty():
        return chunks
    from rich.console import Console
    from rich.progress import track

    return track(chunks, "resamples", number, console=Console(stderr=True), transient=True)


def _warnings(found: HuberFit | HullFit) -> list[str]:
    of_fit = found.warnings if isinstance(found, HuberFit) else ()
    return [*of_fit, *found.evidence.get("intervals", {}).get("warnings", ())]


def _print_fit(console: Console, found: HuberFit | HullFit, uncertainty: Uncertainty | None, file: Path) -> None:
    from rich import box
    from rich.table import Table

    intervals = dict(found.evidence.get("intervals", {}))
    ranges = found.evidence.get("ranges", {})
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(_title(found), no_wrap=True)
    table.add_column("estimate", justify="right")
    if intervals:
        table.add_column(intervals["name"], justify="right")
    if ranges:
        table.add_column("objective + 1 %", justify="right")
    for name, label, estimate, ends in _quantities(found, uncertainty):
        cells = [label, "–" if estimate is None else f"{estimate:.4g}"]
        cells += [_ends(ends or intervals["quantities"].get(name))] if intervals else []
        cells += [_ends(ranges.get(name))] if ranges else []
        table.add_row(*cells)
    console.print(table)
    runs = "unknown" if found.n_runs is None else found.n_runs
    console.print(f"{file.name}: rows {found.n_rows}, runs {runs}")
    if isinstance(found, HuberFit):
        how = "least squares of log losses" if math.isinf(found.huber_delta) else f"Huber, delta {found.huber_delta:g}"
        at_optimum = round(found.share_of_starts_at_optimum * found.starts)
        state = "converged" if found.converged else "not converged"
        console.print(f"objective {found.objective:.10g} ({how})")
        console.print(
            f"{state}: gradient {found.gradient_norm:.1e}, {at_optimum} of {found.starts} starts at this minimum"
        )
    else:
        console.print(f"{found.hull_size} points on the hull")
    held_out = found.evidence.get("held_out", {}).get("leave_one_run_out", {}).get("mean_absolute_error")
    if held_out is not None:
        console.print(f"losses of a run that is left out: off by {100 * held_out:.2g} % on average")
    if intervals:
        console.print(
            "no intervals"
            if not intervals["resamples"]
            else f"intervals: {intervals['resamples']} resamples by {intervals['unit']}"
        )
    else:
        console.print("no intervals: add --bootstrap 2000")


def _title(found: HuberFit | HullFit) -> str:
    if isinstance(found, HullFit):
        return f"hull over {found.resource}"
    return "L = E + Σ A/x^α"


def _quantities(
    found: HuberFit | HullFit, uncertainty: Uncertainty | None
) -> list[tuple[str, str, float | None, list[float] | None]]:
    """Name of each quantity in the fit's JSON, label, estimate, and interval where the JSON has none."""

    def ends(name: str) -> NDArray[np.float64]:
        if uncertainty is None or uncertainty.resamples.empty:
            return np.full(2, np.nan)
        return np.array(uncertainty.interval(uncertainty.resamples[name]))

    if isinstance(found, HullFit):
        lines = [(part, name) for name in found.lines for part in ("slope", "intercept")]
        return [
            (
                f"{part}_{name}",
                f"{part} of log {name}",
                getattr(found.lines[name], part),
                ends(f"{part}_{name}").tolist(),
            )
            for part, name in lines
        ]
    law = found.law
    with np.errstate(over="ignore"):
        coefficients = [
            ("", f"coefficient A of {term}", float(np.exp(log_a)), np.exp(ends(f"log_coefficient_{term}")).tolist())
            for term, log_a in zip(law.covariates, law.log_coefficients, strict=True)
        ]
    told = [
        f"exponent α of {factor}" if factor == term else f"α of {factor} in {term}"
        for term in law.covariates
        for factor in factors(term)
    ]
    exponents = zip(exponent_names(law.covariates), told, law.flat_exponents, strict=True)
    slope = [("slope", "slope a of N* ∝ C^a", law.slope, None)] if has_closed_form(law.covariates) else []
    return [
        *((name, label, alpha, None) for name, label, alpha in exponents),
        *coefficients,
        ("irreducible_loss", "irreducible loss E", law.irreducible_loss, None),
        *slope,
    ]


def _ends(ends: Sequence[float] | None) -> str:
    return "–" if ends is None or np.isnan(ends).any() else f"{ends[0]:.4g} … {ends[1]:.4g}"


def _print_budgets(console: Console, budgets: Sequence[Mapping[str, Any]]) -> None:
    if not budgets:
        return
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("FLOPs")
    for name in ("optimum of", "estimate", "interval", ""):
        table.add_column(name, justify="right")
    for row in budgets:
        for name in ("params", "tokens"):
            estimate = "–" if row[name] is None else f"{row[name]:.4g}"
            note = "extrapolated" if row["extrapolated"] else ""
            table.add_row(f"{row['flops']:g}", name, estimate, _ends(row[f"{name}_interval"]), note)
    console.print(table)
