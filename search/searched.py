"""The knobs of a search as they are noted with its study, so that its records can be read without its model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter

from paretrim.spaces.dimension import Dimension

NOTE = "dimensions"
_ADAPTER: TypeAdapter[tuple[Dimension, ...]] = TypeAdapter(tuple[Dimension, ...])


def to_plain(dimensions: Sequence[Dimension]) -> Any:
    """Return knobs as JSON-ready values."""
    return _ADAPTER.dump_python(tuple(dimensions), mode="json")


def from_plain(plain: Any) -> tuple[Dimension, ...]:
    """Read what `to_plain` wrote."""
    return _ADAPTER.validate_python(plain)
