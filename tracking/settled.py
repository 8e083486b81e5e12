"""Trials whose latency was taken again at the end: both numbers are kept, the later one counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from paretrim.evaluators.measurement import Measurement
from paretrim.tracking.records import TrialRecord

CROWDED = "latency_crowded"
SEARCHED = "latency_search_ms"


@dataclass(frozen=True)
class Final:
    """A latency that was taken when nothing trained, in turns with the other finalists.

    Attributes:
        latency: ``latency_ms``, with its interval.
        ratio: ``latency_ratio``, with its interval.
        crowded: Whether others disturbed it too much for it to count.
    """

    latency: Measurement
    ratio: Measurement
    crowded: bool

    def to_plain(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {
            "crowded": self.crowded,
            **{part: [m.value, m.low, m.high, m.how] for part, m in (("latency", self.latency), ("ratio", self.ratio))},
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Final:
        """Read what `to_plain` wrote."""
        return cls(
            Measurement("latency_ms", *plain["latency"]),
            Measurement("latency_ratio", *plain["ratio"]),
            plain["crowded"],
        )


def settled(records: Iterable[TrialRecord], finals: Mapping[str, Final]) -> list[TrialRecord]:
    """Return trials with the latency that counts.

    Args:
        records: Trials as they were measured in the search.
        finals: What was measured at the end, by hash of the artifact.
    """
    return [_settled(each, finals[each.sha256]) if each.sha256 in finals else each for each in records]


def crowded(record: TrialRecord) -> bool:
    """Tell whether a trial's latency was disturbed too much to be compared."""
    return record.metrics.get(CROWDED, 0.0) > 0.0


def at_its_best(record: TrialRecord) -> TrialRecord:
    """Return a trial with the lower end of its latency's interval as its latency."""
    best = [m if m.name != "latency_ms" or m.low is None else replace(m, value=m.low) for m in record.measurements]
    return replace(record, measurements=tuple(best))


def _settled(record: TrialRecord, final: Final) -> TrialRecord:
    first = next((m for m in record.measurements if m.name == "latency_ms"), None)
    # A number that was disturbed does not take the place of one that was not.
    if first is None or (final.crowded and not crowded(record)):
        return record
    replaced = (
        final.latency,
        final.ratio,
        Measurement(CROWDED, float(final.crowded), how="1: too disturbed to count"),
        replace(first, name=SEARCHED, how=f"{first.how}; taken in the search"),
    )
    kept = _others(record.measurements, {m.name for m in replaced})
    return replace(record, measurements=(*kept, *replaced))


def _others(measurements: Sequence[Measurement], names: set[str]) -> list[Measurement]:
    return [m for m in measurements if m.name not in names]
