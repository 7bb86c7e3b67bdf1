"""CPU time and objective of fitting laws: this package, the published algorithm, SciPy, and PyPI's `chinchilla`.

    python benchmarks/laws.py
    python benchmarks/laws.py --starts 1000 --write docs/benchmarks.md

One run compares them on the same rows; docs/benchmarks.md says what each of them is. Grids of starts are sampled, and what
a whole grid would cost is extrapolated (marked ≈). `chinchilla` is installed into a temporary environment unless a Python
that has it is given. Takes some ten minutes of one core. Memory is read from /proc, so Linux only.
"""

import os

# One thread, so that CPU-seconds compare; before numpy is imported, here and in child processes.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import argparse
import multiprocessing
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from methods import (
    CHINCHILLA,
    READ,
    TIGHT,
    Case,
    Result,
    chinchilla,
    chinchilla_python,
    cold,
    lbfgs,
    objective,
    versions,
    warm,
)

from gemstones import __version__
from gemstones.errors import UserError
from gemstones.files import write_text
from gemstones.laws import fit_huber

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- measured: written by benchmarks/laws.py -->", "<!-- end of measured -->"
# A start this close to the lowest objective, relatively, has reached the minimum.
AT_MINIMUM = 1e-6
# Objectives this close, relatively, are equal: the methods sum in different orders.
ROUNDING = 1e-12

Laws = Sequence[tuple[pd.DataFrame, Sequence[str], str, float]]


def released() -> tuple[list[Case], Laws]:
    """The cases that all methods are run on, and the 42 laws of which the Gemstones authors published parameters."""
    import yaml

    from gemstones.laws.published import PublishedLaw, published_laws
    from gemstones.losses.released import released_losses
    from gemstones.losses.selections import select
    from gemstones.study import load

    study = load(yaml.safe_load((ROOT / "config/released.yaml").read_text()), "config/released.yaml")
    downloads = ROOT / "results/released/losses/downloads"
    losses = released_losses(study, downloads)
    theirs = published_laws(study, downloads)
    specs = {name: spec for name, spec in study.fits.items() if spec.approach == 3 and name in theirs}
    rows = {name: select(losses, query, name) for name, query in study.selections.items()}
    # Besiroglu et al. drop the five highest losses of the 245 points.
    hoffmann = select(losses, "suite == 'hoffmann'", "hoffmann").nsmallest(240, "loss")
    cases = [Case("Hoffmann's points, two covariates", hoffmann, ("params", "tokens"), 1e-3)]
    for name, number in (("all", "two"), ("all_width_depth_tokens", "three"), ("all_width_depth", "four")):
        spec, law = specs[f"approach_3_{name}"], theirs[f"approach_3_{name}"]
        assert isinstance(law, PublishedLaw)
        cases.append(Case(f"`all`, {number} covariates", rows["all"], spec.covariates, spec.huber_delta, law.law))
    laws = [(rows[spec.selection], spec.covariates, spec.param_count, spec.huber_delta) for spec in specs.values()]
    return cases, laws


def synthetic(n: int, covariates: Sequence[str]) -> pd.DataFrame:
    """Rows from a known law with residuals of 0.5 %, seeded."""
    random = np.random.default_rng(0)
    # Smallest and largest value, coefficient, exponent.
    terms = {
        "width": (256, 4096, 8, 0.4),
        "depth": (3, 80, 1, 0.5),
        "params": (5e7, 2e9, 130, 0.3),
        "tokens": (2e9, 3.5e11, 1.5e4, 0.45),
    }
    x, loss = {}, np.full(n, 1.5)
    for name in covariates:
        smallest, largest, coefficient, exponent = terms[name]
        x[name] = np.exp(random.uniform(np.log(smallest), np.log(largest), n))
        loss += coefficient / x[name] ** exponent
    return pd.DataFrame(x | {"loss": loss * np.exp(random.normal(0, 0.005, n))})


