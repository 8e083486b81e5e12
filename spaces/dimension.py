"""One knob of a search space."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Value = float | int | str | bool | None


@dataclass(frozen=True)
class Condition:
    """When a dimension exists: another one, which stands before it, has one of some values.

    Attributes:
        name: The other dimension.
        values: Its values that bring this one about; None for all that are above `above`.
        above: A number.
    """

    name: str
    values: tuple[Value, ...] | None = None
    above: float = 0.0

    def holds(self, chosen: Mapping[str, Value]) -> bool:
        """Tell whether it holds with the values chosen so far."""
        value = chosen.get(self.name)
        if self.values is not None:
            return self.name in chosen and value in self.values
        return isinstance(value, int | float) and value > self.above


@dataclass(frozen=True)
class Range:
    """A number between two ends.

    Attributes:
        name: Dotted name, the technique first: ``recovery.learning_rate``.
        low: Smallest value.
        high: Largest value.
        neutral: The value that leaves the model as it was.
        log: Whether ratios matter rather than differences.
        step: Distance between neighbouring values, or None for any value between the ends.
        when: Any of these must hold for it to exist; empty for always.
    """

    name: str
    low: float
    high: float
    neutral: float
    log: bool = False
    step: float | None = None
    when: tuple[Condition, ...] = ()

    def allows(self, value: Value) -> bool:
        """Tell whether a value lies in the range."""
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high


@dataclass(frozen=True)
class Choice:
    """One of a few values; with a single value, a constant that the recipe records but nothing searches.

    Attributes:
        name: Dotted name, the technique first: ``quantization.bits.head``.
        values: What may be chosen.
        neutral: The value that leaves the model as it was; need not be one of `values`.
        when: Any of these must hold for it to exist; empty for always.
    """

    name: str
    values: tuple[Value, ...]
    neutral: Value
    when: tuple[Condition, ...] = ()

    def allows(self, value: Value) -> bool:
        """Tell whether a value is one of the choices."""
        return value in self.values


Dimension = Range | Choice


def exists(dimension: Dimension, chosen: Mapping[str, Value]) -> bool:
    """Tell whether a dimension exists, given the values of those before it."""
    return not dimension.when or any(condition.holds(chosen) for condition in dimension.when)


def existing(dimensions: Iterable[Dimension], values: Mapping[str, Value]) -> dict[str, Value]:
    """Return the values of those dimensions only that exist with them, in the dimensions' order."""
    kept: dict[str, Value] = {}
    for dimension in dimensions:
        if dimension.name in values and exists(dimension, kept):
            kept[dimension.name] = values[dimension.name]
    return kept
