"""The judge: what it stops and when, and that one built from records decides as if it had never been away."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paretrim.evaluators.measurement import Measurement
from paretrim.search.candidate import Candidate
from paretrim.search.halving import Halving
from paretrim.search.judge import Lenient, Terms, Thrift
from paretrim.search.news import News
from paretrim.search.study import Asked
from paretrim.spaces.recipe import Recipe
from paretrim.tracking.constraints import parse
from paretrim.tracking.front import Objective
from paretrim.tracking.records import Epoch, Preview, TrialRecord

OBJECTIVES = (Objective("accuracy", maximize=True), Objective("size_bytes"), Objective("latency_ms", noise=0.03))
TERMS = Terms("accuracy", OBJECTIVES, (parse("size_bytes <= 90% of baseline"), parse("accuracy >= baseline - 0.1")))
LONGEST = 8


def preview_of(size: float, latency: float = 0.5) -> Preview:
    return Preview((Measurement("size_bytes", size), Measurement("latency_ms", latency)))


def completed(candidate: Candidate, score: float) -> TrialRecord:
    preview = candidate.preview or preview_of(1000.0, 1.0)
    found = (*preview.measurements, Measurement("accuracy", score))
    return replace(candidate.ended("complete", ""), measurements=found)


def a_candidate(number: int, preview: Preview | None = None, kind: str = "search") -> Candidate:
    found = Candidate(Asked(number, kind, Recipe.of({"recovery.epochs": LONGEST}, number)))
    if preview is not None:
        found.hear(News(preview, {}))
    return found


def learn(candidate: Candidate, score: float | None) -> Candidate:
    candidate.hear(News(Epoch(0.5, score), {"recover": 1.0}))
    return candidate


BASE = completed(a_candidate(0, kind="baseline"), 0.9)


def thrift(earlier: Sequence[TrialRecord] = (), terms: Terms = TERMS) -> Thrift:
    return Thrift(terms, Halving(LONGEST, 2), earlier)


Event = tuple[str, int]
SCORES = [0.3, 0.5, 0.7, 0.9, None, math.nan]


@settings(max_examples=60)
@given(st.data())
def test_a_judge_that_is_built_again_decides_the_same(data: st.DataObject) -> None:
    judge, records = thrift(), list[TrialRecord]()
    # The baseline may end at any time; the trials begin, learn and end in any order.
    live: dict[int, Candidate] = {}
    waiting = iter(range(1, 13))
    baseline = data.draw(st.integers(0, 20))
    for turn in range(70):
        if turn == baseline:
            records.append(BASE)
        number = data.draw(st.sampled_from([*live, *([0] if len(live) < 4 else [])]))
        if number == 0:
            number = next(waiting, 0)
            if not number:
                break
            live[number] = a_candidate(number, preview_of(data.draw(st.integers(1, 20)) * 50.0))
            continue
        candidate = learn(live[number], data.draw(st.sampled_from(SCORES)))
        why = judge.verdict(candidate, records)
        failed = not why and data.draw(st.integers(0, 15)) == 0
        if why or failed or len(candidate.epochs) == LONGEST:
            state = "stopped" if why else "failed"
            done = len(candidate.epochs) == LONGEST and not why and not failed
            record = completed(live.pop(number), 0.8) if done else live.pop(number).ended(state, why or "died")  # type: ignore[arg-type]
            if failed:
                record = replace(record, epochs=(), preview=None)  # as the record of a trial that raises
            records.append(record)
            judge.ended(record)
    for candidate in live.values():  # given up
        judge.ended(candidate.ended("failed", "died"))
    records = records if BASE in records else [*records, BASE]
    again = thrift([TrialRecord.from_json(r.to_json()) for r in sorted(records, key=lambda r: r.number)])
    for trial in range(20, 25):
        size = data.draw(st.integers(1, 20)) * 50.0
        course = data.draw(st.lists(st.sampled_from(SCORES), min_size=LONGEST, max_size=LONGEST))
        one, other = a_candidate(trial, preview_of(size)), a_candidate(trial, preview_of(size))
        for score in course:
            verdicts = judge.verdict(learn(one, score), records), again.verdict(learn(other, score), records)
            assert verdicts[0] == verdicts[1]


def run(judge: Thrift, number: int, size: float, score: float, records: Sequence[TrialRecord]) -> str:
    """Run a trial for an epoch."""
    return judge.verdict(learn(a_candidate(number, preview_of(size)), score), records)


def test_who_falls_behind_is_stopped_and_told_why() -> None:
    judge = thrift()
    for number in range(1, 7):
        assert not run(judge, number, 100.0 * number, 0.5 + 0.05 * number, [BASE])
    why = run(judge, 7, 700.0, 0.4, [BASE])
    assert why == "stopped after epoch 1: place 7 of 7 trials at that epoch, of which the best 6 go on"
    assert not run(judge, 8, 50.0, 0.4, [BASE])  # the smallest of all


def test_a_trial_that_failed_is_compared_with_nobody() -> None:
    judge = thrift()
    for number in range(1, 7):
        run(judge, number, 100.0 * number, 0.9, [BASE])
    assert run(judge, 7, 700.0, 0.4, [BASE])
    for number in range(1, 7):
        judge.ended(a_candidate(number).ended("failed", "died"))
    assert not run(judge, 8, 700.0, 0.4, [BASE])


@pytest.mark.parametrize("kind", ["float16", "final"])
def test_neither_anchors_nor_finalists_are_stopped(kind: str) -> None:
    judge, records = thrift(), [BASE, completed(a_candidate(1, preview_of(1.0, 0.001)), 1.0)]
    assert judge.verdict(a_candidate(9, preview_of(9000.0, 9.0)), records)
    assert not judge.verdict(a_candidate(9, preview_of(9000.0, 9.0), kind), records)
    for number in range(2, 9):
        run(judge, number, 50.0, 0.9, records)
    assert run(judge, 9, 800.0, 0.1, records)
    assert not judge.verdict(learn(a_candidate(10, preview_of(800.0), kind), 0.1), records)


def test_nothing_is_stopped_that_was_not_previewed_nor_before_the_baseline() -> None:
    judge = thrift()
    for number in range(1, 20):
        assert not judge.verdict(learn(a_candidate(number), 0.9 - number / 100), [BASE])
        assert not run(judge, number + 20, 100.0 * number, 0.9 - number / 100, [])
    assert not judge.verdict(a_candidate(40, preview_of(9000.0, 9.0)), [])


def test_without_rungs_the_gate_alone_stops() -> None:
    judge = Thrift(TERMS, None, [])
    for number in range(1, 20):
        assert not run(judge, number, 100.0 + number, 0.9 - number / 100, [BASE])
    assert "breaks 'size_bytes <= 90% of baseline'" in judge.verdict(a_candidate(30, preview_of(2000.0)), [BASE])
    judge.ended(a_candidate(30).ended("failed", "died"))


def test_what_is_hoped_of_a_recipe_may_stop_it_where_the_best_score_does_not() -> None:
    good = completed(a_candidate(1, preview_of(100.0, 0.1)), 0.9)
    records = [BASE, good, completed(a_candidate(2, preview_of(800.0, 0.9)), 0.99)]
    candidate, asked = a_candidate(3, preview_of(600.0, 0.8)), list[Recipe]()

    def hope(seen: Sequence[TrialRecord], recipe: Recipe) -> float | None:
        assert seen is records
        asked.append(recipe)
        return hoped.pop(0)

    judge, hoped = Thrift(TERMS, None, records, hope), [None, 0.95, 0.85]
    assert not judge.verdict(candidate, records)
    assert not judge.verdict(candidate, records)
    why = judge.verdict(candidate, records)
    assert "trial 1 is no worse anywhere" in why
    assert asked == [candidate.asked.recipe] * 3


def test_who_is_lenient_stops_nothing() -> None:
    poor = learn(a_candidate(9, preview_of(1e9)), 0.0)
    assert Lenient().verdict(poor, [BASE]) == ""
    Lenient().ended(BASE)
