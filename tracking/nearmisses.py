"""When nothing meets the constraints: which of them binds, and what comes nearest. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from paretrim.tracking.constraints import Constraint, hard
from paretrim.tracking.front import baseline_metrics, feasible
from paretrim.tracking.records import TrialRecord

# As in `Constraint.met`.
_MET = 1e-12


@dataclass(frozen=True)
class Miss:
    """A trial that breaks constraints, and by how much.

    Attributes:
        record: The trial.
        broken: (constraint, excess as a share of the bound), the worst first.
        values: What was measured of it: before training only, for a trial that was stopped.
    """

    record: TrialRecord
    broken: tuple[tuple[Constraint, float], ...]
    values: Mapping[str, float]


def nearest_misses(records: Sequence[TrialRecord], constraints: Sequence[Constraint], count: int = 3) -> list[Miss]:
    """Return the trials that come nearest to meeting the constraints without meeting them, soft ones left out.

    Of a trial that was stopped, what was measured before its training counts: it breaks at least those bounds.
    """
    base, limits = baseline_metrics(records), hard(constraints)
    misses = []
    for record in records:
        values = _known(record)
        broken = [(c, x) for c, x in _excesses(record, values, limits, base) if x > _MET]
        if broken:
            misses.append(Miss(record, tuple(sorted(broken, key=lambda item: -item[1])), values))
    return sorted(misses, key=lambda miss: miss.broken[0][1])[:count]


def binding(records: Sequence[TrialRecord], constraints: Sequence[Constraint]) -> tuple[Constraint, float] | None:
    """Return the constraint that binds: the one whose best trial comes least near, and by how much it fails.

    Constraints that some trials meet, but never together, bind as the one that the nearest miss breaks most. None when a
    trial meets them all, or none was completed.
    """
    base, limits = baseline_metrics(records), hard(constraints)
    done = [r for r in records if r.complete]
    if not done or any(feasible(r.metrics, limits, base) for r in done):
        return None
    least: dict[Constraint, float] = {}
    for record in records:
        for each, excess in _excesses(record, _known(record), limits, base):
            least[each] = min(excess, least.get(each, excess))
    worst = max(least.items(), key=lambda item: item[1])
    return worst if worst[1] > _MET else nearest_misses(records, limits, 1)[0].broken[0]


def _known(record: TrialRecord) -> Mapping[str, float]:
    if record.complete:
        return record.metrics
    return record.preview.metrics if record.preview is not None and record.state == "stopped" else {}


def _excesses(
    record: TrialRecord, values: Mapping[str, float], limits: Sequence[Constraint], base: Mapping[str, float]
) -> list[tuple[Constraint, float]]:
    """Return how much a trial breaks each bound; of a trial that was stopped, only those on what was measured."""
    return [(c, c.excess(values, base)) for c in limits if record.complete or c.metric in values]
