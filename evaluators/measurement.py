"""A measurement: a number with its unit, its spread and how it was taken."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """What one part contributes to a number, such as a layer's bytes.

    Attributes:
        name: Of the part.
        value: Its share, in the unit of the whole.
        what: What it is, such as ``int8 16x3x3x3``.
    """

    name: str
    value: float
    what: str = ""


@dataclass(frozen=True)
class Measurement:
    """One measured number.

    Attributes:
        name: Metric name with its unit in it, such as ``latency_ms`` or ``size_bytes``.
        value: The number that is compared and searched on.
        low: Lower end of its 95% interval, where one was taken.
        high: Upper end of its 95% interval, where one was taken.
        how: How it was taken, in a few words.
        parts: What it is made of, where that is known.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    how: str = ""
    parts: tuple[Part, ...] = ()
