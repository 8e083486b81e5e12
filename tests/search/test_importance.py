from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Sequence

import pytest

from paretrim.search.importance import LEAST_TRIALS, importance
from paretrim.spaces.dimension import Choice, Condition, Dimension, Range, Value
from paretrim.tracking.front import Objective
from paretrim.tracking.records import TrialRecord
from paretrim.tracking.testing import sample_record

KNOBS: tuple[Dimension, ...] = (
    Range("score", 0.0, 1.0, neutral=0.0),
    Range("speed", 0.0, 0.8, neutral=0.0, step=0.2),
    Choice("bits", ("none", 8, 4), neutral="none"),
    Range("idle", 1e-4, 1e-1, neutral=1e-3, log=True),
    Choice("graded", (False, True), neutral=False),
    Range("grade", 0.0, 1.0, neutral=0.0, when=(Condition("graded", (True,)),)),
)
OBJECTIVES = (Objective("accuracy", maximize=True), Objective("latency_ms"), Objective("size_bytes"))


def a_trial(number: int, dice: random.Random, metrics: bool = True) -> TrialRecord:
    recipe: dict[str, Value] = {
        "score": dice.random(),
        "speed": dice.choice((0, 0.2, 0.4, 0.6, 0.8)),
        "bits": dice.choice(("none", 8, 4)),
        "idle": 10 ** dice.uniform(-4, -1),
        "graded": dice.random() < 0.5,
    }
    if recipe["graded"]:
        recipe["grade"] = dice.random()
    rate, bits = float(recipe["speed"] or 0), recipe["bits"]
    return sample_record(
        number,
        recipe=recipe,
        accuracy=float(recipe["score"] or 0) + dice.gauss(0, 0.01),
        latency_ms=1.0 - rate + dice.gauss(0, 0.01),
        size_bytes={"none": 32.0, 8: 16.0, 4: 8.0}[bits] - 5 * float(recipe.get("grade") or 0),
    )


def trials(count: int) -> list[TrialRecord]:
    dice = random.Random(1)
    return [sample_record(0), *(a_trial(number, dice) for number in range(3, 3 + count))]


def clear(records: Sequence[TrialRecord]) -> dict[str, set[str]]:
    found = importance(records, KNOBS, OBJECTIVES)
    columns = enumerate(found.objectives)
    return {name: {knob for knob, weights in found.knobs.items() if weights[i].clear} for i, name in columns}


@pytest.fixture(scope="module")
def records() -> list[TrialRecord]:
    return trials(120)


def test_the_knob_that_moves_an_objective_stands_out_for_it(records: list[TrialRecord]) -> None:
    found = clear(records)
    assert found["accuracy"] == {"score"}
    assert found["latency_ms"] == {"speed"}
    assert "bits" in found["size_bytes"]
    assert "idle" not in found["size_bytes"]


def test_a_knob_under_a_condition_is_told_among_the_trials_that_have_it(records: list[TrialRecord]) -> None:
    found = importance(records, KNOBS, OBJECTIVES)
    assert set(found.knobs) == {knob.name for knob in KNOBS}
    size = found.objectives.index("size_bytes")
    assert found.knobs["grade"][size].share > found.knobs["idle"][size].share


def test_shares_add_up_and_the_largest_is_first(records: list[TrialRecord]) -> None:
    found = importance(records, KNOBS, OBJECTIVES)
    for i in range(len(OBJECTIVES)):
        assert sum(weights[i].share for weights in found.knobs.values()) == pytest.approx(1.0)
    largest = [max(weight.share for weight in weights) for weights in found.knobs.values()]
    assert largest == sorted(largest, reverse=True)


def test_it_is_the_same_for_the_same_records(records: list[TrialRecord]) -> None:
    assert importance(records, KNOBS, OBJECTIVES) == importance(records, KNOBS, OBJECTIVES)


def test_nothing_stands_out_where_an_objective_is_chance() -> None:
    dice = random.Random(2)
    noise = [Objective("memory_bytes")]
    records = [sample_record(0)]
    for record in trials(60)[1:]:
        records.append(sample_record(record.number, recipe=record.recipe, memory_bytes=dice.random()))
    found = importance(records, KNOBS, noise)
    assert [name for name, weights in found.knobs.items() if weights[0].clear] == []
    assert sum(weights[0].share for weights in found.knobs.values()) == pytest.approx(1.0)


def test_an_objective_that_never_changes_has_no_shares() -> None:
    found = importance(trials(LEAST_TRIALS), KNOBS, [Objective("memory_bytes")])
    assert {(weights[0].share, weights[0].clear) for weights in found.knobs.values()} == {(0.0, False)}


def test_what_comes_with_time_alone_does_not_stand_out() -> None:
    # All knobs drift with the trials, and so does the objective, which none of them moves.
    drift = [Range("a", 0.0, 1.0, neutral=0.0), Range("b", 0.0, 1.0, neutral=0.0)]
    dice = random.Random(3)
    records = [sample_record(0)]
    for number in range(3, 63):
        at = number / 70
        recipe: dict[str, Value] = {"a": min(1.0, at + dice.uniform(0, 0.1)), "b": min(1.0, at + dice.uniform(0, 0.1))}
        records.append(sample_record(number, recipe=recipe, latency_ms=1.0 - at + dice.gauss(0, 0.05)))
    found = importance(records, drift, [Objective("latency_ms")])
    assert not any(weights[0].clear for weights in found.knobs.values())


def test_too_few_trials_tell_nothing_and_how_many_it_takes() -> None:
    found = importance(trials(LEAST_TRIALS - 1), KNOBS, OBJECTIVES)
    assert dict(found.knobs) == {}
    assert f"takes {LEAST_TRIALS} searched trials" in found.why_none
    assert found.why_none.endswith("there are 49")
    assert importance(trials(LEAST_TRIALS), KNOBS, OBJECTIVES).knobs


def test_anchors_failures_and_disturbed_trials_do_not_count() -> None:
    few = trials(LEAST_TRIALS - 1)
    few += [
        sample_record(50, state="failed"),
        sample_record(51, state="stopped"),
        sample_record(52, latency_crowded=1.0),
    ]
    few += [sample_record(1), sample_record(2)]
    assert importance(few, KNOBS, OBJECTIVES).trials == LEAST_TRIALS - 1


def test_without_knobs_there_is_nothing_to_tell() -> None:
    assert importance(trials(60), [], OBJECTIVES).why_none == "no knob is searched"


def test_a_value_outside_the_knob_is_as_if_it_were_not_there() -> None:
    records = trials(LEAST_TRIALS)
    stray = sample_record(90, recipe={**records[1].recipe, "score": 5.0, "bits": "half"})
    assert importance([*records, stray], KNOBS, OBJECTIVES).trials == LEAST_TRIALS + 1


def test_it_is_written_as_csv_and_json(records: list[TrialRecord]) -> None:
    found = importance(records, KNOBS, OBJECTIVES)
    rows = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert {row["knob"] for row in rows if row["accuracy_clear"] == "True"} == {"score"}
    assert sum(float(row["latency_ms"]) for row in rows) == pytest.approx(1.0)
    document = json.loads(found.to_json())
    assert (document["schema"], document["trials"]) == (1, 120)
    assert document["knobs"]["score"][0]["clear"] is True
