"""How far a run lies off its law: what an untrained run's loss may differ by, beyond what is not known of the law itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from gemstones.laws.rows import run_names

if TYPE_CHECKING:
    import pandas as pd

    from gemstones.laws.fit import HuberFit

# Robust standard deviation of numbers whose median distance from their median is 1, were they normal.
NORMAL = 1.4826


@dataclass(frozen=True)
class RunNoise:
    """Standard deviation of log losses of runs around a law.

    Attributes
    ----------
    run : of an untrained run as a whole (of the mean of its log residuals): the larger of what seeds of a shape and runs around the
        law show, since the law also misses something of a shape that it has not seen.
    seeds : of runs of one shape that differ in their seed; None where no shape has several.
    within : of a checkpoint around its run, robust.
    source : `replicates` (runs of one shape with other seeds), or `residuals` (of runs around the law, which are also what its form
        misses of their shapes).
    runs, degrees_of_freedom : runs that `run` comes from, and what is left of them.
    """

    run: float
    within: float
    source: str
    runs: int
    degrees_of_freedom: int
    seeds: float | None = None

    @property
    def sd(self) -> float:
        """Of one checkpoint of an untrained run."""
        return float(np.hypot(self.run, self.within))

    def half_width(self, level: float) -> float:
        """Half of the interval, in log loss, that holds a run of a law that is known, by Student's t."""
        return float(stdtrit(self.degrees_of_freedom, (1 + level) / 2)) * self.sd

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> RunNoise:
        return cls(**data)


def run_noise(fit: HuberFit, rows: pd.DataFrame) -> RunNoise | None:
    """The noise of runs around a fit.

    Around the law it is that of the run means, with runs − parameters degrees of freedom, since the law follows the runs that it is
    fitted to; with no more runs than parameters, one. Where shapes were trained with several seeds, their spread is known too: of the
    run means of log residuals over the steps that all seeds of a shape have, pooled over shapes.

    Parameters
    ----------
    rows : that it was fitted to; reads `run` (cooldowns count with their main run), `loss` and, for replicates, `width`, `depth`,
        `seed` and `step`.

    Returns
    -------
    None where rows name no run, or fewer than two.
    """
    names = run_names(rows)
    if names is None or len(np.unique(names)) < 2:
        return None
    residual = np.log(rows["loss"].to_numpy(float)) - np.log(fit.predict(rows))
    runs, which = np.unique(names, return_inverse=True)
    mean = np.bincount(which, residual) / np.bincount(which)
    around = residual - mean[which]
    within = float(NORMAL * np.median(np.abs(around - np.median(around))))
    found = _of_replicates(rows, residual)
    freedom = max(1, len(runs) - fit.n_parameters)
    spread = float(np.sqrt(((mean - mean.mean()) ** 2).sum() / freedom))
    if found and found[0] >= spread:
        return RunNoise(found[0], within, "replicates", *found[1:], seeds=found[0])
    return RunNoise(spread, within, "residuals", len(runs), freedom, found[0] if found else None)


def _of_replicates(rows: pd.DataFrame, residual: NDArray[np.float64]) -> tuple[float, int, int] | None:
    """Standard deviation between seeds of a shape, the runs it comes from and their degrees of freedom."""
    if not {"seed", "step", "width", "depth"} <= set(rows) or "phase" not in rows:
        return None
    trained = rows["seed"].notna() & rows["phase"].isin(["main", "replicate"])
    table = rows[["width", "depth", "seed", "step"]].assign(residual=residual)[trained.to_numpy()]
    squares, freedom, runs = 0.0, 0, 0
    for _, shape in table.groupby(["width", "depth"]):
        shared = shape.pivot_table(index="step", columns="seed", values="residual").dropna()
        if shared.shape[1] < 2 or shared.empty:
            continue
        means = shared.mean().to_numpy()
        squares += float(((means - means.mean()) ** 2).sum())
        freedom, runs = freedom + len(means) - 1, runs + len(means)
    return (float(np.sqrt(squares / freedom)), runs, freedom) if freedom else None
