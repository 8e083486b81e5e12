"""The order of the halving against a brute-force one, and what it would have done with trials that were recorded."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paretrim.evaluators.measurement import Measurement
from paretrim.search.halving import Halving, RungEntry, Verdict, order, place_of, spread
from paretrim.tracking.front import Objective, hypervolume, trial_front
from paretrim.tracking.records import TrialRecord

DATA = Path(__file__).resolve().parents[1] / "data"
OBJECTIVES = (
    Objective("accuracy", maximize=True),
    Objective("latency_ms", noise=0.03),
    Objective("size_bytes"),
    Objective("memory_bytes", noise=0.05),
)

# The order: small numbers, so that there are ties, duplicates and several ranks.

_numbers = st.one_of(st.integers(-3, 3).map(float), st.sampled_from([math.inf, -math.inf, math.nan]))
_rungs = st.integers(1, 4).flatmap(
    lambda objectives: st.lists(
        st.tuples(st.tuples(*[_numbers] * objectives), st.sampled_from([0.0, 0.0, 0.0, 0.5, 2.0, math.inf])),
        min_size=1,
        max_size=24,
    )
)


def entries_of(given: Sequence[tuple[tuple[float, ...], float]]) -> list[RungEntry]:
    return [RungEntry(i * 3, 1, values, violation) for i, (values, violation) in enumerate(given)]


def dominates(one: RungEntry, other: RungEntry) -> bool:
    pairs = [*zip(one.values, other.values, strict=True)]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def brute_force(entries: Sequence[RungEntry]) -> dict[int, tuple[float, int]]:
    """Return each trial's violation and rank: the front is peeled off again and again."""
    known = [e if e.violation < math.inf and not any(map(math.isnan, e.values)) else None for e in entries]
    cleared = [
        RungEntry(e.trial, 1, tuple(math.inf if math.isnan(v) else v for v in e.values), e.violation if k else math.inf)
        for e, k in zip(entries, known, strict=True)
    ]
    found: dict[int, tuple[float, int]] = {}
    for violation in {e.violation for e in cleared}:
        left, rank = [e for e in cleared if e.violation == violation], 0
        while left:
            best = [e for e in left if not any(dominates(other, e) for other in left)]
            found |= {e.trial: (violation, rank) for e in best}
            left, rank = [e for e in left if e not in best], rank + 1
    return found


@settings(max_examples=300, deadline=None)
@given(_rungs, st.randoms(use_true_random=False))
def test_order_is_that_of_a_brute_force_sort(
    given: list[tuple[tuple[float, ...], float]], chance: random.Random
) -> None:
    entries = entries_of(given)
    ordered, expected = order(entries), brute_force(entries)
    assert sorted(ordered) == [e.trial for e in entries]
    assert [expected[trial] for trial in ordered] == sorted(expected.values())

    shuffled = chance.sample(entries, len(entries))
    assert order(shuffled) == ordered
    assert [place_of(trial, shuffled) for trial in ordered] == [*range(1, len(entries) + 1)]


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 4).flatmap(lambda m: st.lists(st.tuples(*[st.floats(-5, 5)] * m), min_size=1, max_size=20)))
def test_spread_begins_with_the_best_in_each_and_goes_on_with_the_farthest(points: list[tuple[float, ...]]) -> None:
    values = np.array(points)
    ordered = spread(values)
    assert sorted(ordered) == [*range(len(points))]
    best = {float(values[:, j].min()) for j in range(values.shape[1])}
    begin = ordered[: values.shape[1]]
    assert best <= {float(v) for v in values[begin].min(axis=0)}
    span = np.ptp(values, axis=0)
    unit = (values - values.min(axis=0)) / np.where(span > 0, span, 1.0)
    for position in range(values.shape[1], len(points)):
        gaps = [min(np.linalg.norm(unit[i] - unit[j]) for j in ordered[:position]) for i in ordered[position:]]
        assert gaps[0] == pytest.approx(max(gaps))


def test_a_few_points_in_order() -> None:
    entries = [
        RungEntry(1, 1, (5.0, 5.0)),  # beaten by all of the first rank
        RungEntry(2, 1, (0.0, 4.0)),  # best in the first objective
        RungEntry(3, 1, (4.0, 0.0)),  # best in the second
        RungEntry(4, 1, (3.9, 0.1)),  # beside the one before
        RungEntry(5, 1, (2.0, 2.0)),  # between the two ends
        RungEntry(6, 1, (0.0, 0.0), 0.2),  # breaks a constraint
        RungEntry(7, 1, (0.0, 0.0), 0.1),  # breaks it by less
        RungEntry(8, 1, (math.nan, 0.0)),
        RungEntry(9, 1, (2.0, 2.0)),  # the same as the fifth
    ]
    assert order(entries) == [2, 3, 5, 4, 9, 1, 7, 6, 8]


def test_place_of_a_stranger() -> None:
    with pytest.raises(ValueError, match="trial 7 is not among the 1 entries; enter it first"):
        place_of(7, [RungEntry(0, 1, (1.0,))])


# The rungs.


@pytest.mark.parametrize(
    ("longest", "reduction", "grace", "expected"),
    [(8, 2, 1, (1, 2, 4)), (9, 3, 1, (1, 3)), (9, 2, 2, (2, 4, 8)), (4, 2, 1, (1, 2)), (1, 2, 1, ()), (0, 2, 1, ())],
)
def test_rungs(longest: int, reduction: int, grace: int, expected: tuple[int, ...]) -> None:
    assert Halving(longest, reduction, grace).epochs == expected
