"""Published comparisons: Kaplan's and Chinchilla's lines, the authors' own fits and the training tokens of industry models."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gemstones.laws.hull import Line
from gemstones.laws.power_law import CHINCHILLA, Allocation

Floats = NDArray[np.float64]

# Kaplan et al. (2020) as plotted by Porian et al. (2024): N = 1.6e9 (C / PF-day)^0.88.
KAPLAN_PARAMS, KAPLAN_EXPONENT, PF_DAY = 1.6e9, 0.88, 1e15 * 86400
# Trillions of training tokens, from the models' reports and cards.
TRAINING_TOKENS = {
    "Gemma-2b": 3, "Gemma-7b": 6, "Gemma-2-2b": 2, "Gemma-2-9b": 8, "Gemma-2-27b": 13, "Llama-2-7b": 2, "Llama-2-13b": 2,
    "Llama-2-70b": 2, "Llama-3-8B": 15, "Llama-3.1-70B": 15, "Llama-3.2-1B": 9, "Llama-3.2-3B": 9, "Qwen2-0.5B": 12,
    "Qwen2-1.5B": 7, "Qwen2-7B": 7,
}  # fmt: skip


def chinchilla_params(flops: Floats) -> Floats:
    """Optimal parameters of Hoffmann's law for C = 6·N·T (Eq 4)."""
    return CHINCHILLA.allocation().params(flops)


def kaplan_params(flops: Floats) -> Floats:
    """Optimal parameters after Kaplan et al."""
    return np.asarray(KAPLAN_PARAMS * (flops / PF_DAY) ** KAPLAN_EXPONENT)


REFERENCES = {"Chinchilla": chinchilla_params, "Kaplan": kaplan_params}


def published_params(table: pd.DataFrame, name: str, flops: Floats) -> Floats:
    """Optimal parameters by the authors' own fit, of the table of published laws by fit; not-a-number where they published none."""
    if name in table.index and table.at[name, "slope_published"] == table.at[name, "slope_published"]:
        row = table.loc[name]
        if row["approach"] == 1:
            return Line(row["slope_published"], row["intercept_published"]).predict(flops)
        theirs = (
            row[f"{role}_{what}_published"] for role in ("params", "tokens") for what in ("exponent", "log_coefficient")
        )
        return np.asarray(Allocation.of(*theirs).params(flops))
    return np.full(len(flops), np.nan)


def with_budgets(industry: pd.DataFrame) -> pd.DataFrame:
    """Industry models whose training tokens are known, with `tokens` and `flops` = 6·N·T."""
    tokens = industry["name"].str.removesuffix("-hf").map(TRAINING_TOKENS) * 1e12
    known = industry.assign(tokens=tokens, flops=6 * industry["params"] * tokens)
    return known[known["tokens"].notna()].reset_index(drop=True)
