"""What a study has found, in sentences with numbers: the first page of its report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, StrictUndefined

from gemstones.figures.axes import human, scientific
from gemstones.figures.style import fit_label
from gemstones.laws.fit import HuberFit
from gemstones.laws.power_law import factors
from gemstones.prescriptions.overspend import over_trajectories
from gemstones.study import Study

# Factors on tokens per parameter that the page tells of, as factors on tokens: their square roots.
OVERTRAINED = (4.0, 16.0)
# Columns of prescriptions that say what the runs say of them.
AGAINST = ["verdict", "lowest_loss", "deviation_low", "deviation_high"]
# A run whose overspend is less is called near the frontier.
NEAR = 0.02


def overview(
    study: Study,
    tables: Mapping[str, pd.DataFrame],
    template: Path,
    choice: Mapping[str, Any] | None = None,
    laws: Mapping[str, HuberFit] | None = None,
) -> str:
    """The page, in reStructuredText.

    Parameters
    ----------
    tables : what the study has of: losses, anomalies, slopes, comparison, published, downstream, overspend, overtraining,
        and the prescriptions of each fit, under its name.
    choice : which fit prescribes, by the study's comparison; without one, the config's.
    laws : fits that may prescribe, by name.
    template : Jinja template of the page, in which every name of :func:`findings` is known.
    """
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"human": human, "power": scientific, "percent": percent, "interval": interval}
    return environment.from_string(template.read_text()).render(findings(study, tables, choice, laws))


def findings(
    study: Study,
    tables: Mapping[str, pd.DataFrame],
    choice: Mapping[str, Any] | None = None,
    laws: Mapping[str, HuberFit] | None = None,
) -> dict[str, Any]:
    """The page's numbers, as plain data; None where the study has none of a kind."""
    found: dict[str, Any] = dict.fromkeys(
        ("models", "anomalies", "slopes", "unidentified", "held_out", "interaction", "published", "prescriptions", "overspend",
         "overtraining", "downstream")
    )  # fmt: skip
    found |= {"study": study.study, "level": study.bootstrap.level, "fits": len(study.fits)}
    main_fit = choice["fit"] if choice else study.main_fit
    found |= {"main_fit": main_fit, "choice": choice}
    readers = {
        "models": _models,
        "anomalies": _anomalies,
        "slopes": _slopes,
        "held_out": _held_out,
        "published": _published,
        "prescriptions": _prescriptions,
        "overspend": _overspend,
        "overtraining": _overtraining,
        "downstream": _downstream,
    }
    sources = {"models": "losses", "held_out": "comparison", "prescriptions": main_fit or ""}
    for name, read in readers.items():
        table = tables.get(sources.get(name, name))
        if table is not None and len(table):
            found[name] = read(table[table["fit"] == _shown(table, main_fit)] if name == "overtraining" else table)
    if main_fit in (laws or {}):
        found["interaction"] = _interaction(laws[main_fit], tables.get("comparison"))  # type: ignore[index]
    if found["slopes"]:
        found["unidentified"] = int(tables["slopes"]["warnings"].notna().sum())
    return found


def _shown(table: pd.DataFrame, main_fit: str | None) -> str:
    """Of the laws of a table, the one that prescribes or, where it is not among them, the last."""
    return main_fit if main_fit in set(table["fit"]) else str(table["fit"].iloc[-1])  # type: ignore[return-value]


def percent(ratio: float, digits: int = 0) -> str:
    return f"{100 * ratio:.{digits}f} %"


def interval(low: float, high: float, digits: int = 2, unsure: bool = False) -> str:
    """`low to high`, after a ~ where its ends are unsure, or word that there is none."""
    known = not (pd.isna(low) or pd.isna(high))
    return f"{'~ ' if unsure else ''}{low:.{digits}f} to {high:.{digits}f}" if known else "no interval"


