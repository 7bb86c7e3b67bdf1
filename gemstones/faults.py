"""What is wrong with a config, said in one line each."""

from __future__ import annotations

import difflib
from typing import Any, get_args

from pydantic import BaseModel, ValidationError


def fault_lines(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """One line a fault: the key's path, what is wrong with it and what would be right."""
    lines = []
    for fault in error.errors():
        path = [str(part) for part in fault["loc"]]
        if path[:1] == ["fits"] and len(path) > 2:
            del path[2]  # the approach, which pydantic adds to the path, is no key of the file
        message = fault["msg"].removeprefix("Value error, ")
        if not path:
            lines += message.split("\n")
            continue
        if fault["type"] == "extra_forbidden":
            message = f"unknown key; {choices(path[-1], _keys_beside(fault['loc'], model))}"
        elif fault["type"] == "missing":
            message = "this key is required"
        elif fault["type"] == "literal_error":
            message = f"unknown value {fault['input']!r}; choose one of {fault['ctx']['expected']}"
        else:
            message = f"{message} (given: {fault['input']!r})"
        lines.append(f"{'.'.join(path)}: {message}")
    return lines


def _keys_beside(location: tuple[str | int, ...], model: type[BaseModel]) -> list[str]:
    """The keys that the section of an unknown key has."""
    sections = [model]
    for part in location[:-1]:
        inner = [section.model_fields[str(part)].annotation for section in sections if part in section.model_fields]
        if inner:
            sections = [section for annotation in inner for section in _sections_of(annotation)]
        elif isinstance(part, int):  # the approach of a fit
            sections = [section for section in sections if section.__name__ == f"Approach{part}"]
        # Any other part is a name in a mapping, whose values have the section.
    return [key for section in sections for key in section.model_fields]


def _sections_of(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for inner in get_args(annotation) for section in _sections_of(inner)]


def choices(wrong: str, names: list[str]) -> str:
    """What could have been meant by a name that is not there."""
    close = difflib.get_close_matches(wrong, names, n=1)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"choose one of {', '.join(names)}" if names else "none is defined"
