"""The commands `gemstones status` and `gemstones ledger` on a terminal."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gemstones.cluster.narrow import narrowed
from gemstones.cluster.status import STATES, Slurm, status
from gemstones.study import Study

if TYPE_CHECKING:
    from gemstones.cluster.ledger import Ledger

STYLES = {
    "running": "green", "failed": "red", "stopped": "red", "queued": "yellow", "waiting": "dim", "to be started": "dim",
    "done": "blue",
}  # fmt: skip
# In the table, where room is scarce.
SHORT = {"to be started": "to start"}
# Without --all, runs in these states are counted only, and waiting ones of which nothing is there yet.
FOLDED = ("to be started", "done")

# Longer ones are in the JSON.
LONGEST_REMARK = 72
PIPED_WIDTH = 120


def show_status(study: Study, results: Path, *, everything: bool, every: float | None, as_json: bool) -> None:
    """Print the state once, or again and again.

    Parameters
    ----------
    everything : show finished and future runs too.
    every : seconds between two looks, None for a single one.
    """
    facility = Slurm(results / study.study)

    def look() -> dict[str, Any]:
        return status(study, results, facility)

    if as_json:
        while True:
            print(json.dumps(look(), indent=None if every else 2, allow_nan=False), flush=True)
            if every is None:
                return
            time.sleep(every)
    console = _console()
    if every is None:
        console.print(status_view(look(), console, everything))
        return
    try:
        with Live(status_view(look(), console, everything), console=console, auto_refresh=False) as live:
            while True:
                time.sleep(every)
                live.update(status_view(look(), console, everything), refresh=True)
    except KeyboardInterrupt:
        pass


def _console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)


def status_view(state: Mapping[str, Any], console: Console, everything: bool = False) -> Group:
    """The table of runs, by phase, as wide as the console, and the summary below it."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("run", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for name in ("step", "of", "loss", "val.", "s/step", "ETA", "jobs\nleft", "node-h\nspent", "\nleft"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("queue, events", overflow="fold", min_width=16)  # the only one that gives way where it is narrow
    phases: dict[str, list[Mapping[str, Any]]] = {}
    for row in state["runs"]:
        phases.setdefault(row["phase"], []).append(row)
    for rows in phases.values():
        _add_phase(table, rows, everything)
    return Group(narrowed(table, console, ("val.", "\nleft", "jobs\nleft", "s/step", "loss")), *_summary(state))


def _add_phase(table: Table, rows: Sequence[Mapping[str, Any]], everything: bool) -> None:
    shown = [row for row in rows if everything or not _folded(row)]
    for row in sorted(shown, key=lambda row: STATES.index(row["state"])):
        table.add_row(*_cells(row), style=STYLES[row["state"]] if row["state"] == "waiting" else "")
    for state in STATES:
        folded = [row for row in rows if not everything and row["state"] == state and _folded(row)]
        if folded:
            spent, left = (sum(row[f"node_hours_{name}"] for row in folded) for name in ("spent", "left"))
            name = f"{len(folded)} {rows[0]['phase']} run{'s' if len(folded) > 1 else ''}"
            table.add_row(name, _state(state), *[""] * 7, hours(spent), hours(left), "", style="dim")
    table.add_section()


def _folded(row: Mapping[str, Any]) -> bool:
    begun = row["loss"] is not None
    return row["state"] in FOLDED or (row["state"] in ("waiting", "queued") and not begun and row["phase"] != "main")


def _cells(row: Mapping[str, Any]) -> list[str | Text]:
    over = row["state"] in ("done", "stopped")
    return [
        row["run"],
        _state(row["state"]),
        str(row["step"]),
        str(row["steps"]),
        _loss(row["loss"]),
        _loss(row["validation_loss"]),
        "" if row["seconds_per_step"] is None else f"{row['seconds_per_step']:.3g}",
        "" if over else duration(row["eta_seconds"]),
        "" if over else str(row["segments_left"]),
        hours(row["node_hours_spent"]),
        "" if over else hours(row["node_hours_left"]),
        Text(_remarks(row)),
    ]


def _state(state: str) -> Text:
    return Text(SHORT.get(state, state), style=STYLES[state])


