"""Bootstrap resamples: CPU-seconds, and how often one misses its optimum, against screening every resample afresh.

A miss is a resample whose objective lies more than 0.1 % above the best that was found for it by either way.

Example:
  GEMSTONES_DATA=../shared/released OMP_NUM_THREADS=1 python benchmarks/resamples.py --resamples 100
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np
import yaml

from gemstones.laws import fit
from gemstones.laws.fit import HuberFit, phi_of, problem_of
from gemstones.laws.minimize import minimize
from gemstones.laws.objective import Problem
from gemstones.laws.resampling import _HuberRefit, _rows, resample
from gemstones.laws.starts import screened_starts
from gemstones.losses.released import released_losses
from gemstones.losses.selections import select
from gemstones.study import Approach3, Bootstrap, load

MISS = 1e-3
SCREENED_STARTS = 16


def screened(found: HuberFit, refit: _HuberRefit, weights: np.ndarray) -> np.ndarray:
    """Objective of each resample, from 16 starts of its own and the fit itself."""
    problem, centre = problem_of(refit.rows)
    best = np.empty(len(weights))
    for i, some in enumerate(weights):
        own = Problem(problem.u, problem.log_loss, some[refit.units])
        starts = np.r_[phi_of(found.law, centre), screened_starts(own, SCREENED_STARTS, np.random.default_rng(i))]
        best[i] = minimize(starts, own, found.huber_delta).objective.min()
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resamples", type=int, default=100, help="compared with screening, for each law")
    parser.add_argument("--timed", type=int, default=2000, help="resamples of the timed run")
    parser.add_argument("--fits", nargs="*", help="fits of config/released.yaml; by default all Approach 3 ones")
    options = parser.parse_args()
    root = Path(__file__).parent.parent
    study = load(yaml.safe_load((root / "config/released.yaml").read_text()))
    losses = released_losses(study, root / "results/released/losses/downloads")
    names = options.fits or [name for name, spec in study.fits.items() if isinstance(spec, Approach3)]
    print(f"{'fit':52} runs  {'misses':>7} {'screened: misses':>17} {'CPU-s':>7} {options.timed:>7} resamples, CPU-s")
    missed, total = 0, 0
    for name in names:
        spec = study.fits[name]
        rows = select(losses, study.selections[spec.selection], spec.selection)
        found = fit(spec, rows)
        assert isinstance(found, HuberFit)
        own = _rows(found, rows)
        units = np.arange(len(own.values)) if own.runs is None else own.runs
        refit, number = _HuberRefit(found, own, units), int(units.max()) + 1
        weights = refit.draw(np.random.default_rng(7), number, options.resamples)
        ours = refit(weights)[:, -1]
        begun = time.process_time()
        afresh = screened(found, refit, weights)
        slow = time.process_time() - begun
        best = np.minimum(ours, afresh) * (1 + MISS)
        begun = time.process_time()
        resample(found, rows, Bootstrap(resamples=options.timed))
        fast = time.process_time() - begun
        missed, total = missed + int((ours > best).sum()), total + len(weights)
        print(
            f"{name:52} {number:4} {(ours > best).mean():8.1%} {(afresh > best).mean():17.1%} {slow:7.1f} {fast:8.1f}",
            flush=True,
        )
    print(
        f"{missed} of {total} missed; peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB"
    )


if __name__ == "__main__":
    main()