def _models(losses: pd.DataFrame) -> dict[str, Any]:
    runs = losses[losses["run"].notna()]
    if runs.empty:
        return {"runs": 0}
    main = runs[runs["phase"] == "main"] if (runs["phase"] == "main").any() else runs
    shapes = main.drop_duplicates(["width", "depth"])
    return {
        "runs": runs["run"].nunique(),
        "shapes": len(shapes),
        "params": (shapes["params"].min(), shapes["params"].max()),
        "aspect_ratios": tuple((shapes["width"] / shapes["depth"]).astype(float).agg(["min", "max"])),
        "tokens": main["tokens"].max(),
        "flops": main["flops"].max(),
        "rows": len(losses),
        "checkpoints": len(runs.drop_duplicates(["suite", "run", "step"])),
        "trained_tokens": trained_tokens(runs),
    }


def trained_tokens(losses: pd.DataFrame) -> float:
    """Tokens that all runs of a losses table were trained on, cooldowns from their branch on."""
    by_run = losses.groupby(["suite", "run"])
    longest = by_run["tokens"].max()
    branch = by_run["anchor"].first() * (longest / by_run["step"].max())
    return float((longest - branch.astype("float64").fillna(0.0)).sum())


def _anomalies(table: pd.DataFrame) -> dict[str, int]:
    return {str(kind): int(count) for kind, count in table["kind"].value_counts().sort_index().items()}


