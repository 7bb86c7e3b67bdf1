"""The one law class: L = E + sum of A_j / x_j^alpha_j, with its predictions and, for (params, tokens), its allocation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gemstones.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

ROLES = ("params", "tokens", "width", "depth")
# Training FLOPs per parameter and token, forward and backward (Kaplan et al.; Hoffmann et al., section 3.3).
FLOPS_PER_PARAM_TOKEN = 6


@dataclass(frozen=True)
class Allocation:
    """Closed-form optimum of a (params, tokens) law under C = 6·N·T (Hoffmann et al., Eq. 4).

    N*(C) = G·(C/6)^a and T*(C) = (C/6)^b / G, with a = beta/(alpha + beta), b = 1 − a. Of many laws at once, `log_g` and `a` are
    arrays that broadcast with the budgets; not-a-number where an exponent is not positive.
    """

    log_g: Any
    a: Any

    @classmethod
    def of(cls, alpha: ArrayLike, log_a: ArrayLike, beta: ArrayLike, log_b: ArrayLike) -> Allocation:
        """The optimum of E + exp(log_a)/N^alpha + exp(log_b)/T^beta, of one law or of arrays of them."""
        alpha, beta = (np.where(np.asarray(exponent) > 0, exponent, np.nan) for exponent in (alpha, beta))
        log_ratio = np.log(alpha) - np.log(beta) + np.subtract(log_a, log_b)
        return cls(log_ratio / (alpha + beta), beta / (alpha + beta))

    @classmethod
    def of_laws(cls, table: pd.DataFrame) -> Allocation:
        """The optima (B, 1) of a table of (params, tokens) laws (:func:`gemstones.laws.resampling.resample`)."""
        names = [f"{part}_{role}" for role in ("params", "tokens") for part in ("exponent", "log_coefficient")]
        return cls.of(*(table[[name]].to_numpy(float) for name in names))

    def params(self, flops: ArrayLike) -> NDArray[np.float64]:
        """N* at budgets in FLOPs, in the law's own parameter count."""
        return np.exp(self.log_params(flops))

    def tokens(self, flops: ArrayLike) -> NDArray[np.float64]:
        """T* at budgets in FLOPs."""
        return np.exp(self.log_tokens(flops))

    def log_params(self, flops: ArrayLike) -> NDArray[np.float64]:
        """Natural logarithm of N*, which the flattest laws put beyond any float."""
        log_c = np.log(np.asarray(flops, dtype=float) / FLOPS_PER_PARAM_TOKEN)
        return np.asarray(self.log_g + self.a * log_c)

    def log_tokens(self, flops: ArrayLike) -> NDArray[np.float64]:
        """Natural logarithm of T*."""
        log_c = np.log(np.asarray(flops, dtype=float) / FLOPS_PER_PARAM_TOKEN)
        return np.asarray(-self.log_g + (1 - self.a) * log_c)


