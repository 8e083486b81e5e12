"""The gate before training: whether a candidate could still matter, from what was measured of it untrained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from paretrim.tracking.constraints import Constraint, hard
from paretrim.tracking.front import Objective, baseline_metrics, trial_front
from paretrim.tracking.records import Preview, TrialRecord

SIZE = "size_bytes"
# Before any trial has shown how far training changes what a packed file weighs.
_FLOOR_UNKNOWN = 0.7
_MARGIN = 0.95
_FEW = 5


@dataclass(frozen=True)
class Gate:
    """What candidates are held against.

    Attributes:
        metric: Name of the job's metric.
        objectives: What is optimized.
        constraints: What a candidate must meet; soft ones stop none.
    """

    metric: str
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]

    def why_hopeless(self, preview: Preview, records: Sequence[TrialRecord], hope: float | None = None) -> str:
        """Return why a candidate cannot matter, or nothing when it might.

        Args:
            preview: What was measured of it.
            records: All trials that ended.
            hope: The best score that it could reach; by default the best that any trial reached.
        """
        base = baseline_metrics(records)
        if not base:
            return ""
        floor = best_case(preview, records, self.objectives)
        for each in hard(self.constraints):
            if each.factor and each.metric not in base:
                continue  # nobody knows what it asks for
            if each.upper and each.metric in floor and not each.met(floor, base):
                return (
                    f"not trained: {each.metric} is {preview.metrics[each.metric]:.6g} and would be {floor[each.metric]:.6g} "
                    f"at best, which breaks '{each.text}'"
                )
        return self._beaten(floor, records, hope)

    def _beaten(self, floor: Mapping[str, float], records: Sequence[TrialRecord], hope: float | None) -> str:
        costs = [o for o in self.objectives if o.name != self.metric]
        scored = next((o for o in self.objectives if o.name == self.metric), None)
        if not costs or any(o.name not in floor for o in costs):
            return ""  # something of it is known only when it is trained
        front = trial_front(records, self.objectives, self.constraints)
        reach = None if scored is None else _reach(scored, records, hope)
        for record in front:
            metrics = record.metrics
            if scored is not None and reach is not None and scored.box(metrics[scored.name]) > scored.box(reach):
                continue  # the candidate may score better
            boxes = [(o.box(metrics[o.name]), o.box(floor[o.name])) for o in costs]
            if all(theirs <= own for theirs, own in boxes) and any(theirs < own for theirs, own in boxes):
                rival = ", ".join(f"{o.name} {metrics[o.name]:.6g}" for o in self.objectives)
                return f"not trained: whatever it scores, trial {record.number} is no worse anywhere ({rival})"
        return ""


def best_case(preview: Preview, records: Sequence[TrialRecord], objectives: Sequence[Objective]) -> dict[str, float]:
    """Return the least that each cost of a candidate can come out at, by its interval, its noise and earlier trials."""
    noise = {o.name: o.noise for o in objectives}
    found = {}
    for each in preview.measurements:
        value = each.value if each.low is None else each.low
        if not math.isfinite(value):
            continue  # nobody knows what it will be
        share = size_floor(records) if each.name == SIZE else 1.0 - noise.get(each.name, 0.0)
        found[each.name] = value * share
    return found


def size_floor(records: Sequence[TrialRecord]) -> float:
    """Return the least share of its untrained size that a file was seen to have after training, with a margin."""
    shares = [r.metrics[SIZE] / r.preview.metrics[SIZE] for r in records if r.complete and r.preview is not None]
    return min(shares) * _MARGIN if len(shares) >= _FEW else _FLOOR_UNKNOWN


def _reach(objective: Objective, records: Sequence[TrialRecord], hope: float | None) -> float:
    """Return the score that a rival must have for a candidate to be unable to beat it.

    A score that is known to a standard error only ties with one that is nearer than that.
    """
    done = [r for r in records if r.complete]
    sign = 1.0 if objective.maximize else -1.0
    best = max(done, key=lambda r: sign * r.metrics[objective.name])
    seen = best.metrics[objective.name]
    m = next(m for m in best.measurements if m.name == objective.name)
    error = 0.0 if m.low is None or m.high is None else (m.high - m.low) / 4
    if hope is not None:
        seen = min(seen, hope) if objective.maximize else max(seen, hope)
    return seen - sign * error
