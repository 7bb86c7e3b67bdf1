"""Fits of small random tables, many with an exponent at its bound or a term that vanishes, against SciPy within the same bounds.

    python benchmarks/bounds.py --seeds 0 1 2 --tables 120

Prints every table whose fit lies above what L-BFGS-B finds from six starts, and counts those that do not converge (about a second a
table).
"""

import os

# One thread, so that CPU-seconds compare; before numpy is imported.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from gemstones.errors import UserError
from gemstones.laws import fit_huber
from tests.random_tables import random_tables, scipy_objective

# Relative excess of an objective that counts, and an absolute one for perfect fits.
EXCESS, ROUNDING = 1e-6, 1e-14


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the tables")
    parser.add_argument("--tables", type=int, default=120, help="for each seed")
    options = parser.parse_args()
    above = unsure = tried = lower = 0
    seconds = 0.0
    for seed in options.seeds:
        for number, table, covariates, delta in random_tables(seed, options.tables):
            start = time.process_time()
            try:
                fit = fit_huber(table, covariates, huber_delta=delta)
            except UserError:
                continue  # fewer points than parameters
            seconds += time.process_time() - start
            theirs = scipy_objective(table, covariates, delta, 6)
            tried, unsure = tried + 1, unsure + (not fit.converged)
            lower += theirs > fit.objective * (1 + EXCESS) + ROUNDING
            if fit.objective > theirs * (1 + EXCESS) + ROUNDING:
                above += 1
                print(f"seed {seed}, table {number}: {', '.join(covariates)}, {len(table)} rows, delta {delta:g}: "
                      f"{fit.objective:.9g}, SciPy {theirs:.9g}; converged: {fit.converged}", flush=True)  # fmt: skip
    print(
        f"{tried} tables, {seconds:.1f} CPU-s: {above} fits above SciPy's, {lower} below, {unsure} not called converged"
    )


if __name__ == "__main__":
    main()
