"""What the JSON of a fit must hold for a program to go by it: files are written by other versions, and edited by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, NonNegativeFloat, PositiveFloat, PositiveInt, ValidationError

from gemstones.errors import UserError
from gemstones.faults import fault_lines
from gemstones.study import ParamCount

Number = Annotated[float, Field(allow_inf_nan=False, strict=True)]
Share = Annotated[float, Field(ge=0, le=1)]
Range = tuple[Number, Number]


class Deviation(BaseModel):
    """How residuals go with a covariate (:mod:`gemstones.laws.patterns`)."""

    correlation: Number
    p: Share
    low: Number
    high: Number


class Patterns(BaseModel):
    warnings: list[str] = []
    early: dict[str, Deviation | Number] = {}
    run: dict[str, Deviation | Number] = {}


class Noise(BaseModel):
    run: NonNegativeFloat
    within: NonNegativeFloat
    source: str
    runs: PositiveInt
    degrees_of_freedom: PositiveInt
    seeds: NonNegativeFloat | None = None


class Intervals(BaseModel):
    level: Annotated[float, Field(gt=0, lt=1)] = 0.95
    quantities: dict[str, tuple[Number | None, Number | None] | None] = {}
    warnings: list[str] = []


class StoredHuberFit(BaseModel):
    covariates: Annotated[list[str], Field(min_length=1)]
    param_count: ParamCount
    exponents: Annotated[list[Number | list[Number]], Field(min_length=1)]
    log_coefficients: list[Number]
    irreducible_loss: Annotated[Number, Field(ge=0)]
    huber_delta: PositiveFloat | None
    n_rows: PositiveInt
    n_runs: PositiveInt | None
    converged: Annotated[bool, Field(strict=True)]
    min_flops: PositiveFloat | None
    max_flops: PositiveFloat | None
    selection: str | None
    warnings: list[str]
    fitted_ranges: dict[Literal["params", "width", "depth", "tokens"], Range] = {}
    patterns: Patterns = Patterns()
    intervals: Intervals = Intervals()
    noise: Noise | None = None


def check(data: Mapping[str, Any]) -> None:
    """Check the JSON of a fit of approach 3.

    Raises
    ------
    UserError
        One line: the keys at fault, three at most, and what would be right.
    """
    try:
        StoredHuberFit.model_validate(data)
    except ValidationError as error:
        raise UserError("; ".join(fault_lines(error, StoredHuberFit)[:3])) from None
