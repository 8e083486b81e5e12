"""The front: the trials that no other trial beats. Pure arithmetic.

Differences within the noise are ties. Each objective has a box width that is fixed for the search, and points are
compared by the box they fall in: comparing boxes is transitive, so the front is never empty and has no cycles, which
comparing overlapping intervals would not guarantee (Laumanns et al., "Combining Convergence and Diversity in
Evolutionary Multiobjective Optimization", 2002).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from paretrim.tracking.constraints import Constraint, hard
from paretrim.tracking.records import BASELINE, TrialRecord
from paretrim.tracking.settled import at_its_best, crowded

Metrics = Mapping[str, float]
# The hypervolume's box in each objective: from as good as can be (0) to the reference (1).
SCORE_RANGE = 0.10
"""Of a score: the half of the hypervolume's box, as a share of the baseline's where that is above 1."""


@dataclass(frozen=True)
class Objective:
    """What is optimized.

    Attributes:
        name: A metric.
        maximize: Whether more is better.
        noise: Width of a tie, as a share of the value; zero compares exactly.
    """

    name: str
    maximize: bool = False
    noise: float = 0.0

    def box(self, value: float) -> float:
        """Return a number that is smaller for better values and equal for ties."""
        if self.noise == 0.0:
            return -value if self.maximize else value
        if value <= 0.0:
            return math.inf if self.maximize else -math.inf
        step = math.floor(math.log(value) / math.log1p(self.noise))
        return float(-step if self.maximize else step)


def front(points: Sequence[Metrics], objectives: Sequence[Objective]) -> list[int]:
    """Return the positions of the points that no other point dominates, in the given order.

    A point dominates another when its boxes are nowhere worse and somewhere better; ties in all boxes both stay.
    """
    import moocore  # noqa: PLC0415 - slow to import, and `paretrim --help` must not wait for it

    boxes = np.array([[o.box(point[o.name]) for o in objectives] for point in points], dtype=np.float64)
    return np.flatnonzero(moocore.is_nondominated(boxes, keep_weakly=True)).tolist() if len(points) else []


def feasible(metrics: Metrics, constraints: Sequence[Constraint], baseline: Metrics) -> bool:
    """Tell whether a point meets all constraints but the soft ones, which take nothing off the front."""
    return all(constraint.met(metrics, baseline) for constraint in hard(constraints))


def trial_front(
    records: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
    *,
    disturbed: bool = False,
) -> list[TrialRecord]:
    """Return the complete and feasible trials that no other such trial beats, best in the first objective first.

    Args:
        records: All trials that ended.
        objectives: What is compared.
        constraints: What a point must meet.
        disturbed: Whether trials count whose latency was disturbed. The baseline always does: others are timed against
            it.
    """
    candidates = _candidates(records, constraints, disturbed=disturbed)
    chosen = [candidates[i] for i in front([r.metrics for r in candidates], objectives)]
    return sorted(chosen, key=lambda r: [o.box(r.metrics[o.name]) for o in objectives])


def contenders(
    records: Sequence[TrialRecord], objectives: Sequence[Objective], constraints: Sequence[Constraint]
) -> list[TrialRecord]:
    """Return the trials of the front, and those that would be on it if disturbed latencies counted, at their best.

    Args:
        records: All trials that ended.
        objectives: What is compared.
        constraints: What a point must meet.
    """
    hopeful = [at_its_best(each) if crowded(each) else each for each in records]
    return [
        *trial_front(records, objectives, constraints),
        *trial_front(hopeful, objectives, constraints, disturbed=True),
    ]


def baseline_metrics(records: Sequence[TrialRecord]) -> dict[str, float]:
    """Return the baseline's measurements, or nothing when it is not done yet."""
    return next((r.metrics for r in records if r.kind == BASELINE and r.complete), {})


def _candidates(
    records: Sequence[TrialRecord], constraints: Sequence[Constraint], *, disturbed: bool
) -> list[TrialRecord]:
    base = baseline_metrics(records)
    return [r for r in records if _counts(r, constraints, base, disturbed=disturbed)]


def _counts(record: TrialRecord, constraints: Sequence[Constraint], base: Metrics, *, disturbed: bool) -> bool:
    quiet = disturbed or record.kind == BASELINE or not crowded(record)
    return record.complete and quiet and feasible(record.metrics, constraints, base)


def hypervolume(
    records: Sequence[TrialRecord], objectives: Sequence[Objective], constraints: Sequence[Constraint]
) -> float:
    """Return the share of a fixed box that the front dominates.

    The box is fixed by the baseline: for a metric that is minimized, from nothing to twice the baseline's value, since
    a smaller file may need a little more memory or time; for one that is maximized, from 0.1 below the baseline (a
    tenth of its size for values above one) to as much above it.

    Returns:
        A number from 0 to 1.
    """
    base = baseline_metrics(records)
    found = [place(record, objectives, constraints, base) for record in records]
    return volume([point for point in found if point is not None])


def place(
    record: TrialRecord, objectives: Sequence[Objective], constraints: Sequence[Constraint], baseline: Metrics
) -> Sequence[float] | None:
    """Return where a trial lies in the box of `hypervolume`: 0 is as good as can be, 1 the reference.

    Args:
        record: The trial.
        objectives: What is compared.
        constraints: What a point must meet.
        baseline: The baseline's measurements; empty while it is not done.

    Returns:
        A number for each objective; None for a trial that does not count, or lies outside.
    """
    if not baseline or not _counts(record, constraints, baseline, disturbed=False):
        return None
    point = [normalized(o, record.metrics[o.name], baseline[o.name]) for o in objectives]
    return [max(0.0, x) for x in point] if all(x < 1.0 for x in point) else None


def volume(points: Sequence[Sequence[float]]) -> float:
    """Return the share of the box, from 0 to 1 in each direction, that points dominate."""
    import moocore  # noqa: PLC0415 - as above

    return float(moocore.hypervolume(np.asarray(points), ref=[1.0] * len(points[0]))) if len(points) else 0.0


def normalized(objective: Objective, value: float, base: float) -> float:
    """Return a value's place in the box of `hypervolume`, in one objective: 0 is as good as can be, 1 the reference."""
    if not objective.maximize:
        return value / (2 * base) if base > 0 else float(value > base)
    half = reach(objective, base)
    return (base + half - value) / (2 * half)


def reach(objective: Objective, base: float) -> float:
    """Return by how much a value may be worse than the baseline's and still lie in the box of `hypervolume`."""
    if not objective.maximize and base > 0:
        return base
    return SCORE_RANGE * max(1.0, abs(base))
