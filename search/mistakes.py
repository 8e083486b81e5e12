"""From pydantic's findings to sentences that say where, what was given, what is allowed, and what may be meant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

from paretrim.errors import Problem, nearest

Location = tuple[int | str, ...]
_SHORT = 60


def problems(error: ValidationError, model: type[BaseModel], under: Location = ()) -> list[Problem]:
    """Return one problem for each finding.

    Args:
        error: What pydantic found.
        model: The model that was validated, for the names that are allowed.
        under: Where in the job that model stands.
    """
    # Where another field is wrong, a default that depends on it is not made, which is no mistake of its own.
    found = [detail for detail in error.errors() if detail["type"] != "default_factory_not_called"]
    return [Problem((*under, *detail["loc"]), _sentence(detail, model)) for detail in found]


def _sentence(detail: Any, model: type[BaseModel]) -> str:
    given, kind, location = _shortened(detail.get("input")), detail["type"], tuple(detail["loc"])
    if kind == "extra_forbidden":
        allowed = list(_allowed(model, location[:-1]))
        return f"unknown key; allowed: {', '.join(allowed)}{nearest(str(location[-1]), allowed)}"
    if kind == "missing":
        return "is required and missing"
    if kind in ("bool_parsing", "bool_type"):
        return f"is a switch: allowed are true and false; given {given}"
    message = str(detail["msg"]).removeprefix("Value error, ")
    if kind == "value_error":
        return message
    return f"{message[0].lower()}{message[1:]}; given {given}"


def _allowed(model: type[BaseModel], location: Location) -> Iterator[str]:
    """Yield the keys that are allowed at a location."""
    here: Any = model
    for part in location:
        field = here.model_fields.get(str(part)) if isinstance(here, type) and issubclass(here, BaseModel) else None
        here = field.annotation if field is not None else None
    if isinstance(here, type) and issubclass(here, BaseModel):
        yield from here.model_fields


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}..."
