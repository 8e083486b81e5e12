"""Constraints such as ``accuracy >= baseline - 0.01`` or, softly, ``prefer latency_ms <= 50% of baseline``.

A hard bound is never given up: what breaks it is no point of the front, and is not trained where that can be told before.
A soft one steers: of two recipes of equal use the one that meets it is tried first, and no point is lost by missing it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from paretrim.errors import UsageError

_NUMBER = r"[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?"
_FORM = re.compile(
    rf"^\s*(?:(?P<soft>prefer)\s+)?(?P<metric>[A-Za-z_]\w*)\s*(?P<sense><=|>=|<|>)\s*(?:"
    rf"(?P<percent>{_NUMBER})\s*%\s*(?:of\s+)?baseline"
    rf"|(?P<factor>{_NUMBER})\s*\*\s*baseline"
    rf"|baseline(?:\s*(?P<sign>[-+*/])\s*(?P<offset>{_NUMBER})(?P<relative>\s*%)?)?"
    rf"|(?P<value>-?{_NUMBER})"
    rf")\s*$"
)
ALLOWED = (
    "METRIC <= NUMBER, METRIC >= baseline - NUMBER, METRIC <= NUMBER% of baseline, METRIC <= NUMBER * baseline, "
    "METRIC >= baseline - NUMBER%, prefer METRIC <= NUMBER"
)


@dataclass(frozen=True)
class Constraint:
    """A bound on a metric: ``metric sense factor * baseline + offset``.

    Attributes:
        text: As it was written.
        metric: Name of the metric.
        upper: Whether it bounds from above.
        factor: Multiplies the baseline's value; zero for an absolute bound.
        offset: Added to it.
        soft: Whether it only steers: missing it costs a point nothing but preference.
    """

    text: str
    metric: str
    upper: bool
    factor: float
    offset: float
    soft: bool = False

    def limit(self, baseline: Mapping[str, float]) -> float:
        """Return the bound as a number."""
        return self.factor * baseline.get(self.metric, 0.0) + self.offset

    def excess(self, metrics: Mapping[str, float], baseline: Mapping[str, float]) -> float:
        """Return by how much the bound is broken, as a share of the bound; zero or less when it is met."""
        limit = self.limit(baseline)
        if self.metric not in metrics:
            return float("inf")
        distance = metrics[self.metric] - limit if self.upper else limit - metrics[self.metric]
        return distance / (abs(limit) or 1.0)

    def met(self, metrics: Mapping[str, float], baseline: Mapping[str, float]) -> bool:
        """Tell whether the bound is met."""
        return self.excess(metrics, baseline) <= 1e-12


def parse(text: str) -> Constraint:
    """Read a constraint.

    Raises:
        UsageError: The text has another form; the message lists the allowed ones.
    """
    match = _FORM.match(text)
    if match is None:
        raise UsageError(f"cannot read the constraint '{text}'; allowed: {ALLOWED}")
    factor, offset = _bound(match)
    if not (math.isfinite(factor) and math.isfinite(offset)):
        raise UsageError(f"the constraint '{text}' has a number that is too large")
    return Constraint(
        text.strip(), match["metric"], match["sense"].startswith("<"), factor, offset, bool(match["soft"])
    )


def hard(constraints: Iterable[Constraint]) -> tuple[Constraint, ...]:
    """Return those that nothing may break."""
    return tuple(each for each in constraints if not each.soft)


def misses(
    constraints: Iterable[Constraint], metrics: Mapping[str, float], baseline: Mapping[str, float]
) -> dict[str, float]:
    """Return by how much soft bounds are missed, as a share of each bound, by metric; those that are met are left out.

    Args:
        constraints: Soft and hard ones, of which the hard ones are left out.
        metrics: What is known of a point; bounds on what is not are left out.
        baseline: The baseline's measurements.
    """
    found: dict[str, float] = {}
    for each in constraints:
        if each.soft and each.metric in metrics and not each.met(metrics, baseline):
            found[each.metric] = max(found.get(each.metric, 0.0), each.excess(metrics, baseline))
    return found


def _bound(match: re.Match[str]) -> tuple[float, float]:  # noqa: PLR0911 - one for each form
    if match["value"] is not None:
        return 0.0, float(match["value"])
    if match["percent"] is not None:
        return float(match["percent"]) / 100.0, 0.0
    if match["factor"] is not None:
        return float(match["factor"]), 0.0
    if match["sign"] is None:
        return 1.0, 0.0
    number, sign = float(match["offset"]), match["sign"]
    if match["relative"]:
        number, signs = number / 100.0, {"+": 1.0, "-": -1.0}
        if sign not in signs:
            raise UsageError(f"cannot read the constraint '{match.string}'; allowed: {ALLOWED}")
        return 1.0 + signs[sign] * number, 0.0
    if sign in "*/":
        if number == 0 and sign == "/":
            raise UsageError(f"the constraint '{match.string}' divides by zero")
        return (number if sign == "*" else 1.0 / number), 0.0
    return 1.0, number if sign == "+" else -number
