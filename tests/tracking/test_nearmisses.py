from __future__ import annotations

from dataclasses import replace

import pytest

from paretrim.evaluators.measurement import Measurement
from paretrim.tracking.constraints import parse
from paretrim.tracking.nearmisses import binding, nearest_misses
from paretrim.tracking.records import Preview, TrialRecord
from paretrim.tracking.testing import sample_record

BASE = sample_record(0, latency_ms=2.0)
BOUNDS = [parse("accuracy >= 0.8"), parse("latency_ms <= 1.0")]


def stopped(number: int, latency_ms: float) -> TrialRecord:
    preview = Preview((Measurement("latency_ms", latency_ms),))
    return replace(sample_record(number, state="stopped", cause="not trained"), preview=preview)


def test_a_candidate_that_was_never_trained_can_come_nearest() -> None:
    records = [BASE, sample_record(3, latency_ms=1.8), stopped(4, 1.2)]
    misses = nearest_misses(records, BOUNDS)
    assert [miss.record.number for miss in misses] == [4, 3, 0]
    assert misses[0].values == {"latency_ms": 1.2}
    ((broken, excess),) = misses[0].broken
    assert broken.metric == "latency_ms"
    assert excess == pytest.approx(0.2)


def test_what_was_not_measured_of_a_stopped_candidate_is_not_held_against_it() -> None:
    misses = nearest_misses([BASE, stopped(4, 1.2)], BOUNDS)
    assert all(c.metric != "accuracy" for c, _ in misses[0].broken)


def test_a_stopped_candidate_within_all_that_was_measured_is_no_miss() -> None:
    assert [miss.record.number for miss in nearest_misses([BASE, stopped(4, 0.9)], BOUNDS)] == [0]


def test_the_least_that_was_measured_before_training_says_what_binds() -> None:
    bound = binding([BASE, sample_record(3, latency_ms=1.8), stopped(4, 1.2)], BOUNDS)
    assert bound is not None
    assert bound[0].metric == "latency_ms"
    assert bound[1] == pytest.approx(0.2)


def test_a_bound_that_a_stopped_candidate_met_does_not_bind_alone() -> None:
    records = [BASE, sample_record(3, accuracy=0.4, latency_ms=1.8), stopped(4, 0.9)]
    bounds = [parse("accuracy >= 0.95"), parse("latency_ms <= 1.0")]
    bound = binding(records, bounds)
    assert bound is not None
    assert bound[0].metric == "accuracy"


def test_soft_constraints_neither_bind_nor_are_missed() -> None:
    soft = [parse("prefer latency_ms <= 1.0")]
    assert binding([BASE, stopped(4, 1.2)], soft) is None
    assert nearest_misses([BASE, stopped(4, 1.2)], soft) == []
    misses = nearest_misses([BASE], [*soft, parse("accuracy >= 0.99")])
    assert [c.metric for c, _ in misses[0].broken] == ["accuracy"]
