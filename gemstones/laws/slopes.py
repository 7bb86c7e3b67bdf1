"""Slopes of the optimal parameters and irreducible losses of all fits, in one table, for people, figures and LaTeX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from gemstones.files import write_csv, write_text
from gemstones.laws.fit import HuberFit
from gemstones.laws.hull import HullFit
from gemstones.laws.uncertainty import ENDS_ERROR
from gemstones.report import write_html_table
from gemstones.study import Approach1, Approach3, Study

QUANTITIES = ("slope", "irreducible_loss")
COLUMNS = (
    "fit", "approach", "selection", "covariates", "param_count", "resource", "huber_delta",
    *(f"{name}{end}" for name in QUANTITIES for end in ("", "_low", "_high", "_published")), "unsure", "warnings",
)  # fmt: skip
# What LaTeX reads as a command.
SPECIAL = {
    "\\": r"\textbackslash{}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "≤": r"$\leq$", "≥": r"$\geq$", "−": "$-$", "→": r"$\to$",
}  # fmt: skip


def slopes(study: Study, fits: Mapping[str, HuberFit | HullFit], published: pd.DataFrame | None = None) -> pd.DataFrame:
    """One row per fit, with the columns `COLUMNS`, in the order of the config.

    Parameters
    ----------
    fits : by name.
    published : table of :func:`gemstones.laws.published.compare`, where there is one.

    Returns
    -------
    DataFrame; `slope` is d log N*/d log C, of Approach 1 that of its line and of a law of params and tokens
    beta/(alpha + beta); null for other laws, whose optimum is no power law. Intervals are those of the fits' JSON; `unsure` names
    those of which resamples leave an end unsure by more than a tenth of the width.
    """
    theirs = pd.DataFrame() if published is None else published.set_index("fit")
    rows = []
    for name, spec in study.fits.items():
        found = fits[name]
        row: dict[str, Any] = {"fit": name, **_described(spec), "warnings": "; ".join(getattr(found, "warnings", ()))}
        intervals = (found.evidence.get("intervals") or {}).get("quantities", {})
        values: dict[str, tuple[float | None, Any]]
        if isinstance(found, HullFit):
            values = {"slope": (found.lines["params"].slope, intervals.get("slope_params"))}
        else:
            values = {
                "slope": (found.law.slope, intervals.get("slope")),
                "irreducible_loss": (found.law.irreducible_loss, intervals.get("irreducible_loss")),
            }
        errors = (found.evidence.get("intervals") or {}).get("ends_standard_error", {})
        unsure = []
        for quantity, (value, ends) in values.items():
            row[quantity] = value
            error = errors.get("slope_params" if isinstance(found, HullFit) else quantity)
            if ends and error and max(error) > ENDS_ERROR * (ends[1] - ends[0]):
                unsure.append(quantity)
            row[f"{quantity}_low"], row[f"{quantity}_high"] = ends or (None, None)
            if name in theirs.index:
                row[f"{quantity}_published"] = theirs.at[name, f"{quantity}_published"]
        rows.append({**row, "unsure": ", ".join(unsure) or None})
    numbers = {column: float for column in COLUMNS if column.startswith(QUANTITIES) or column == "huber_delta"}
    return pd.DataFrame(rows).reindex(columns=list(COLUMNS)).astype(numbers)


def read_published(paths: Sequence[str]) -> pd.DataFrame | None:
    """The table of the authors' fits from its path, where one is given."""
    return pd.read_csv(paths[0]) if paths else None


def write(table: pd.DataFrame, csv: str, tex: str, html: str) -> None:
    """Write the table of :func:`slopes` as CSV, LaTeX and a page for the report."""
    write_csv(table, csv)
    write_text(to_latex(table), tex)
    write_html_table(table, html, "Slopes and irreducible losses of all fits")


def to_latex(table: pd.DataFrame) -> str:
    r"""The table of :func:`slopes` as a `longtable` with the rules of booktabs (`\usepackage{booktabs, longtable}`).

    Intervals stand in brackets, published values in columns of their own; a dagger marks fits with warnings.
    """
    head = r"Fit & slope $a$ & published & $E$ (nats/token) & published \\"
    lines = [
        r"\begin{longtable}{lrrrr}", r"\toprule", head, r"\midrule", r"\endhead", r"\bottomrule", r"\endfoot",
    ]  # fmt: skip
    group = None
    for row in table.to_dict("records"):
        # A rule between what was fitted differently.
        form = (row["approach"], row["covariates"], row["param_count"], row["resource"], row["huber_delta"])
        if group is not None and str(form) != group:
            lines.append(r"\addlinespace")
        group = str(form)
        dagger = r"$^\dagger$" if row["warnings"] and pd.notna(row["warnings"]) else ""
        cells = [escaped(row["fit"].replace("_", " ")) + dagger]
        for name in QUANTITIES:
            cells += [_with_interval(row, name), _number(row[f"{name}_published"])]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\end{longtable}", ""])


def escaped(text: str) -> str:
    """Text with LaTeX's special characters escaped."""
    return "".join(SPECIAL.get(character, character) for character in text)


def _described(spec: Approach1 | Approach3) -> dict[str, Any]:
    if isinstance(spec, Approach1):
        return {
            "approach": 1, "selection": spec.selection, "param_count": spec.param_count, "resource": spec.resource,
            "covariates": "hull",
        }  # fmt: skip
    return {
        "approach": 3, "selection": spec.selection, "param_count": spec.param_count, "resource": "flops",
        "covariates": ", ".join(spec.covariates), "huber_delta": spec.huber_delta,
    }  # fmt: skip


def _with_interval(row: Mapping[str, Any], name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    interval = "" if pd.isna(low) or pd.isna(high) else f" [{low:.3f}, {high:.3f}]"
    return _number(row[name]) + interval


def _number(value: float) -> str:
    return "--" if pd.isna(value) else f"{value:.3f}"