def _slopes(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Slopes by FLOPs of laws that count all parameters: what the page's table shows."""
    chosen = (table["param_count"] == "params") & table["slope"].notna()
    chosen &= (table["resource"] == "flops") & table["huber_delta"].fillna(1e-4).eq(1e-4)
    columns = ["fit", "approach", "selection", "slope", "slope_low", "slope_high", "slope_published",
               "irreducible_loss", "irreducible_loss_low", "irreducible_loss_high", "unsure", "warnings"]  # fmt: skip
    rows: list[dict[str, Any]] = table.loc[chosen, columns].to_dict("records")
    return [{**row, "label": fit_label(str(row["fit"]))} for row in rows]


def _held_out(table: pd.DataFrame) -> list[dict[str, Any]]:
    """For each selection, the law that predicts left-out runs best, and the one of parameters and tokens alone."""
    error = "leave_one_run_out_mean_absolute_error"
    here = table[(table["parameters_from"] == "fitted here") & table[error].notna()]
    found = []
    for selection, rows in here.groupby("selection", sort=False):
        best, plain = rows.loc[rows[error].idxmin()], rows[rows["law"] == "params, tokens"]
        found.append(
            {
                "selection": selection,
                "law": best["law"],
                "error": best[error],
                "plain_error": plain[error].iloc[0] if len(plain) else None,
                "small_to_large": best["small_to_large_mean_absolute_error"],
                "short_to_long": best["short_to_long_mean_absolute_error"],
            }
        )
    return found


def _interaction(fit: HuberFit, compared: pd.DataFrame | None) -> dict[str, Any] | None:
    """How the term of tokens of the law that prescribes grows with size, and how the law predicts without that; None without one."""
    term = next((term for term in fit.law.covariates if "tokens" in factors(term) and len(factors(term)) > 1), None)
    if term is None:
        return None
    exponents = fit.law.terms[fit.law.covariates.index(term)]
    intervals = fit.evidence.get("intervals", {}).get("quantities", {})
    told = []
    for name in factors(term):
        if name != "tokens":
            low, high = intervals.get(f"exponent_{name}_in_{term}") or (math.nan, math.nan)
            told.append({"factor": name, "exponent": -exponents[name], "low": -high, "high": -low})
    error = "leave_one_run_out_mean_absolute_error"
    errors = {}
    if compared is not None:
        here = compared[(compared["selection"] == fit.selection) & (compared["parameters_from"] == "fitted here")]
        errors = here.set_index("law")[error].dropna().to_dict()
    law = ", ".join(fit.law.covariates)
    return {"law": law, "factors": told, "error": errors.get(law), "without": errors.get(law.replace(term, "tokens"))}


def _published(table: pd.DataFrame) -> dict[str, Any] | None:
    excess = table.set_index("fit")["excess_objective"].dropna()
    if excess.empty:
        return None
    return {
        "fits": len(excess),
        "above": int((excess > 1e-6).sum()),
        "far_above": int((excess > 1e-3).sum()),
        "worst": excess.idxmax(),
        "most": excess.max(),
    }


def _prescriptions(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The feasible optimum at some budgets of FLOPs, more of them where runs have been, with width/depth of the relaxed one."""
    rows = table[table["resource"] == "flops"].set_index("variant")
    feasible = rows.loc[["feasible"]].reset_index(drop=True)
    relaxed = rows.loc[["relaxed"]].set_index("flops")
    step = max(1, round(len(feasible) / 9))
    told = set(rows.loc[["relaxed"]].query("verdict.notna()")["flops"]) if "verdict" in rows else set()
    wanted = [i % step == 0 or (i % max(1, step // 2) == 0 and at in told) for i, at in enumerate(feasible["flops"])]
    ratio = ["aspect_ratio", "aspect_ratio_low", "aspect_ratio_high"]
    chosen = feasible[wanted].drop(columns=ratio).join(relaxed[ratio], on="flops")
    chosen = chosen.drop(columns=AGAINST, errors="ignore").join(relaxed.reindex(columns=AGAINST), on="flops")
    columns = [*AGAINST, "flops", "width", "depth", "params", "tokens", "loss", "extrapolated", "beyond_fitted", *ratio]
    # Where the range of the fitted rows is unknown, nothing is marked.
    chosen["extrapolated"] = chosen["extrapolated"].fillna(False).astype(bool)
    found: list[dict[str, Any]] = chosen[columns].to_dict("records")
    return found


def _overspend(table: pd.DataFrame) -> list[dict[str, Any]]:
    """At the compared step, and what a shape costs wherever its run is best."""
    cost = "overspend_interpolated"
    found = []
    for resource, rows in table[table[cost].notna()].groupby("resource", sort=False):
        at_step = rows[rows["frontier"] == "step"]
        worst = at_step.loc[at_step[cost].idxmax()]
        least = over_trajectories(rows[rows["frontier"] == "trajectories"], worst["step"]).set_index("run")["least"]
        found.append(
            {
                "resource": {"flops": "FLOPs", "gpu_hours": "GPU-hours"}[str(resource)],
                "step": int(worst["step"]),
                "run": worst["run"],
                "most": worst[cost],
                "compared": len(at_step),
                "median": at_step[cost].median(),
                "runs": len(least),
                "near": int((least < NEAR).sum()),
                "worst_run": least.idxmax(),
                "most_along": least.max(),
            }
        )
    return found


def _overtraining(table: pd.DataFrame) -> dict[str, Any] | None:
    """What longer training costs at the largest budget of FLOPs that the data reach."""
    rows = table[(table["resource"] == "flops") & ~table["extrapolated"].fillna(True).astype(bool)]
    rows = rows[rows["budget"] == rows["budget"].max()].set_index("factor")
    costs = [
        {
            "tokens_factor": factor**0.5,
            **rows.loc[factor, ["loss_increase", "loss_increase_low", "loss_increase_high"]].to_dict(),
        }
        for factor in OVERTRAINED
        if factor in rows.index and pd.notna(rows.loc[factor, "loss_increase"])
    ]
    return {"flops": rows["budget"].iloc[0], "costs": costs} if costs else None


def _downstream(table: pd.DataFrame) -> dict[str, Any]:
    row = table[(table["law"] == "error") & (table["task"] == "mean")].iloc[0]
    return {
        "rows": int(row["rows"]),
        "error": row["leave_one_run_out_mean_absolute_error"],
        "small_to_large": row["small_to_large_mean_absolute_error"],
        "r_squared": row["r_squared"],
    }
