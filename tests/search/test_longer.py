"""Which points are trained longer in the end, and with which recipes."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from paretrim.search.longer import FINAL, finalists, recipes
from paretrim.search.sections import Finals
from paretrim.spaces.recipe import Recipe
from paretrim.tracking.constraints import parse
from paretrim.tracking.front import hypervolume, place, trial_front, volume
from paretrim.tracking.records import TrialRecord
from paretrim.tracking.testing import OBJECTIVES, sample_record

RECORDS = [
    sample_record(0),
    replace(sample_record(1, size_bytes=52_000.0), epochs=()),  # plain float16 was not trained
    sample_record(3, accuracy=0.93, size_bytes=95_000.0),
    sample_record(4, accuracy=0.89, size_bytes=30_000.0, latency_ms=0.4),
    sample_record(5, accuracy=0.88, size_bytes=29_000.0, latency_ms=0.4),  # hardly anything beside trial 4
    sample_record(6, accuracy=0.87, size_bytes=31_000.0),  # dominated
    sample_record(7, accuracy=0.84, size_bytes=9_000.0, latency_ms=0.2),
    sample_record(8, state="stopped"),
]


def numbers(records: list[TrialRecord]) -> list[int]:
    return [record.number for record in records]


def test_the_points_that_dominate_most_together_come_first() -> None:
    assert numbers(finalists(RECORDS, OBJECTIVES, (), Finals(points=1))) == [4]
    assert numbers(finalists(RECORDS, OBJECTIVES, (), Finals(points=2))) == [4, 3]
    assert numbers(finalists(RECORDS, OBJECTIVES, (), Finals(points=3))) == [4, 3, 7]
    assert finalists(RECORDS, OBJECTIVES, (), Finals(points=0)) == []
    assert finalists(RECORDS[1:], OBJECTIVES, (), Finals()) == []  # nothing without the baseline


def test_only_trained_points_that_meet_the_constraints_are_finalists() -> None:
    found = numbers(finalists(RECORDS, OBJECTIVES, (parse("accuracy >= baseline - 0.015"),), Finals(points=100)))
    assert found == [4, 3]
    assert 1 not in numbers(finalists(RECORDS, OBJECTIVES, (), Finals(points=100)))


def test_a_point_that_was_trained_longer_already_is_none() -> None:
    again = replace(sample_record(9, accuracy=0.95, size_bytes=30_000.0, latency_ms=0.4), kind=FINAL)
    assert 9 not in numbers(finalists([*RECORDS, again], OBJECTIVES, (), Finals(points=100)))


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(80, 99), st.integers(1, 20), st.integers(1, 12)), max_size=10), st.integers(0, 6))
def test_each_finalist_adds_the_most_to_those_before_it(given_: list[tuple[int, int, int]], count: int) -> None:
    records = [sample_record(0)]
    for number, (score, size, latency) in enumerate(given_, 3):
        records.append(sample_record(number, accuracy=score / 100, size_bytes=size * 9e3, latency_ms=latency / 10))
    found = finalists(records, OBJECTIVES, (), Finals(points=count))
    able = [
        r for r in trial_front(records, OBJECTIVES, ()) if r.epochs and hypervolume([records[0], r], OBJECTIVES, ())
    ]
    assert len(found) <= count
    assert len(set(numbers(found))) == len(found)
    assert set(numbers(found)) <= set(numbers(able))
    base = records[0]
    for turn, each in enumerate(found):
        before = found[:turn]
        most = volume_of([*before, each], base)
        assert all(most >= volume_of([*before, other], base) - 1e-12 for other in able if other not in before)


def volume_of(chosen: list[TrialRecord], base: TrialRecord) -> float:
    """Return what some points dominate: the baseline, which gives the box, only if it is among them."""
    points = [place(record, OBJECTIVES, (), base.metrics) for record in chosen]
    return volume([point for point in points if point is not None])


def test_each_is_trained_longer_from_several_seeds() -> None:
    settings_ = Finals(longer=1.5, seeds=3)
    found = recipes([RECORDS[2], RECORDS[3]], settings_, seed=7)
    assert [recipe.number("recovery.epochs") for recipe in found] == [6.0] * 6  # of 4
    assert len({recipe.seed for recipe in found}) == 6
    for recipe in found:
        assert {**recipe.values, "recovery.epochs": 4} == dict(RECORDS[2].recipe)
    assert found == recipes([RECORDS[2], RECORDS[3]], settings_, seed=7)
    searched = {7 * 1_000_003 + number for number in range(100_000)}
    assert not searched & {recipe.seed for recipe in found}


def test_parts_of_an_epoch_are_whole_ones() -> None:
    record = replace(RECORDS[2], recipe={"recovery.epochs": 3})
    assert recipes([record], Finals(longer=1.5, seeds=1), 0)[0].values == {"recovery.epochs": 5}
    assert recipes([record], Finals(longer=1, seeds=1), 0)[0].values == {"recovery.epochs": 3}
    assert isinstance(recipes([record], Finals(), 0)[0], Recipe)
