"""Reading a wished point and an order of objectives, as they are typed or given from Python."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from paretrim.errors import UsageError, nearest
from paretrim.tracking import constraints

EXAMPLES: Mapping[str, str] = {
    "wish": "such as 'latency_ms=0.03,size_bytes=20% of baseline'",
    "order": "such as 'accuracy>latency_ms>size_bytes'",
}


def wish(given: str | Mapping[str, float], allowed: Sequence[str], baseline: Mapping[str, float]) -> dict[str, float]:
    """Return a wished point: a value by metric.

    Args:
        given: ``METRIC=VALUE,...``, the values as in constraints, relative to the baseline if wanted; or numbers by metric.
        allowed: Metrics that may be wished for.
        baseline: The baseline's measurements.

    Raises:
        UsageError: It cannot be read, names another metric, one twice, or none.
    """
    pairs = _pairs(given, baseline) if isinstance(given, str) else list(given.items())
    _checked([name for name, _ in pairs], allowed, "wish")
    for name, value in pairs:
        if not math.isfinite(value):
            raise UsageError(f"the wish {name}={value} is no finite number; give one, {EXAMPLES['wish']}")
    return dict(pairs)


def _pairs(text: str, baseline: Mapping[str, float]) -> list[tuple[str, float]]:
    found = []
    for part in text.split(","):
        name, sign, value = part.partition("=")
        try:
            if not sign:
                raise UsageError("")
            bound = constraints.parse(f"{name.strip()} <= {value.strip()}")
            if bound.soft:
                raise UsageError("")
        except UsageError:
            raise UsageError(
                f"cannot read the wish '{part.strip()}'; allowed: METRIC=NUMBER, METRIC=NUMBER% of baseline, METRIC=baseline "
                f"- NUMBER, several with commas, {EXAMPLES['wish']}"
            ) from None
        found.append((bound.metric, bound.limit(baseline)))
    return found


def order(given: str | Sequence[str], allowed: Sequence[str]) -> list[str]:
    """Return objectives, the one that matters most first.

    Args:
        given: ``FIRST>SECOND>...``, or their names.
        allowed: The objectives of the search.

    Raises:
        UsageError: It names what is no objective, one twice, or none.
    """
    names = [name.strip() for name in given.split(">")] if isinstance(given, str) else list(given)
    _checked(names, allowed, "order")
    return names


def _checked(names: Sequence[str], allowed: Sequence[str], what: str) -> None:
    if not names:
        raise UsageError(f"'{what}' is empty; name objectives, {EXAMPLES[what]}")
    for name in names:
        if name not in allowed:
            raise UsageError(
                f"unknown objective '{name}' in '{what}'; allowed: {', '.join(allowed)}{nearest(name, list(allowed))}"
            )
        if list(names).count(name) > 1:
            raise UsageError(f"'{what}' names {name} twice; name each objective once, {EXAMPLES[what]}")
