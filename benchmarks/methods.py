"""Fitters that benchmarks/laws.py runs on the same rows: this package, the published algorithm, SciPy, PyPI's `chinchilla`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import huber

from gemstones.errors import UserError
from gemstones.laws import PowerLaw, fit_huber
from gemstones.laws.early_stopping import grid_starts, reference_objective

Array = NDArray[np.float64]

TIGHT = {"ftol": 1e-15, "gtol": 1e-10, "maxls": 50, "maxiter": 100_000, "maxfun": 100_000}


@dataclass(frozen=True)
class Case:
    """Rows, and the law to fit to them."""

    name: str
    rows: pd.DataFrame
    covariates: tuple[str, ...]
    delta: float
    published: PowerLaw | None = None

    @property
    def log_x(self) -> Array:
        return np.asarray(np.log(self.rows[list(self.covariates)].to_numpy(float)))

    @property
    def log_loss(self) -> Array:
        return np.asarray(np.log(self.rows["loss"].to_numpy(float)))


@dataclass(frozen=True)
class Result:
    """What a method did: starts that it ran, of how many in its grid, their CPU-seconds, the lowest objective.

    `objectives` has the objective at the end of each start; None where a method does not tell.
    """

    method: str
    starts: int
    grid: int
    cpu: float
    best: float
    objectives: Array | None = None


def objective(law: PowerLaw, case: Case) -> float:
    """Plain sum of Huber losses of log residuals."""
    return float(huber(case.delta, case.log_loss - np.log(law.predict(case.rows))).sum())


# This package.


def warm(case: Case, repeat: int) -> Result:
    """The fit in this process, once before it is timed; the smallest CPU time counts."""
    times = []
    for _ in range(repeat + 1):
        before = time.process_time()
        fit = fit_huber(case.rows, case.covariates, huber_delta=case.delta)
        times.append(time.process_time() - before)
    there = round(fit.share_of_starts_at_optimum * fit.starts)
    objectives = np.r_[np.full(there, fit.objective), np.full(fit.starts - there, np.inf)]
    return Result("gemstones", fit.starts, fit.starts, min(times[1:]), fit.objective, objectives)


READ = (
    "import sys\nimport pandas as pd\nfrom gemstones.laws import PowerLaw, fit_huber\nrows = pd.read_csv(sys.argv[1])\n"
)
FIT = "fit_huber(rows, sys.argv[2].split(','), huber_delta=float(sys.argv[3]))\n"
PEAK = "print(next(line for line in open('/proc/self/status') if 'VmHWM' in line).split()[1])\n"


def cold(case: Case, repeat: int, code: str = READ + FIT) -> tuple[float, float]:
    """CPU-seconds of a whole process that imports, reads a CSV file and fits (smallest), and its peak memory in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "rows.csv")
        case.rows[[*case.covariates, "loss"]].to_csv(file, index=False)
        command = [sys.executable, "-c", code + PEAK, str(file), ",".join(case.covariates), str(case.delta)]
        times = []
        for _ in range(repeat):
            before = os.times()
            peak = int(subprocess.check_output(command)) / 1024
            after = os.times()
            times.append(sum(after[2:4]) - sum(before[2:4]))
    return min(times), peak


# The published algorithm, from its description: theta = (alpha_1 … alpha_k, log A_1 … log A_k, log E).


def log_terms(theta: Array, log_x: Array) -> Array:
    """Logs of the law's terms, (k+1, n)."""
    k = log_x.shape[1]
    return np.vstack([theta[k : 2 * k, None] - theta[:k, None] * log_x.T, np.full(len(log_x), theta[2 * k])])


def objective_and_gradient(theta: Array, log_x: Array, log_loss: Array, delta: float) -> tuple[float, Array]:
    """The same objective, and its gradient (2k+1,)."""
    terms, k = log_terms(theta, log_x), log_x.shape[1]
    top = terms.max(0)
    share = np.exp(terms - top)
    total = share.sum(0)
    share /= total
    residual = log_loss - np.log(total) - top
    pull = -np.clip(residual, -delta, delta) * share
    return float(huber(delta, residual).sum()), np.r_[-(pull[:k] * log_x.T).sum(1), pull.sum(1)]


def centred(theta: Array, centre: Array) -> Array:
    """The same laws, (count, 2k+1), of log covariates less their centre (k,)."""
    k = len(centre)
    return np.hstack([theta[:, :k], theta[:, k : 2 * k] - theta[:, :k] * centre, theta[:, 2 * k :]])


