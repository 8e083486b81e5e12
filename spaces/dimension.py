"""One knob of a search space."""

from __future__ import annotations

from dataclasses import dataclass

Value = float | int | str | bool | None


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
    """

    name: str
    low: float
    high: float
    neutral: float
    log: bool = False
    step: float | None = None

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
    """

    name: str
    values: tuple[Value, ...]
    neutral: Value

    def allows(self, value: Value) -> bool:
        """Tell whether a value is one of the choices."""
        return value in self.values


Dimension = Range | Choice
