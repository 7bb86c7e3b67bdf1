"""The one law class: E plus terms, each a coefficient over a product of powers, with its predictions and closed-form optimum.

A term is written as its factors: `params` stands for A / params^alpha, `tokens*params` for A / (tokens^alpha · params^beta), in
which beta is negative where more parameters make data worth less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gemstones.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

# Covariates that the shape and the length of a run give; others may be fitted, but no budget is divided by them.
ROLES = ("params", "tokens", "width", "depth")
Exponents = float | tuple[float, ...]
# Training FLOPs per parameter and token, forward and backward (Kaplan et al.; Hoffmann et al., section 3.3).
FLOPS_PER_PARAM_TOKEN = 6


@dataclass(frozen=True)
class Allocation:
    """Closed-form optimum under C = 6·N·T of a law E + A/N^alpha + D·N^kappa/T^zeta.

    N*(C) = G·(C/6)^a and T*(C) = (C/6)^b / G, with a = zeta/(alpha + zeta + kappa), b = 1 − a; without an interaction (kappa = 0)
    these are Hoffmann et al., Eq. 4. Of many laws at once, `log_g` and `a` are arrays that broadcast with the budgets;
    not-a-number where the optimum is at an end: alpha, zeta or zeta + kappa is not positive.
    """

    log_g: Any
    a: Any

    @classmethod
    def of(
        cls, alpha: ArrayLike, log_a: ArrayLike, zeta: ArrayLike, log_d: ArrayLike, kappa: ArrayLike = 0.0
    ) -> Allocation:
        """The optimum of one law or of arrays of them, with natural logs of A and D."""
        alpha, zeta = (np.where(np.asarray(exponent) > 0, exponent, np.nan) for exponent in (alpha, zeta))
        both = zeta + np.asarray(kappa)
        both = np.where(both > 0, both, np.nan)
        log_ratio = np.log(alpha) - np.log(both) + np.subtract(log_a, log_d)
        return cls(log_ratio / (alpha + both), zeta / (alpha + both))

    @classmethod
    def of_laws(cls, table: pd.DataFrame, covariates: Sequence[str]) -> Allocation:
        """The optima (B, 1) of a table of laws (:func:`gemstones.laws.resampling.resample`) with these covariates."""
        pair = _size_and_data(covariates)
        assert pair is not None
        size, data = pair

        def column(name: str) -> NDArray[np.float64]:
            return table[[name]].to_numpy(float)

        names = dict(zip(factors(data), exponent_names([data]), strict=True))
        kappa = -column(names["params"]) if "params" in names else 0.0
        return cls.of(
            column(f"exponent_{size}"),
            column(f"log_coefficient_{size}"),
            column(names["tokens"]),
            column(f"log_coefficient_{data}"),
            kappa,
        )

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
    """L = E + sum over terms j of exp(c_j − sum over its factors i of alpha_ji · log x_i), in nats per token.

    Attributes
    ----------
    covariates : terms as written, in order: a role (params, tokens, width, depth) or another column, or a product of them.
    exponents : alpha, in the order of `covariates`: a number, or for a product one for each factor. They are of 1/x.
    log_coefficients : c_j = log A_j (natural), in the order of `covariates`.
    irreducible_loss : E, in nats per token.
    param_count : column of the losses table that the role `params` stands for.
    """

    covariates: tuple[str, ...]
    exponents: tuple[Exponents, ...]
    log_coefficients: tuple[float, ...]
    irreducible_loss: float
    param_count: str = "params"

    def __post_init__(self) -> None:
        object.__setattr__(self, "covariates", written(self.covariates))
        if not len(self.covariates) == len(self.exponents) == len(self.log_coefficients):
            raise UserError(f"law of {', '.join(self.covariates)}: wants one exponent and one coefficient for each")
        nested = tuple(tuple(each) if isinstance(each, list | tuple) else each for each in self.exponents)
        object.__setattr__(self, "exponents", nested)
        numbers = [self.irreducible_loss, *self.log_coefficients]
        for each in nested:
            numbers += each if isinstance(each, tuple) else (each,)
        for number in numbers:
            if isinstance(number, bool) or not isinstance(number, int | float | np.number) or not np.isfinite(number):
                raise UserError(f"law of {', '.join(self.covariates)}: {number!r} is no finite number")
        if self.irreducible_loss < 0:
            raise UserError(f"law of {', '.join(self.covariates)}: an irreducible loss of {self.irreducible_loss:g}")
        for term, each in zip(self.covariates, nested, strict=True):
            many = len(each) if isinstance(each, tuple) else 1
            if many != len(factors(term)):
                raise UserError(
                    f"law of {', '.join(self.covariates)}: {many} exponents for {term}; wanted: {len(factors(term))}"
                )

    @property
    def n_parameters(self) -> int:
        """Fitted numbers: the exponents, a coefficient for each term, and E."""
        return n_parameters(self.covariates)

    @property
    def terms(self) -> tuple[dict[str, float], ...]:
        """Exponents of each term by its factors."""
        return tuple(
            dict(zip(factors(term), each if isinstance(each, tuple) else (each,), strict=True))
            for term, each in zip(self.covariates, self.exponents, strict=True)
        )

    @property
    def flat_exponents(self) -> tuple[float, ...]:
        """All exponents, in the order of :func:`exponent_names`."""
        return tuple(exponent for term in self.terms for exponent in term.values())

    @property
    def roles(self) -> tuple[str, ...]:
        """What the law depends on, each once."""
        return roles(self.covariates)

    @property
    def knows_shapes(self) -> bool:
        """Whether the law depends on width or depth, and not on counts of parameters alone."""
        return bool({"width", "depth"} & set(self.roles))

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the losses table that hold them."""
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
        log_x = {
            role: np.log(_column(table, name, "table to predict from"))
            for role, name in zip(self.roles, self.columns, strict=True)
        }
        for term, log_coefficient in zip(self.terms, self.log_coefficients, strict=True):
            power = sum(exponent * log_x[role] for role, exponent in term.items())
            loss = loss + np.exp(log_coefficient - power)
        return loss

    def no_optimum(self) -> str | None:
        """Why the law prescribes nothing on a budget; None where it does."""
        described = f"a law of {', '.join(self.covariates)}"
        unknown = [role for role in self.roles if role not in ROLES]
        if unknown:
            return f"{described} has no optimum on a budget: a shape and its tokens do not give {', '.join(unknown)}"
        falls = [term.get("tokens", 0.0) for term in self.terms]
        of_size = [exponent for term in self.terms for role, exponent in term.items() if role != "tokens"]
        if min(falls) < 0 or max(falls) <= 0 or max(of_size, default=0.0) <= 0:
            numbers = ", ".join(f"{exponent:.3g}" for exponent in self.flat_exponents)
            return (
                f"{described} with exponents {numbers} has no optimum on a budget: the loss must fall with tokens and "
                "with the model's size"
            )
        return None

    @property
    def slope(self) -> float | None:
        """a of N* ∝ C^a of a law of params and tokens, also with tokens*params; None for other laws and where it has none."""
        allocation = self._allocation()
        return None if allocation is None else float(allocation.a)

    def allocation(self) -> Allocation:
        """Closed-form optimum under C = 6·N·T.

        Raises
        ------
        UserError
            If the law is none of params and tokens (or tokens*params), or the optimum is at an end.
        """
        found = self._allocation()
        if found is None:
            raise UserError(
                f"law of {', '.join(self.covariates)}: the closed form needs params and tokens or tokens*params, each with "
                "an exponent > 0"
            )
        return Allocation(float(found.log_g), float(found.a))

    def _allocation(self) -> Allocation | None:
        pair = _size_and_data(self.covariates)
        if pair is None:
            return None
        size, data = (self.covariates.index(term) for term in pair)
        of_data = self.terms[data]
        kappa = -of_data.get("params", 0.0)
        c = self.log_coefficients
        found = Allocation.of(self.terms[size]["params"], c[size], of_data["tokens"], c[data], kappa)
        return found if np.isfinite(found.a) and np.isfinite(found.log_g) else None


