"""The shapes and tokens that minimise a law's loss over a range of budgets, as one table for FLOPs and GPU-hours."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from gemstones.errors import UserError
from gemstones.laws.fit import HuberFit
from gemstones.laws.noise import RunNoise
from gemstones.laws.power_law import PowerLaw
from gemstones.prescriptions.bands import QUANTITIES, bands
from gemstones.prescriptions.reference import reference
from gemstones.prescriptions.search import Array, Search, real_params

if TYPE_CHECKING:
    from gemstones.laws.uncertainty import Uncertainty
    from gemstones.prescriptions.speeds import Speeds
    from gemstones.study import Prescriptions, Resource, Suite

COLUMNS = [
    "fit", "variant", "resource", "budget", "bucket_from", "flops", "gpu_hours", "nodes", "gpu_hours_fewest_nodes",
    "gpu_hours_most_nodes", "gpu_hours_error", "width", "depth", "aspect_ratio", "param_count", "params", "law_params", "tokens", "tokens_per_param",
    "loss", "extrapolated", "beyond_fitted", *(f"{name}_{end}" for name in QUANTITIES for end in ("low", "high")),
    "run_loss_low", "run_loss_high",
]  # fmt: skip


def budgets(spec: Prescriptions) -> Array:
    """The config's budgets in FLOPs, evenly spaced in log."""
    return np.geomspace(*spec.flops_range, spec.budgets)


def gpu_hour_budgets(spec: Prescriptions, speeds: Speeds | None) -> Array:
    """The config's budgets in GPU-hours or, where it has none, those of FLOPs at the usual speed, to whole powers of ten."""
    if speeds is None:
        return np.empty(0)
    low, high = (10.0 ** round(math.log10(flops / speeds.flops_per_gpu_hour)) for flops in spec.flops_range)
    return np.geomspace(*(spec.gpu_hours_range or (low, high)), spec.budgets)


def prescribe(
    law: HuberFit | PowerLaw,
    budgets: Iterable[float],
    suite: Suite,
    fit: str = "",
    max_flops: float | None = None,
    uncertainty: Uncertainty | None = None,
    speeds: Speeds | None = None,
    gpu_hours: Iterable[float] = (),
    with_reference: bool = False,
) -> pd.DataFrame:
    """Optimal shapes and tokens over budgets.

    Parameters
    ----------
    law : a fit, or a law such as a published one.
    budgets : in FLOPs; none is fine where there are `gpu_hours`.
    suite : gives head size, vocabulary, context and the smallest depth.
    fit : name of the fit, for the table.
    max_flops : largest training FLOPs of the fitted rows; by default what the fit recorded.
    uncertainty : the law's resamples, for intervals: <quantity>_low and _high, of relaxed and closed-form optima.
    speeds : for the GPU-hours of every shape.
    gpu_hours : budgets in GPU-hours, which need `speeds`.
    with_reference : with the results of the authors' search too, as the variant `reference`
        (:func:`~gemstones.prescriptions.reference.reference`): its budgets are the right ends of buckets in FLOPs, `bucket_from`
        the left ones, at which the authors draw them; the suite must be theirs.

    Returns
    -------
    DataFrame with `COLUMNS`, by resource and budget, the authors' search last; for each budget the variants `relaxed`, `feasible`
    and, for laws of params and tokens on budgets of FLOPs, `closed_form` (Hoffmann et al., Eq. 4, C = 6·N·T), which has no shape;
    its `params` are known only where the law counts all parameters. `law_params` is in the law's own count, `param_count`. `flops`
    are spent in training, `gpu_hours` estimated on `nodes` (and on the fewest and the most that were recorded), with the speed
    model's typical relative error in `gpu_hours_error`; all null where speeds are unknown. `loss_low` and `_high` are about the
    law's loss, `run_loss_low` and `_high` about that of a run that is trained (:func:`with_run_loss`). `extrapolated` says whether FLOPs or
    budget lie outside those of the fitted rows, `beyond_fitted` which of params, width, depth and tokens do, with commas; null
    where the range is unknown, or, for the latter, none does.

    Raises
    ------
    UserError
        If a budget does not pay for one token of the smallest shape.
    """
    given: list[tuple[Resource, Array]] = [
        ("flops", np.array(list(budgets), dtype=float)),
        ("gpu_hours", np.array(list(gpu_hours), dtype=float)),
    ]
    tables = [
        _on_budgets(Search.of(law, suite, speeds, resource), of_resource, uncertainty)
        for resource, of_resource in given
        if len(of_resource)
    ]
    if with_reference:
        rows = reference(law)
        spent, *shape = (rows[name].to_numpy() for name in ("flops", "width", "depth"))
        tables.append(shapes_table(Search.of(law, suite, speeds), "reference", spent, *shape).assign(**rows))
    table = pd.concat(tables, ignore_index=True)
    if (unknown := ~np.isfinite(table["loss"])).any():
        budget, told = table["budget"][unknown].iloc[0], table["loss"][unknown].iloc[0]
        raise UserError(f"a budget of {budget:.3g}: the law's loss there is {told}; wanted: a law of finite losses")
    table = with_run_loss(table, law, uncertainty.level if uncertainty else None)
    return table.assign(
        fit=fit,
        aspect_ratio=table["width"] / table["depth"],
        param_count=(law.law if isinstance(law, HuberFit) else law).param_count,
        tokens_per_param=table["tokens"] / table["params"],
        nodes=table["nodes"].astype("Int64"),
        gpu_hours_error=(table["gpu_hours"] * 0 + speeds.model.error) if speeds else np.nan,
        extrapolated=beyond_data(table, law, max_flops, speeds),
        beyond_fitted=beyond_fitted(table, law),
    ).reindex(columns=COLUMNS)


