"""The last phase: the best points are trained longer, each from several seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from paretrim.search.sections import Finals
from paretrim.spaces.recipe import Recipe
from paretrim.tracking.constraints import Constraint
from paretrim.tracking.front import Objective, baseline_metrics, place, trial_front, volume
from paretrim.tracking.records import TrialRecord

FINAL = "final"
"""The kind of these trials."""

_EPOCHS = "recovery.epochs"


def finalists(
    records: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
    settings: Finals,
) -> list[TrialRecord]:
    """Return the trained points that together dominate most, the one that dominates most first.

    Args:
        records: All trials that ended.
        objectives: What is compared.
        constraints: What a point must meet.
        settings: How many.
    """
    base = baseline_metrics(records)
    points = {r.number: place(r, objectives, constraints, base) for r in records}
    known = {number: point for number, point in points.items() if point is not None}
    front = trial_front(records, objectives, constraints)
    left = [r for r in front if r.kind != FINAL and r.epochs and r.number in known]
    chosen: list[TrialRecord] = []
    while left and len(chosen) < settings.points:
        best = max(left, key=lambda r: volume([known[each.number] for each in (*chosen, r)]))
        chosen.append(best)
        left.remove(best)
    return chosen


def recipes(chosen: Sequence[TrialRecord], settings: Finals, seed: int) -> list[Recipe]:
    """Return the recipes of the last phase.

    Args:
        chosen: The points.
        settings: How much longer, and from how many seeds.
        seed: Of the search.
    """
    found = []
    for record in chosen:
        epochs = math.ceil(Recipe.of(record.recipe).number(_EPOCHS) * settings.longer)
        for turn in range(settings.seeds):
            # No trial of the search has such a seed: theirs come from numbers below a million.
            own = seed * 1_000_003 + 500_000 + 1000 * turn + record.number % 1000
            found.append(Recipe.of({**record.recipe, _EPOCHS: epochs}, own))
    return found
