"""What is said when the front is empty."""

from __future__ import annotations

import math
from collections.abc import Sequence

from paretrim.tracking.constraints import Constraint
from paretrim.tracking.nearmisses import Miss, binding, nearest_misses
from paretrim.tracking.records import TrialRecord
from paretrim.tracking.report import Report
from paretrim.tracking.settled import crowded


def why_empty(report: Report, records: Sequence[TrialRecord], bounds: Sequence[Constraint]) -> str:
    """Say which constraint binds, by how much, and the nearest misses; empty when something is feasible."""
    bound = binding(records, bounds)
    if bound is None:
        disturbed = sum(r.complete and crowded(r) for r in records)
        if not disturbed or report.front:
            return ""
        return (
            f"{disturbed} trials meet the constraints or may, but were timed while others kept the machine busy; take them "
            f"again when it is quieter, with: paretrim resume {report.job}"
        )
    constraint, excess = bound
    reference = {**report.baseline.validation, **report.baseline.metrics}
    least = f"missed by {excess:.1%} at the least" if math.isfinite(excess) else "which was measured of no trial"
    head = (
        f"no trial meets all constraints; the one that binds is '{constraint.text}' "
        f"(that is {constraint.metric} {'<=' if constraint.upper else '>='} {constraint.limit(reference):.6g}), "
        f"{least}. Nearest misses:"
    )
    return "\n".join([head, *(_line(miss) for miss in nearest_misses(records, bounds))])


def _line(miss: Miss) -> str:
    found = [
        f"{c.metric} {miss.values[c.metric]:.6g} (by {excess:.1%})"
        if c.metric in miss.values
        else f"{c.metric} unknown"
        for c, excess in miss.broken
    ]
    when = "" if miss.record.complete else ", not trained, measured as it was before"
    return f"  trial {miss.record.number} ({miss.record.kind}{when}): {', '.join(found)}"