def with_run_loss(table: pd.DataFrame, law: HuberFit | PowerLaw, level: float | None) -> pd.DataFrame:
    """The prediction interval of an untrained run's loss: `run_loss_low` and `_high`.

    It is the interval of the law's loss (`loss_low`, `loss_high`), wider by the noise of runs: distances in log loss add up as squares.
    Null where either is unknown.
    """
    known = law.evidence.get("noise") if isinstance(law, HuberFit) else None
    if not known or level is None or "loss_low" not in table:
        return table.assign(run_loss_low=np.nan, run_loss_high=np.nan)
    noise = RunNoise.from_json(known).half_width(level)
    loss = np.log(table["loss"])
    below, above = loss - np.log(table["loss_low"]), np.log(table["loss_high"]) - loss
    # An interval of the law need not hold the fit itself.
    low = loss - np.hypot(below.clip(lower=0), noise)
    high = loss + np.hypot(above.clip(lower=0), noise)
    return table.assign(run_loss_low=np.exp(low), run_loss_high=np.exp(high))


def extrapolated(flops: pd.Series[float], law: HuberFit | PowerLaw, max_flops: float | None) -> pd.Series[bool]:
    """Whether budgets lie outside those of the rows that were fitted; null where their range is unknown."""
    min_flops = 0.0
    if max_flops is None and isinstance(law, HuberFit):
        min_flops, max_flops = law.min_flops or 0.0, law.max_flops
    if max_flops is None:
        return pd.Series(pd.NA, index=flops.index, dtype="boolean")
    return ((flops > max_flops) | (flops < min_flops)).astype("boolean")


def beyond_fitted(table: pd.DataFrame, law: HuberFit | PowerLaw) -> pd.Series[str]:
    """Which of params, width, depth and tokens lie outside those of the rows that were fitted, joined; null for none."""
    found = pd.Series("", index=table.index)
    ranges = law.evidence.get("fitted_ranges", {}) if isinstance(law, HuberFit) else {}
    for name, (low, high) in ranges.items():
        outside = (table[name] < low * (1 - 1e-9)) | (table[name] > high * (1 + 1e-9))
        found = found.mask(outside, found + ", " + name)
    return found.str.removeprefix(", ").replace("", None)


