"""The command `gemstones prescribe`: what a budget buys, on a terminal or as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemstones.cluster.narrow import narrowed
from gemstones.errors import UserError
from gemstones.laws.choice import said
from gemstones.laws.noise import RunNoise
from gemstones.prescriptions.against_runs import LOWEST
from gemstones.prescriptions.answer import answer, budget_for
from gemstones.prescriptions.page import LESS_OFTEN
from gemstones.prescriptions.search import UNITS, Search
from gemstones.prescriptions.source import Source, find
from gemstones.prescriptions.speeds import too_few
from gemstones.prescriptions.training import write_config

if TYPE_CHECKING:
    from rich.console import Console

# Of a file or a pipe; a terminal says its own.
WIDTH = 100
# Relative error of the model of speed above which GPU-hours come with a warning.
LARGE_ERROR = 0.25
VERDICT_STYLES = {
    "usable": "green",
    "rough": "yellow",
    "unproven": "yellow",
    "do not plan by this": "bold red",
    "no runs": "yellow",
}
ROWS = {
    "width": "width", "depth": "depth (layers)", "aspect_ratio": "width / depth", "params": "parameters",
    "tokens": "training tokens", "tokens_per_param": "tokens per parameter", "loss": "loss, nats per token",
}  # fmt: skip


def show_prescription(
    asked: Mapping[str, float | None],
    *,
    law: str | None,
    config: Path | None,
    study: str | None,
    results: Path,
    nodes: int | None,
    write: Path | None,
    as_json: bool,
) -> None:
    """Print what to train for a budget.

    Parameters
    ----------
    asked : exactly one of `flops`, `gpu_hours`, `node_hours`, `tokens` and `params` is not None.
    law, config, study, results, nodes : see :func:`gemstones.prescriptions.source.find`.
    write : config to write that trains the feasible shape.

    Raises
    ------
    UserError
        Before anything is printed, if an option or a file is at fault.
    """
    given = {name: value for name, value in asked.items() if value is not None}
    options = ", ".join(f"--{name.replace('_', '-')}" for name in asked)
    if len(given) != 1:
        raise UserError(f"wanted: one of {options}" + (f"; given: {len(given)}" if given else ""))
    ((wanted, value),) = given.items()
    if not 0 < value < float("inf"):
        raise UserError(f"--{wanted.replace('_', '-')} is {value:g}; wanted: a number greater than 0")
    source = find(law, config, study, results, nodes)
    resource: Any = "gpu_hours" if wanted in ("gpu_hours", "node_hours") else "flops"
    if resource == "gpu_hours" and source.speeds is None:
        raise UserError(f"--{wanted.replace('_', '-')}: {too_few(None)}; ask for --flops")
    budget = value
    if wanted == "node_hours" and source.speeds:
        budget *= source.speeds.model.gpus_per_node
    if wanted in ("tokens", "params"):
        budget = budget_for(Search.of(source.law, source.suite), wanted, value)
    found = answer(
        source.law,
        source.suite,
        resource,
        budget,
        source.tokens_per_step,
        source.uncertainty,
        source.speeds,
        source.rows,
    )
    found = {"asked": given, "law": _law(source), **found, "warnings": _warnings(source, found)}
    notes = write_config(source, found, write) if write else []
    if as_json:
        print(json.dumps(found, indent=2, allow_nan=False))
        for note in notes:
            print(note, file=sys.stderr)
        return
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = WIDTH
    _print(console, source, found)
    for note in notes:
        console.print(note)


def _law(source: Source) -> dict[str, Any]:
    law = source.law
    return {
        "name": source.name,
        "study": source.study.study if source.study and source.fitted else None,
        "selection": law.selection,
        "covariates": list(law.law.covariates),
        "param_count": law.law.param_count,
        "max_flops": law.max_flops,
        "max_gpu_hours": source.speeds.max_gpu_hours if source.speeds else None,
        "interval_level": source.uncertainty.level if source.uncertainty else None,
        "held_out": said(source.choice, source.name) if source.choice and source.fitted else None,
    }


def _warnings(source: Source, found: Mapping[str, Any]) -> list[str]:
    """What a reader must know before the answer is used, a sentence each."""
    law, speeds, warnings = source.law, source.speeds, []
    spent, most = found["relaxed"]["flops"], law.max_flops
    if most is None:
        warnings.append("the law's file does not say up to which FLOPs it was fitted: this may be an extrapolation")
    elif spent > most:
        warnings.append(
            f"extrapolation: {spent:.3g} FLOPs are {spent / most:.3g} times the most that the law was fitted to, {most:.3g}"
        )
    elif law.min_flops is not None and spent < law.min_flops:
        warnings.append(
            f"extrapolation: {spent:.3g} FLOPs are less than the least that the law was fitted to, {law.min_flops:.3g}"
        )
    if outside := _outside(law.evidence.get("fitted_ranges", {}), found["relaxed"]):
        warnings.append(f"extrapolation: no fitted model has such {outside}")
    longest = speeds.max_gpu_hours if speeds else None
    if found["resource"] == "gpu_hours" and longest and found["budget"] > longest:
        warnings.append(
            f"extrapolation: {found['budget']:.4g} GPU-hours are more than those of any fitted row, {longest:.4g}"
        )
    if speeds and speeds.model.extrapolates(speeds.nodes):
        low, high = speeds.model.nodes
        warnings.append(f"speeds on {speeds.nodes} nodes are extrapolated: recorded were {low} to {high}")
    if speeds and speeds.model.error > LARGE_ERROR:
        warnings.append(
            f"GPU-hours are rough: the recorded speeds differ from the model's by {100 * speeds.model.error:.0f} % typically"
        )
    if source.fitted and source.choice and source.choice["fit"] != source.name:
        warnings.append(
            f"{said(source.choice, source.name)}; by held-out error, {source.choice['fit']} would prescribe"
        )
    if not law.law.knows_shapes:
        warnings.append(
            f"a law of {', '.join(law.law.covariates)} knows no shapes: among those with equal parameters, it takes the cheapest"
        )
    if not law.converged:
        warnings.append("the fit of the law has not converged")
    warnings += law.warnings
    if source.uncertainty is None:
        warnings.append("no intervals: the law has no resamples beside it")
    else:
        warnings += source.uncertainty.warnings()
    if source.study is None:
        suite = source.suite
        warnings.append(
            f"no study is given: head size {suite.head_size}, vocabulary {suite.vocabulary_size:,} and context "
            f"{suite.context_length:,} are assumed"
        )
    return warnings


def _outside(ranges: Mapping[str, Any], relaxed: Mapping[str, Any]) -> str:
    """Quantities outside those of the fitted rows, with their ranges."""
    parts = [
        f"{name} ({_value(name, relaxed[name])}; fitted {_value(name, low)} to {_value(name, high)})"
        for name, (low, high) in ranges.items()
        if not low <= relaxed[name] <= high
    ]
    return ", ".join(parts)


def _print(console: Console, source: Source, found: Mapping[str, Any]) -> None:
    given = " ".join(f"{value:.4g} {UNITS.get(name, name.replace('_', '-'))}" for name, value in found["asked"].items())
    budget = f"{found['budget']:.4g} {UNITS[found['resource']]}"
    whose = f"{source.name} of {source.study.study}" if source.study and source.fitted else source.name
    mark = "  [beyond the data: extrapolated]" if found["extrapolated"] else ""
    console.print(f"{given}{'' if given == budget else f' = {budget}'}, by {whose}{mark}", style="bold")
    against = found["against_runs"]
    none = "no runs are at hand to hold this against: name a study and one of its fits"
    console.print(
        against["said"] if against else none, style=VERDICT_STYLES.get(against["verdict"]) if against else "dim"
    )
    _print_optimum(console, source, found)
    if against and against["runs"]:
        _print_runs(console, found)
    if found["speed"]:
        _print_hours(console, found)
    else:
        console.print(too_few(None), style="dim")
    _print_nearest(console, found)
    for warning in found["warnings"]:
        console.print(f"warning: {warning}", style="yellow")


def _print_optimum(console: Console, source: Source, found: Mapping[str, Any]) -> None:
    relaxed, feasible = found["relaxed"], found["feasible"]
    closed = found.get("closed_form")
    table = _table("what to train")
    table.add_column("")
    heads = ["feasible", "relaxed", *(["C = 6NT"] if closed else [])]
    level = f"{100 * source.uncertainty.level:g} % interval" if source.uncertainty else None
    for head in heads + ([level] if level else []):
        table.add_column(head, justify="right")
    for name, label in ROWS.items():
        shapes = [feasible, relaxed, *([closed] if closed else [])]
        ends = relaxed["intervals"][name]
        cells = [_value(name, shape[name]) for shape in shapes]
        interval = [" … ".join(_value(name, end) for end in ends) if ends else "–"] if level else []
        if level and name in LESS_OFTEN:
            label += f" (middle {100 * source.uncertainty.level:g} %)"  # type: ignore[union-attr]
        table.add_row(label, *cells, *interval)
    if level and (of_run := relaxed["intervals"]["run_loss"]):
        prediction = " … ".join(_value("loss", end) for end in of_run)
        table.add_row("loss of a run: prediction", *[""] * len(heads), prediction)
    steps = [f"{shape['steps']:,}" for shape in (feasible, relaxed)]
    table.add_row(f"steps of {source.tokens_per_step:,} tokens", *steps)
    if found["resource"] == "gpu_hours":
        table.add_row("FLOPs", *(f"{shape['flops']:.3g}" for shape in (feasible, relaxed)))
    console.print(narrowed(table, console, ["C = 6NT", "relaxed"]))
    if level:
        told = (
            "Intervals are those of the relaxed optimum by the laws of resamples; in simulated suites, what is called the middle of "
            "these holds the truth less often than its percentage (docs/intervals.md)"
        )
        noise = source.law.evidence.get("noise")
        if noise:
            wider = RunNoise.from_json(noise).half_width(source.uncertainty.level)  # type: ignore[union-attr]
            whose = "seeds of a shape" if noise["source"] == "replicates" else "runs around the law"
            told += (
                f". The prediction interval, of a run that is not trained yet, holds the noise of runs as well: ±{100 * wider:.2g} % "
                f"by {noise['runs']} {whose}"
            )
            if source.law.evidence.get("patterns", {}).get("warnings"):
                told += ". The pattern that a warning names is not in it"
        console.print(f"{told}.", style="dim")


def _print_runs(console: Console, found: Mapping[str, Any]) -> None:
    """The runs of the lowest losses at the budget, and the others that are like the prescription."""
    runs = found["against_runs"]["runs"]
    lowest, others = runs[:LOWEST], [run for run in runs[LOWEST:] if run["alike"]]
    table = _table(f"runs at this budget: the {len(lowest)} lowest" + (", and others like this" if others else ""))
    table.add_column("run")
    ends = runs[0]["run_loss_low"] is not None
    for head in ("parameters", "tokens", "loss", "law", "law off by", *(["its interval for a run"] if ends else [])):
        table.add_column(head, justify="right")
    table.add_column("like this")
    for run in [*lowest, *others]:
        cells = [_value(name, run[name]) for name in ("params", "tokens", "loss")]
        cells += [_value("loss", run["predicted"]), f"{100 * run['deviation']:+.2f} %"]
        if ends:
            cells.append(" … ".join(_value("loss", run[f"run_loss_{end}"]) for end in ("low", "high")))
        table.add_row(run["run"], *cells, "yes" if run["alike"] else "")
    console.print(table)


def _print_hours(console: Console, found: Mapping[str, Any]) -> None:
    speed, feasible = found["speed"], found["feasible"]
    per_node, (fewest, most) = speed["gpus_per_node"], speed["recorded_nodes"]
    table = _table("what the feasible shape takes")
    for head in ("on nodes", "GPU-hours", "node-hours", "days"):
        table.add_column(head, justify="right")
    estimates = {
        fewest: feasible["gpu_hours_fewest_nodes"],
        speed["nodes"]: feasible["gpu_hours"],
        most: feasible["gpu_hours_most_nodes"],
    }
    for nodes, hours in sorted(estimates.items()):
        assumed = nodes == speed["nodes"] and len(estimates) > 1
        table.add_row(
            f"{'assumed: ' if assumed else ''}{nodes}", _short(hours), _short(hours / per_node),
            _short(hours / per_node / nodes / 24),
        )  # fmt: skip
    console.print(table)
    console.print(
        f"By a model fitted to the speeds of {speed['shapes']} shapes, typically off by {100 * speed['relative_error']:.1f} %.",
        style="dim",
    )


def _print_nearest(console: Console, found: Mapping[str, Any]) -> None:
    unit = UNITS[found["resource"]]
    table = _table("feasible shapes beside it, on the same budget")
    table.add_column("shape")
    for head in ("parameters", "tokens", "loss", "above relaxed", f"more {unit} to reach it"):
        table.add_column(head, justify="right")
    chosen = (found["feasible"]["width"], found["feasible"]["depth"])
    for shape in found["nearest"]:
        more = shape["extra_budget"]
        table.add_row(
            f"{shape['width']:.0f}x{shape['depth']:.0f}", _value("params", shape["params"]), _value("tokens", shape["tokens"]),
            f"{shape['loss']:.4f}", f"{shape['loss_above_relaxed']:.2g}", "never" if more is None else f"{100 * more:.2g} %" if more > 1e-9 else "0 %",
            style="bold" if (shape["width"], shape["depth"]) == chosen else None,
        )  # fmt: skip
    console.print(narrowed(table, console, ["parameters", "tokens"]))


def _table(title: str) -> Any:
    from rich import box
    from rich.table import Table

    return Table(
        box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1), title=title, title_justify="left", title_style="bold"
    )


def _value(name: str, value: float | None) -> str:
    """A number as a reader wants it: widths and layers whole or with a digit, counts with their power of thousand."""
    if value is None:
        return "–"
    if name in ("params", "tokens"):
        # Of the number as it is shown: 999.9 million are a billion.
        power = next((power for power in range(5) if value / 1000**power < 999.5), 5)
        return f"{_short(value / 1000**power)}{('', 'k', 'M', 'B', 'T', 'P')[power]}"
    if name == "loss":
        return f"{value:.3f}"
    if name in ("width", "depth"):
        return f"{value:,.0f}" if value >= 999.95 else f"{value:.1f}".removesuffix(".0")
    return _short(value)


def _short(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 999.5 else f"{value:.3g}"
