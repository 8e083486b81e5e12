from __future__ import annotations

import csv
import io
import random
from collections.abc import Mapping
from dataclasses import replace

import pytest

from paretrim.tracking.constraints import parse
from paretrim.tracking.front import hypervolume
from paretrim.tracking.progress import progress, to_csv, training_seconds
from paretrim.tracking.records import TrialRecord
from paretrim.tracking.testing import OBJECTIVES, sample_record


def timed(record: TrialRecord, **seconds: float) -> TrialRecord:
    return replace(record, seconds=seconds)


def random_records(count: int) -> list[TrialRecord]:
    dice = random.Random(4)

    def metrics() -> Mapping[str, float]:
        return {
            "accuracy": dice.uniform(0.75, 0.95),
            "latency_ms": dice.uniform(0.2, 2.5),
            "size_bytes": dice.uniform(1e4, 2.2e5),
            "memory_bytes": dice.uniform(5e5, 3e6),
        }

    return [sample_record(0), *(sample_record(number, metrics()) for number in range(3, 3 + count))]


@pytest.mark.parametrize("bounds", [[], ["accuracy >= baseline - 0.05", "latency_ms <= 150% of baseline"]])
def test_each_step_is_the_hypervolume_of_the_trials_up_to_it(bounds: list[str]) -> None:
    records, constraints = random_records(60), [parse(text) for text in bounds]
    steps = progress(records, OBJECTIVES, constraints)
    for count, step in enumerate(steps, 1):
        assert step.hypervolume == pytest.approx(hypervolume(records[:count], OBJECTIVES, constraints), abs=1e-12)
    assert steps[-1].hypervolume > steps[0].hypervolume > 0


def test_trials_without_a_latency_that_counts_add_nothing() -> None:
    records = [sample_record(0), sample_record(3, latency_ms=0.1, latency_crowded=1.0)]
    first, second = progress(records, OBJECTIVES, [])
    assert first.hypervolume == second.hypervolume


def test_training_is_recovery_and_the_making_of_a_parent() -> None:
    record = timed(sample_record(3), recover=2.0, parent=3.0, lower=10.0, measure=10.0)
    assert training_seconds(record) == 5.0
    assert training_seconds(timed(record, lower=10.0)) == 0.0


def test_seconds_add_up_by_number_and_failures_cost_theirs() -> None:
    records = [
        timed(sample_record(4, state="stopped"), recover=4.0),
        timed(sample_record(0), lower=1.0),
        timed(sample_record(3, state="failed"), recover=2.0),
    ]
    steps = progress(records, OBJECTIVES, [], before=1.5)
    assert [(step.trial, step.training_seconds, step.state) for step in steps] == [
        (0, 1.5, "complete"),
        (3, 3.5, "failed"),
        (4, 7.5, "stopped"),
    ]


def test_without_a_baseline_the_hypervolume_is_zero() -> None:
    steps = progress([sample_record(0, state="failed"), sample_record(3)], OBJECTIVES, [])
    assert [step.hypervolume for step in steps] == [0.0, 0.0]
    assert progress([], OBJECTIVES, []) == ()


def test_steps_are_written_as_csv() -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(progress([sample_record(0)], OBJECTIVES, [])))))
    assert [(row["trial"], row["state"], row["training_seconds"]) for row in rows] == [("0", "complete", "1.5")]
    assert float(rows[0]["hypervolume"]) == pytest.approx(0.5**4)
