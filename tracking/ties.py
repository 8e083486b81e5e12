"""Which points of a front are not told apart by what was measured."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from paretrim.tracking.front import Objective
from paretrim.tracking.records import TrialRecord

Ties = Mapping[str, tuple[int, ...]]


def ties_of(
    records: Sequence[TrialRecord], objectives: Sequence[Objective], alike: Mapping[str, Collection[frozenset[str]]]
) -> dict[int, Ties]:
    """Return, for each trial and each objective, the other trials that it ties with.

    Costs tie within their box, the width of which is fixed for the search. Scores tie when the difference on the same
    samples, in pairs, may be none.

    Args:
        records: The points of a front.
        objectives: What is compared.
        alike: By objective, the pairs of artifacts whose scores were compared and not told apart.
    """
    return {
        record.number: {
            o.name: found
            for o in objectives
            if (found := tuple(r.number for r in records if r is not record and _tied(record, r, o, alike)))
        }
        for record in records
    }


def _tied(
    a: TrialRecord, b: TrialRecord, objective: Objective, alike: Mapping[str, Collection[frozenset[str]]]
) -> bool:  # fmt: skip
    ours, theirs = a.metrics[objective.name], b.metrics[objective.name]
    if objective.name in alike:
        return frozenset((a.sha256, b.sha256)) in alike[objective.name] or a.sha256 == b.sha256
    return objective.box(ours) == objective.box(theirs)