def beyond_data(
    table: pd.DataFrame, law: HuberFit | PowerLaw, max_flops: float | None, speeds: Speeds | None
) -> pd.Series[bool]:
    """Whether `flops` or `budget` of a table's rows lie outside those of the rows that were fitted; null where these are unknown."""
    beyond = extrapolated(table["flops"], law, max_flops)
    if speeds and speeds.max_gpu_hours is not None:
        beyond |= (table["resource"] == "gpu_hours") & (table["budget"] > speeds.max_gpu_hours)
    return beyond


def _on_budgets(search: Search, budgets: Array, uncertainty: Uncertainty | None) -> pd.DataFrame:
    """All variants, by budget, with intervals."""
    width, depth = search.relaxed(budgets)
    whole = [search.feasible(budget, near) for budget, near in zip(budgets.tolist(), width.tolist(), strict=True)]
    tables = [
        shapes_table(search, "relaxed", budgets, width, depth),
        shapes_table(search, "feasible", budgets, *np.array(whole).reshape(-1, 2).T),
    ]
    closed = search.law.slope is not None and search.resource == "flops"
    if closed:
        tables.append(_closed_form(search.law, budgets))
    table = pd.concat(tables, ignore_index=True).sort_values("budget", kind="stable", ignore_index=True)
    if uncertainty is None or uncertainty.resamples.empty:
        return table
    table = table.merge(bands(uncertainty, search, budgets), how="left", on=["variant", "budget"])
    unknown = (table["variant"] == "closed_form") & (search.law.param_count == "params")
    for end in ("low", "high"):
        table[f"params_{end}"] = table[f"params_{end}"].where(~unknown, table[f"law_params_{end}"])
    return table


def shapes_table(search: Search, variant: str, budgets: Array, width: Array, depth: Array) -> pd.DataFrame:
    """What is had of budgets (m,) that are spent on shapes (m,)."""
    tokens = budgets / search.cost_per_token(width, depth)
    speeds = search.speeds
    fewest, most = speeds.model.nodes if speeds else (None, None)
    spent = {
        "flops": tokens * search.flops_per_token(width, depth),
        "gpu_hours": tokens * search.gpu_hours_per_token(width, depth),
    }
    return pd.DataFrame(
        {
            "variant": variant,
            "resource": search.resource,
            "budget": budgets,
            **spent,
            search.resource: budgets,
            "nodes": float(speeds.nodes) if speeds else np.nan,
            "gpu_hours_fewest_nodes": tokens * search.gpu_hours_per_token(width, depth, fewest),
            "gpu_hours_most_nodes": tokens * search.gpu_hours_per_token(width, depth, most),
            "width": width,
            "depth": depth,
            "params": real_params(width, depth, search.architecture),
            "law_params": real_params(width, depth, search.architecture, search.law.param_count),
            "tokens": tokens,
            "loss": search.predict(width, depth, tokens),
        }
    )


def _closed_form(law: PowerLaw, flops: Array) -> pd.DataFrame:
    optimum = law.allocation()
    law_params, tokens = optimum.params(flops), optimum.tokens(flops)
    unknown = dict.fromkeys(
        ("gpu_hours", "nodes", "gpu_hours_fewest_nodes", "gpu_hours_most_nodes", "width", "depth"), np.nan
    )
    return pd.DataFrame(
        {
            "variant": "closed_form",
            "resource": "flops",
            "budget": flops,
            "flops": flops,
            **unknown,
            "params": law_params if law.param_count == "params" else np.nan,
            "law_params": law_params,
            "tokens": tokens,
            "loss": law.predict({law.param_count: law_params, "tokens": tokens}),
        }
    )