@dataclass(frozen=True)
class PowerLaw:
    """L = E + sum over j of exp(c_j − alpha_j · log x_j), in nats per token.

    Attributes
    ----------
    covariates : roles of the x_j, in order: params, tokens, width, depth.
    exponents : alpha_j, in the order of `covariates`.
    log_coefficients : c_j = log A_j (natural), in the order of `covariates`.
    irreducible_loss : E, in nats per token.
    param_count : column of the losses table that the role `params` stands for.
    """

    covariates: tuple[str, ...]
    exponents: tuple[float, ...]
    log_coefficients: tuple[float, ...]
    irreducible_loss: float
    param_count: str = "params"

    def __post_init__(self) -> None:
        check_covariates(self.covariates)
        if not len(self.covariates) == len(self.exponents) == len(self.log_coefficients):
            raise UserError(f"law of {', '.join(self.covariates)}: wants one exponent and one coefficient for each")

    @property
    def n_parameters(self) -> int:
        """Fitted numbers: an exponent and a coefficient for each covariate, and E."""
        return 2 * len(self.covariates) + 1

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the losses table that hold the covariates."""
        return covariate_columns(self.covariates, self.param_count)

    def predict(self, table: pd.DataFrame | Mapping[str, ArrayLike]) -> NDArray[np.float64]:
        """Loss in nats per token.

        Parameters
        ----------
        table : losses table, or mapping of the law's `columns` to arrays that broadcast together.

        Raises
        ------
        UserError
            If a column is missing.
        """
        loss = np.asarray(self.irreducible_loss, dtype=float)
        columns = [_column(table, name, "table to predict from") for name in self.columns]
        for x, exponent, log_coefficient in zip(columns, self.exponents, self.log_coefficients, strict=True):
            loss = loss + np.exp(log_coefficient - exponent * np.log(x))
        return loss

    @property
    def slope(self) -> float | None:
        """a = beta/(alpha + beta) of a (params, tokens) law, by which N* grows with C; None for other laws."""
        return None if self._params_and_tokens() is None else self.allocation().a

    def allocation(self) -> Allocation:
        """Closed-form optimum under C = 6·N·T.

        Raises
        ------
        UserError
            If the law's covariates are not exactly params and tokens, or an exponent is zero.
        """
        pair = self._params_and_tokens()
        if pair is None:
            raise UserError(
                f"law of {', '.join(self.covariates)}: the closed form needs params and tokens, each with an exponent > 0"
            )
        found = Allocation.of(*pair[0], *pair[1])
        return Allocation(float(found.log_g), float(found.a))

    def _params_and_tokens(self) -> tuple[tuple[float, float], tuple[float, float]] | None:
        terms = dict(zip(self.covariates, zip(self.exponents, self.log_coefficients, strict=True), strict=True))
        if set(terms) != {"params", "tokens"} or min(self.exponents) <= 0:
            return None
        return terms["params"], terms["tokens"]


def check_covariates(covariates: Sequence[str]) -> None:
    """Raise UserError unless `covariates` are roles, each at most once."""
    unknown = [name for name in covariates if name and name not in ROLES]
    if unknown:
        raise UserError(f"unknown covariate '{unknown[0]}'; choose from {', '.join(ROLES)}")
    if not covariates or not all(covariates) or len(set(covariates)) < len(covariates):
        raise UserError(f"covariates '{', '.join(covariates)}': name at least one, each once, of {', '.join(ROLES)}")


def covariate_columns(covariates: Sequence[str], param_count: str) -> tuple[str, ...]:
    """Columns of the losses table for roles: the role params is read from the column `param_count`."""
    return tuple(param_count if role == "params" else role for role in covariates)


def positive_columns(table: pd.DataFrame, columns: Sequence[str], source: str) -> NDArray[np.float64]:
    """Columns of a table whose values must have a logarithm.

    Returns
    -------
    (n, k) float

    Raises
    ------
    UserError
        Naming the source, the column and the first row whose value is null, zero, negative or infinite.
    """
    values = np.stack([_column(table, name, source) for name in columns], axis=-1)
    bad = ~(np.isfinite(values) & (values > 0))
    if bad.any():
        row, column = (int(index) for index in np.argwhere(bad)[0])
        value = values[row, column]
        holds = "is empty or not a number" if np.isnan(value) else f"is {value:g}"
        raise UserError(
            f"{source}: {row_name(table, row)}: column '{columns[column]}' {holds}; wanted: a finite number greater than 0"
        )
    return values


def _column(table: pd.DataFrame | Mapping[str, Any], name: str, source: str) -> NDArray[np.float64]:
    if name not in table:
        raise UserError(f"{source}: no column '{name}'; it has {', '.join(map(str, table.keys()))}")
    column = table[name]
    if hasattr(column, "columns"):
        raise UserError(f"{source}: two columns are named '{name}'")
    if getattr(getattr(column, "dtype", None), "kind", "O") in "bcmM":  # numpy would make numbers of dates, too
        raise UserError(f"{source}: column '{name}' holds {column.dtype}; wanted: numbers")
    try:
        # pandas columns may hold nulls, which numpy alone cannot convert.
        values = column.to_numpy(dtype=float, na_value=np.nan) if hasattr(column, "to_numpy") else column
        return np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        raise UserError(f"{source}: {_first_text(table, name)}") from None


def row_name(table: pd.DataFrame, position: int) -> str:
    """How messages name a row: by its index, and its run and step where it has them."""
    name = f"row {table.index[position]}"
    known = [
        f"{column} {table[column].iloc[position]}"
        for column in ("run", "step")
        if column in table and table[column].notna().iloc[position]
    ]
    return f"{name} ({', '.join(known)})" if known else name


def _first_text(table: pd.DataFrame | Mapping[str, Any], name: str) -> str:
    """What is wrong with a column that is none of numbers."""
    for position, value in enumerate(table[name]):
        try:
            float(value)
        except (TypeError, ValueError):
            if value is not None and hasattr(table, "iloc"):
                return f"{row_name(table, position)}: column '{name}' is {str(value)[:40]!r}; wanted: a number"
    return f"column '{name}' holds values that are not numbers"


# Besiroglu et al. (2024, arXiv 2404.10102): Hoffmann's law, fitted again to the points of his Figure 4.
CHINCHILLA = PowerLaw(
    ("params", "tokens"), (0.3478, 0.3658), (float(np.log(482.00572)), float(np.log(2085.43420))), 1.8172
)