def factors(term: str) -> tuple[str, ...]:
    """Covariates of a term, which are joined by `*`."""
    return tuple(factor.strip() for factor in term.split("*"))


def written(covariates: Sequence[str]) -> tuple[str, ...]:
    """Terms without blanks.

    Raises
    ------
    UserError
        If there is none, one is empty, or two are of the same factors.
    """
    terms = [factors(term) for term in covariates]
    told = ", ".join(covariates)
    if not terms or not all(factor for term in terms for factor in term):
        raise UserError(
            f"covariates '{told}': name at least one column, such as params, tokens, width, depth, or a product of them, "
            "such as tokens*params"
        )
    for term in terms:
        if "loss" in term:
            raise UserError(f"covariates '{told}': the loss is what the law predicts; it is no covariate of its own")
        if len(set(term)) < len(term):
            raise UserError(f"covariates '{told}': {'*'.join(term)} has a factor twice; each factor has one exponent")
    if len({frozenset(term) for term in terms}) < len(terms):
        raise UserError(f"covariates '{told}': two terms are of the same factors; name each once")
    return tuple("*".join(term) for term in terms)


def roles(covariates: Sequence[str]) -> tuple[str, ...]:
    """What terms depend on, each once, in the order of their first appearance."""
    return tuple(dict.fromkeys(factor for term in covariates for factor in factors(term)))


def covariate_columns(covariates: Sequence[str], param_count: str) -> tuple[str, ...]:
    """Columns of the losses table for :func:`roles`: the role params is read from the column `param_count`."""
    return tuple(param_count if role == "params" else role for role in roles(covariates))


def exponent_names(covariates: Sequence[str]) -> list[str]:
    """Names of a law's exponents: exponent_<role>, and exponent_<role>_in_<term> for the factors of products."""
    return [
        f"exponent_{factor}" if len(factors(term)) == 1 else f"exponent_{factor}_in_{term}"
        for term in covariates
        for factor in factors(term)
    ]


def term_numbers(covariates: Sequence[str]) -> NDArray[np.intp]:
    """The term, by its place, that each of the exponents (m,) belongs to."""
    return np.repeat(np.arange(len(covariates)), [len(factors(term)) for term in covariates])


def n_parameters(covariates: Sequence[str]) -> int:
    """Numbers that a law of these terms has: exponents, coefficients, and E."""
    return len(exponent_names(covariates)) + len(covariates) + 1


def has_closed_form(covariates: Sequence[str]) -> bool:
    """Whether a law's optimum follows from its parameters alone, under C = 6·N·T."""
    return _size_and_data(covariates) is not None


def _size_and_data(covariates: Sequence[str]) -> tuple[str, str] | None:
    """The terms of a law whose optimum has a closed form: of params, and of tokens or of tokens and params."""
    if len(covariates) != 2 or "params" not in covariates:
        return None
    data = next(term for term in covariates if term != "params")
    return ("params", data) if {"tokens"} <= set(factors(data)) <= {"tokens", "params"} else None


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