def lbfgs(
    method: str, case: Case, count: int, gradient: bool, scaled: bool = False, options: dict[str, float] | None = None
) -> Result:
    """SciPy's L-BFGS-B from a sample of the grid; `scaled`: log covariates centred, objective divided by delta."""
    log_x, log_loss, delta = case.log_x, case.log_loss, case.delta
    starts, grid = grid_starts(log_x.shape[1], count)
    scale = delta if scaled else 1.0
    if scaled:
        centre = log_x.mean(0)
        log_x, starts = log_x - centre, centred(starts, centre)

    def value(theta: Array) -> float:
        return float(reference_objective(theta, log_x, log_loss, delta)) / scale

    def value_and_gradient(theta: Array) -> tuple[float, Array]:
        height, slope = objective_and_gradient(theta, log_x, log_loss, delta)
        return height / scale, slope / scale

    function = value_and_gradient if gradient else value
    before = time.process_time()
    with np.errstate(all="ignore"):
        ends = [minimize(function, start, jac=gradient, method="L-BFGS-B", options=options) for start in starts]
    cpu = time.process_time() - before
    objectives = np.array([end.fun * scale for end in ends])
    return Result(method, len(starts), grid, cpu, float(np.nanmin(objectives)), objectives)


# PyPI's chinchilla, as documented: a CSV file of runs, a grid of starts (the ranges of its README), a loss function.

CHINCHILLA = "chinchilla==0.2.0"
CHINCHILLA_README = 5  # values on each axis of its README's grid
CHINCHILLA_FIT = """
import json, sys, time
import numpy as np
from chinchilla import Chinchilla
from chinchilla._metrics import log_huber

folder, delta, scale, values = sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
ranges = {"E": (1, 2), "a": (1, 10), "b": (1, 10), "alpha": (0.1, 0.7), "beta": (0.1, 0.7)}
law = Chinchilla(
    folder,
    param_grid={name: np.linspace(*ends, values) for name, ends in ranges.items()},
    loss_fn=lambda observed, predicted: log_huber(observed, predicted, delta) / scale,
    log_level=50,
)
law.visualizer.optim = lambda *_, **__: None  # its figure is no part of the fit
before = time.process_time()
law.fit(parallel=False)
print(json.dumps({"cpu": time.process_time() - before, **law.params}))
"""


def chinchilla(method: str, python: str, case: Case, values: int, scaled: bool) -> Result:
    """The package in a Python that has it, after imports; `scaled`: its loss divided by delta."""
    rows = case.rows.assign(C=6 * case.rows["params"] * case.rows["tokens"])
    rows = rows.rename(columns={"params": "N", "tokens": "D"})
    with tempfile.TemporaryDirectory() as folder:
        rows[["C", "N", "D", "loss"]].to_csv(Path(folder, "df.csv"), index=False)
        scale = case.delta if scaled else 1.0
        command = [python, "-c", CHINCHILLA_FIT, folder, str(case.delta), str(scale), str(values)]
        end = json.loads(_output(command).splitlines()[-1])
    law = PowerLaw(case.covariates, (end["alpha"], end["beta"]), (np.log(end["A"]), np.log(end["B"])), end["E"])
    return Result(method, values**5, CHINCHILLA_README**5, end["cpu"], objective(law, case))


def chinchilla_python(folder: str) -> str:
    """Python of a new environment that has the package."""
    _output([sys.executable, "-m", "venv", folder])
    python = str(Path(folder, "bin/python"))
    _output([python, "-m", "pip", "install", "--quiet", CHINCHILLA])
    return python


def versions(python: str, packages: Sequence[str]) -> str:
    """Versions of Python and of packages in an environment, in words."""
    code = "import sys, platform, importlib.metadata as m; print(', '.join([f'Python {platform.python_version()}', "
    code += "*(f'{name} {m.version(name)}' for name in sys.argv[1:])]))"
    return _output([python, "-c", code, *packages]).strip()


def _output(command: Sequence[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except OSError as error:
        raise UserError(f"{command[0]}: {error.strerror}; wanted: a Python") from None
    except subprocess.CalledProcessError as error:
        raise UserError(f"{command[0]}: {(error.stderr.splitlines() or ['failed'])[-1]}") from None
