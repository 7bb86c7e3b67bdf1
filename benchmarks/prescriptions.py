"""CPU-seconds of prescriptions and costs: the search on a budget, the authors' search beside all of its rows, and overtraining.

    python benchmarks/prescriptions.py
    python benchmarks/prescriptions.py --every-row

On the law of width, depth, params and tokens of the study `released`, which must have been run. With --every-row, the authors' search
is also done as they do it, though in numpy and width by width, and the results are compared (a minute; 318.9 million rows).
"""

import os

# One thread, so that CPU-seconds compare; before numpy is imported.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from gemstones import laws
from gemstones.laws.fit import HuberFit
from gemstones.laws.uncertainty import Uncertainty
from gemstones.prescriptions.optimum import budgets, prescribe
from gemstones.prescriptions.overspend import overspend
from gemstones.prescriptions.overtraining import overtraining
from gemstones.prescriptions.reference import ARCHITECTURE, BUCKETS, FLOPS_RANGE, grid, reference, whole_params
from gemstones.prescriptions.search import Search
from gemstones.study import load
from gemstones.suite.counting import flops_per_token

ROOT = Path(__file__).parent.parent
FIT = "approach_3_all_width_depth"


def cpu(function: Callable[[], Any], repeat: int) -> float:
    """Least CPU-seconds of some calls."""
    taken = []
    for _ in range(repeat):
        start = time.process_time()
        function()
        taken.append(time.process_time() - start)
    return min(taken)


def every_row(law: HuberFit) -> pd.DataFrame:
    """The authors' search with the loss of every row, width by width; of equal losses the first row."""
    rows, edges = grid(), np.geomspace(*FLOPS_RANGE, BUCKETS + 1)
    best = [(np.inf, 0.0, 0.0, 0.0)] * BUCKETS
    for width in np.unique(rows.width):
        depth = rows.depth[rows.width == width][:, None]
        params = whole_params(np.full_like(depth, width), depth, law.law.param_count)
        x = {"width": width, "depth": depth, law.law.param_count: params, "tokens": rows.tokens}
        loss = law.law.predict(x)
        bucket = (
            np.searchsorted(edges, flops_per_token(np.full_like(depth, width), depth, ARCHITECTURE) * rows.tokens) - 1
        )
        for i in range(BUCKETS):
            inside = np.where(bucket == i, loss, np.inf)
            row, column = np.unravel_index(int(inside.argmin()), inside.shape)
            if inside[row, column] < best[i][0]:
                best[i] = (float(inside[row, column]), float(width), float(depth[row, 0]), float(rows.tokens[column]))
    return pd.DataFrame(best, columns=["loss", "width", "depth", "tokens"])


def distance(law: HuberFit, found: pd.DataFrame, search: Search) -> pd.DataFrame:
    """How far the rows of the authors' search lie from the relaxed optimum on the bucket's right end, in percent and nats."""
    width, depth = search.relaxed(found["budget"])
    tokens = found["budget"] / search.flops_per_token(width, depth)
    optimum = {"width": width, "depth": depth, "aspect_ratio": width / depth, "tokens": tokens}
    there = found.assign(aspect_ratio=found["width"] / found["depth"])
    return pd.DataFrame(
        {
            "budget": found["budget"],
            "unspent_percent": 100 * (1 - found["flops"] / found["budget"]),
            **{f"{name}_percent": 100 * (there[name] / value - 1) for name, value in optimum.items()},
            "loss_nats": found["loss"] - search.predict(width, depth, tokens),
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every-row", action="store_true", help="also do the authors' search with every row")
    parser.add_argument("--repeat", type=int, default=3, help="timings, of which the smallest counts (default: 3)")
    parser.add_argument("--results", type=Path, default=ROOT / "results/released", help="of the study released")
    options = parser.parse_args()
    study = load(yaml.safe_load((ROOT / "config/released.yaml").read_text()), "config/released.yaml")
    law = laws.read(options.results / f"laws/{FIT}.json")
    assert isinstance(law, HuberFit)
    assert study.overtraining is not None
    resamples = pd.read_parquet(options.results / f"laws/{FIT}.parquet")
    uncertainty = Uncertainty(law, resamples, study.bootstrap.level)
    losses = pd.read_parquet(options.results / "losses/losses.parquet")
    rows = losses.query(study.selections["all_dense"])
    suite, some, many = study.suite, study.overtraining.flops, budgets(study.prescriptions)
    print(f"load average {os.getloadavg()[0]:.1f}\n\n| what | CPU-s |\n| ---- | ----: |")
    n = len(resamples)
    cases: dict[str, Callable[[], Any]] = {
        f"relaxed and feasible optima on {len(many)} budgets": lambda: prescribe(law, many, suite),
        f"… with intervals, from {n} resamples": lambda: prescribe(law, many, suite, uncertainty=uncertainty),
        "the authors' search, 13 buckets of 318.9 million rows": lambda: reference(law),
        f"overtraining, {len(some)} budgets of 33 factors": lambda: overtraining(law, some, suite),
        f"… with intervals of losses and increases, from {n} resamples": lambda: overtraining(
            law, some, suite, uncertainty=uncertainty
        ),
        f"overspend of {len(rows):,} rows over trajectories, FLOPs and GPU-hours": lambda: overspend(rows),
    }
    for name, function in cases.items():
        print(f"| {name} | {cpu(function, options.repeat):.2f} |", flush=True)
    found = reference(law)
    if options.every_row:
        start = time.process_time()
        expected = every_row(law)
        taken = time.process_time() - start
        same = (expected == found[expected.columns]).drop(columns="loss").all(axis=None)
        print(f"| the authors' search, every row in numpy: {'the same rows' if same else 'OTHER ROWS'} | {taken:.2f} |")
    print("\nThe authors' search against the relaxed optimum that spends the bucket's right end:\n")
    print(distance(law, found, Search.of(law, suite)).to_string(index=False, float_format="{:.3g}".format))


if __name__ == "__main__":
    main()