# Measured in a fresh process each, imports and the making of rows apart.


def fit_laws(laws: Laws) -> tuple[float, float, float]:
    """CPU-seconds of fits, and memory of the process before them and at its peak, in MiB."""
    import scipy.special  # noqa: F401 - imports are not timed

    resident, before = memory("VmRSS"), time.process_time()
    for rows, covariates, count, delta in laws:
        fit_huber(rows, covariates, count, delta)
    return time.process_time() - before, resident, memory("VmHWM")


def fit_synthetic(n: int, covariates: tuple[str, ...]) -> tuple[float, float, float]:
    return fit_laws([(synthetic(n, covariates), covariates, "params", 1e-4)])


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def memory(kind: str) -> float:
    """MiB of this process: VmRSS now, VmHWM at its peak. (A child's ru_maxrss starts at its parent's, so is no use.)"""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(kind)).split()[1]) / 1024


# What is printed.


def compare(case: Case, starts: int, repeat: int, peer: str | None, values: int) -> list[Result]:
    """All methods on one case, ours first."""
    results = [
        warm(case, repeat),
        lbfgs("published algorithm", case, starts, gradient=False),
        lbfgs("SciPy, analytic gradient", case, starts, gradient=True),
        lbfgs("… centred, objective / δ", case, starts, gradient=True, scaled=True),
        lbfgs("… and tight tolerances", case, starts, gradient=True, scaled=True, options=TIGHT),
    ]
    if peer and case.covariates == ("params", "tokens"):
        results += [
            chinchilla(CHINCHILLA.replace("==", " "), peer, case, values, scaled=False),
            chinchilla("… its loss / δ", peer, case, values, scaled=True),
        ]
    return results


def comparison(case: Case, results: Sequence[Result]) -> str:
    lowest, ours = min(result.best for result in results), results[0]
    rows = []
    for result in results:
        whole = result.cpu / result.starts * result.grid
        sampled = result.starts < result.grid
        there = None if result.objectives is None else int((result.objectives <= lowest * (1 + AT_MINIMUM)).sum())
        rows.append(
            [
                result.method,
                f"{result.starts:,} of {result.grid:,}" if sampled else f"{result.starts:,}",
                seconds(result.cpu),
                estimate(whole) if sampled else seconds(whole),
                estimate(whole / ours.cpu) if sampled else f"{whole / ours.cpu:,.0f}",
                f"{result.best:.7e}",
                excess(result.best, lowest),
                "–" if there is None else f"{there:,}",
                seconds(result.cpu / (1 if result is ours else there)) if there else "–",
            ]
        )
    if case.published:
        value = objective(case.published, case)
        rows.append(["published by the authors", *["–"] * 4, f"{value:.7e}", excess(value, lowest), "–", "–"])
    header = (
        "method | starts run | CPU-s | CPU-s, whole grid | × ours | best objective | above the lowest | starts at minimum "
        "| CPU-s per such start"
    )
    return table(header, rows)


def processes(cases: Sequence[Case], laws: Laws, repeat: int) -> str:
    cpu, resident, peak = min(in_fresh_process(fit_laws, laws) for _ in range(repeat))
    lines = [[f"all {len(laws)} published laws, after imports", seconds(cpu), f"{resident:.0f}", f"{peak:.0f}"]]
    for case in cases:
        cpu, peak = cold(case, repeat)
        lines.append([f"{case.name}: whole process", seconds(cpu), "–", f"{peak:.0f}"])
    cpu, peak = cold(cases[-1], repeat, READ)
    lines.append(["the same process without the fit", seconds(cpu), "–", f"{peak:.0f}"])
    return table("what | CPU-s | MiB before | MiB at its peak", lines)


