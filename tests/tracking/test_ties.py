from __future__ import annotations

from dataclasses import replace
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from paretrim.tracking.front import Objective
from paretrim.tracking.records import TrialRecord
from paretrim.tracking.testing import sample_record
from paretrim.tracking.ties import ties_of

LATENCY = Objective("latency_ms", noise=0.03)
ACCURACY = Objective("accuracy", maximize=True)
# Few different values, so that ties are frequent.
VALUES = st.one_of(st.sampled_from([0.5, 0.51, 0.52, 1.0, 1.01, 1.04]), st.floats(0.001, 1000))
NUMBERS = range(8)
PAIRS = [frozenset((sample_record(a).sha256, sample_record(b).sha256)) for a, b in combinations(NUMBERS, 2)]


@st.composite
def fronts(draw: st.DrawFn) -> list[TrialRecord]:
    """Give trials of a few latencies, some of which are of one artifact."""
    records = [sample_record(n, latency_ms=draw(VALUES), accuracy=draw(VALUES)) for n in NUMBERS]
    twin = draw(st.booleans())
    return [replace(records[0], number=9), *records] if twin else records


def tied(
    records: list[TrialRecord], objective: Objective, alike: set[frozenset[str]] | None = None
) -> set[tuple[int, int]]:
    """Return the pairs that tie by one objective, each way round."""
    found = ties_of(records, [objective], {} if alike is None else {objective.name: alike})
    return {(number, other) for number, names in found.items() for other in names.get(objective.name, ())}


@given(fronts())
def test_costs_tie_within_classes_and_each_point_is_in_one(records: list[TrialRecord]) -> None:
    pairs = tied(records, LATENCY)
    classes: dict[float, set[int]] = {}
    for record in records:
        classes.setdefault(LATENCY.box(record.metrics["latency_ms"]), set()).add(record.number)
    assert pairs == {(a, b) for members in classes.values() for a in members for b in members if a != b}


@given(fronts(), st.sets(st.sampled_from(PAIRS)))
def test_a_tie_holds_both_ways_and_never_with_oneself(records: list[TrialRecord], alike: set[frozenset[str]]) -> None:
    for pairs in (tied(records, LATENCY), tied(records, ACCURACY, alike)):
        assert {(b, a) for a, b in pairs} == pairs
        assert not any(a == b for a, b in pairs)


@given(fronts(), st.sets(st.sampled_from(PAIRS)))
def test_scores_tie_as_they_were_compared_and_not_by_their_values(
    records: list[TrialRecord], alike: set[frozenset[str]]
) -> None:
    wanted = {
        (a.number, b.number)
        for a in records
        for b in records
        if a is not b and (a.sha256 == b.sha256 or frozenset((a.sha256, b.sha256)) in alike)
    }
    assert tied(records, ACCURACY, alike) == wanted


def test_ties_of_scores_need_not_chain() -> None:
    a, b, c = (sample_record(n) for n in (3, 4, 5))
    alike = {frozenset((a.sha256, b.sha256)), frozenset((b.sha256, c.sha256))}
    assert tied([a, b, c], ACCURACY, alike) == {(3, 4), (4, 3), (4, 5), (5, 4)}


def test_before_scores_are_compared_only_equal_ones_tie() -> None:
    records = [sample_record(3, accuracy=0.9), sample_record(4, accuracy=0.9), sample_record(5, accuracy=0.8999)]
    assert tied(records, ACCURACY) == {(3, 4), (4, 3)}


def test_two_trials_of_one_artifact_tie_in_its_score() -> None:
    first = sample_record(3)
    assert tied([first, replace(first, number=4)], ACCURACY, set()) == {(3, 4), (4, 3)}


def test_a_point_without_ties_has_none_under_any_objective() -> None:
    records = [sample_record(3, latency_ms=1.0, accuracy=0.9), sample_record(4, latency_ms=2.0, accuracy=0.8)]
    assert ties_of(records, [LATENCY, ACCURACY], {}) == {3: {}, 4: {}}
