from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretrim.evaluators.measurement import Measurement, Part
from paretrim.tracking.records import Elsewhere, Epoch, State, TrialRecord, Value
from paretrim.tracking.testing import sample_record

FINITE = st.floats(allow_nan=False, allow_infinity=False)
VALUES: st.SearchStrategy[Value] = st.one_of(
    FINITE, st.integers(-(2**53), 2**53), st.text(max_size=8), st.booleans(), st.none()
)
STATES: st.SearchStrategy[State] = st.sampled_from(("complete", "stopped", "failed"))
MEASUREMENTS = st.builds(
    Measurement,
    name=st.text(max_size=8),
    value=FINITE,
    low=st.none() | FINITE,
    high=st.none() | FINITE,
    how=st.text(max_size=8),
    parts=st.lists(st.builds(Part, st.text(max_size=8), FINITE, st.text(max_size=8)), max_size=2).map(tuple),
)
HASHES = st.text("0123456789abcdef", max_size=64)
FACTS = st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3)
ELSEWHERE = st.builds(
    Elsewhere,
    measurements=st.lists(MEASUREMENTS, max_size=2).map(tuple),
    sha256=HASHES,
    model_sha256=HASHES,
    environment=FACTS,
    cause=st.text(max_size=8),
)
RECORDS = st.builds(
    TrialRecord,
    number=st.integers(0, 10**6),
    kind=st.sampled_from(["baseline", "float16", "int8", "search"]),
    state=STATES,
    recipe=st.dictionaries(st.text(max_size=8), VALUES, max_size=4),
    seed=st.integers(0, 2**31),
    measurements=st.lists(MEASUREMENTS, max_size=3).map(tuple),
    sha256=HASHES,
    model_sha256=HASHES,
    elsewhere=st.dictionaries(st.text(max_size=8), ELSEWHERE, max_size=2),
    environment=FACTS,
    seconds=st.dictionaries(st.text(max_size=8), FINITE, max_size=3),
    epochs=st.lists(st.builds(Epoch, FINITE, st.none() | FINITE), max_size=3).map(tuple),
    cause=st.text(max_size=40),
)


@given(RECORDS)
def test_a_record_reads_back_as_it_was_written(record: TrialRecord) -> None:
    assert TrialRecord.from_json(record.to_json()) == record


@given(st.dictionaries(st.text(max_size=8), VALUES, max_size=4))
def test_values_of_a_recipe_keep_their_types(recipe: dict[str, Value]) -> None:
    read = TrialRecord.from_json(TrialRecord(3, "search", "complete", recipe).to_json()).recipe
    assert {name: type(value) for name, value in read.items()} == {name: type(value) for name, value in recipe.items()}


def test_a_measurement_that_is_not_finite_does_not_make_the_record_unreadable() -> None:
    record = TrialRecord(3, "search", "complete", measurements=(Measurement("energy_mj", math.inf),))
    assert TrialRecord.from_json(record.to_json()).metrics == {"energy_mj": math.inf}


def test_metrics_are_the_measured_values_by_name() -> None:
    assert sample_record(3, accuracy=0.5).metrics["accuracy"] == 0.5


def test_only_a_complete_trial_is_complete() -> None:
    states: list[State] = ["complete", "stopped", "failed"]
    assert [sample_record(3, state=state).complete for state in states] == [True, False, False]


def test_a_field_that_a_later_version_adds_has_a_default() -> None:
    record = TrialRecord.from_json('{"number": 3, "kind": "search", "state": "failed"}')
    assert record == TrialRecord(3, "search", "failed")


THERE = Elsewhere(
    measurements=(Measurement("accuracy", 0.8), Measurement("latency_ms", 3.0)),
    sha256="a" * 64,
    model_sha256="b" * 64,
    environment={"runtime": "another"},
)


def test_on_a_further_target_a_trial_has_what_was_measured_there() -> None:
    record = replace(sample_record(3), elsewhere={"signed": THERE}, environment={"runtime": "one"})
    there = record.on("signed")
    assert (there.number, there.kind, there.recipe, there.state) == (3, "search", record.recipe, "complete")
    assert there.metrics == {"accuracy": 0.8, "latency_ms": 3.0}
    assert (there.sha256, there.model_sha256) == (THERE.sha256, THERE.model_sha256)
    assert there.environment == {"runtime": "another"}


def test_a_trial_that_failed_on_a_further_target_failed_there_alone() -> None:
    record = replace(sample_record(3), elsewhere={"signed": Elsewhere(cause="it does not load"), "plain": THERE})
    there = record.on("signed")
    assert (there.state, there.cause) == ("failed", "it does not load")
    assert (there.metrics, there.sha256) == ({}, "")
    assert record.complete
    assert record.on("plain").complete


def test_a_trial_that_was_not_measured_on_a_target_counts_as_failed_there() -> None:
    there = sample_record(3).on("signed")
    assert (there.state, there.cause) == ("failed", "not measured on signed")
    assert (there.metrics, there.sha256) == ({}, "")


@pytest.mark.parametrize("state", ["failed", "stopped"])
def test_a_trial_that_was_not_completed_is_the_same_everywhere(state: State) -> None:
    record = sample_record(3, state=state, cause="the training loss is nan")
    assert record.on("signed") == record