def scaling(sizes: Sequence[int]) -> str:
    lines = []
    for covariates in (("params", "tokens"), ("width", "depth", "params", "tokens")):
        for n in sizes:
            cpu, resident, peak = in_fresh_process(fit_synthetic, n, covariates)
            lines.append(
                [
                    f"{n:,}",
                    str(len(covariates)),
                    seconds(cpu),
                    f"{cpu / n * 1e6:,.1f}",
                    f"{resident:.0f}",
                    f"{peak:.0f}",
                ]
            )
    return table("rows | covariates | CPU-s | µs per row | MiB before | MiB at its peak", lines)


def excess(value: float, lowest: float) -> str:
    share = value / lowest - 1
    return "0" if share < ROUNDING else f"{share:.1%}" if share > 1e-3 else f"{share:.1e}"


def seconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:#.2g}"


def estimate(value: float) -> str:
    return f"≈ {float(f'{value:.2g}'):,.0f}"


def table(header: str, rows: Sequence[Sequence[str]]) -> str:
    """Markdown that reads well on a terminal too."""
    cells = [header.split(" | "), *rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    return "\n".join(
        "| " + " | ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) + " |" for row in cells
    )


def machine() -> str:
    model = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    return f"{os.cpu_count()} cores, {model.split(':')[1].strip()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=200, help="starts sampled of each grid (default: 200)")
    parser.add_argument("--repeat", type=int, default=3, help="timings of our fits; the smallest counts (default: 3)")
    parser.add_argument(
        "--rows", type=int, nargs="*", default=[10**3, 10**4, 10**5, 10**6], help="sizes to time our fits at"
    )
    parser.add_argument("--chinchilla-python", help=f"a Python that has {CHINCHILLA}")
    parser.add_argument("--chinchilla-values", type=int, default=3, help="values on each axis of its grid (default: 3)")
    parser.add_argument("--write", type=Path, help="Markdown page whose measured part is replaced")
    arguments = parser.parse_args()
    try:
        page = BEGIN + END
        if arguments.write:
            page = arguments.write.read_text() if arguments.write.exists() else ""
        before, begin, rest = page.partition(BEGIN)
        _, end, after = rest.partition(END)
        if not (begin and end):
            raise UserError(f"{arguments.write}: wanted: a page with the line {BEGIN} and, further down, {END}")
        parts = []
        with tempfile.TemporaryDirectory() as folder:
            for part in sections(arguments, folder):
                print(part, end="\n\n", flush=True)
                parts.append(part)
    except UserError as error:
        sys.exit(f"error: {error}")
    if arguments.write:
        write_text("\n\n".join([before + BEGIN, *parts, END + after]), arguments.write)


def sections(arguments: argparse.Namespace, folder: str) -> Iterator[str]:
    """The measured part of the page, piece by piece."""
    load, (cases, laws), no_peer = os.getloadavg()[0], released(), ""
    peer = arguments.chinchilla_python
    try:
        peer = peer or chinchilla_python(folder)
    except UserError as error:
        no_peer = f"{CHINCHILLA} could not be installed: {error}"
    beside = versions(peer, ["chinchilla", "numpy", "scipy", "pandas"]) if peer else no_peer

    for case in cases:
        results = compare(case, arguments.starts, arguments.repeat, peer, arguments.chinchilla_values)
        yield f"### {case.name}, {len(case.rows):,} rows, δ = {case.delta:g}"
        yield comparison(case, results)
    yield "### Our fits in fresh processes"
    yield processes(cases, laws, arguments.repeat)
    yield "### Time and memory of our fits against rows"
    yield scaling(arguments.rows)
    yield "### Made by"
    yield "\n".join(
        [
            f"- `{shlex.join(['python', 'benchmarks/laws.py', *sys.argv[1:]])}`",
            f"- {machine()}; one thread; load average {load:.1f} at the start, {os.getloadavg()[0]:.1f} at the end",
            f"- gemstones {__version__}; {versions(sys.executable, ['numpy', 'scipy', 'pandas'])}",
            f"- {beside}",
        ]
    )


if __name__ == "__main__":
    main()