def _loss(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _remarks(row: Mapping[str, Any]) -> str:
    """The job in the queue, the reason of the state, and events."""
    job, words = row["job"], []
    if job:
        left = job["seconds_left"]
        words.append(job["id"] if left is None else f"{job['id']}, {duration(left)} left")
    if row["reason"] and row["reason"] != "None":
        words.append(row["reason"])
    words += [f"{count} × {kind.replace('_', ' ')}" for kind, count in row["events"].items()]
    return shorten("; ".join(words), LONGEST_REMARK, placeholder=" …")


def _summary(state: Mapping[str, Any]) -> list[Text]:
    found = state["summary"]
    states = found["states"]
    runs = ", ".join(f"{states[name]} {name}" for name in STATES if states[name])
    total = (
        f"node-hours: {hours(found['node_hours_spent'])} spent, {hours(found['node_hours_left'])} left, "
        f"{hours(found['node_hours_planned'])} planned"
    )
    if found["node_hours_budget"] is not None:
        total += f", budget {hours(found['node_hours_budget'])}"
    lines = [f"{state['study']}: {found['runs']} runs: {runs}", total]
    if found["jobs_running"] is not None and found["jobs_known"]:
        lines.append(f"Slurm: {_count(found['jobs_running'], 'job')} running, {found['jobs_queued']} queued")
    elif found["slurm"] != "ok" and "not found" not in found["slurm"]:
        lines.append(f"Slurm: {found['slurm']}")
    if found["eta_seconds"]:
        lines.append(f"done in {duration(found['eta_seconds'])}, if as many runs go on at a time as now")
    elif found["eta_seconds"] is None:
        lines.append("no run is running")
    if found["events"]:
        lines.append(f"{_count(found['events'], 'event')}, in training/<run>/events.jsonl")
    return [Text(line) for line in lines]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def show_ledger(ledger: Ledger, *, as_json: bool) -> None:
    """Print phases and runs."""
    if as_json:
        print(json.dumps(ledger.to_json(), indent=2, allow_nan=False))
        return
    console = _console()
    begun = [row for row in ledger.runs if row["attempts"]]
    least = ("lost:\nreplayed", "lost:\nfailed", "over-\nhead", "failed", "at-\ntempts", "kept", "of")
    if begun:
        console.print(narrowed(_sums(begun, "run"), console, least))
    console.print(narrowed(_sums(ledger.phases, "phase"), console, least))
    if ledger.source == "metrics":
        print("hours are those that the metrics record: no Slurm job is known")
    elif ledger.source != "sacct":
        print(f"{ledger.source}: hours are those that are remembered, or that the metrics record")


def _sums(rows: Sequence[Mapping[str, Any]], name: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(name, no_wrap=True)
    heads = ("step", "of") if name == "run" else ("runs", "done")
    columns = (
        *heads, "at-\ntempts", "failed", "node-h\nplanned", "spent", "kept", "lost:\nreplayed", "lost:\nfailed", "over-\nhead",
        "left", "effi-\nciency",
    )  # fmt: skip
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    keys = ("planned", "spent", "kept", "replayed", "failed", "overhead", "left")
    first, second = ("step", "steps") if name == "run" else ("runs", "done")
    for row in rows:
        counts = ["" if row[key] is None else f"{row[key]:,}" for key in (first, second, "attempts", "failed_attempts")]
        share = "" if row["efficiency"] is None else f"{100 * row['efficiency']:.0f} %"
        style = "bold" if row[name] == "all" else ""
        table.add_row(row[name], *counts, *(hours(row[f"{key}_node_hours"]) for key in keys), share, style=style)
    return table


def hours(value: float) -> str:
    """To three digits; whole from a hundred on."""
    return f"{value:,.0f}" if value >= 100 or value == 0 else f"{value:.3g}"


def duration(seconds: float | None) -> str:
    """In one unit, such as 3.2 d."""
    if seconds is None:
        return "–"
    for unit, size, digits in (("d", 86_400, 1), ("h", 3600, 1), ("min", 60, 0)):
        if seconds >= size:
            return f"{seconds / size:.{digits}f} {unit}"
    return f"{seconds:.0f} s"
