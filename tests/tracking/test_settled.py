from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from paretrim.evaluators.measurement import Measurement
from paretrim.tracking.records import TrialRecord
from paretrim.tracking.settled import CROWDED, SEARCHED, Final, crowded, settled
from paretrim.tracking.testing import sample_record

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
ENDS = st.none() | NUMBERS


def measurements(name: str) -> st.SearchStrategy[Measurement]:
    return st.builds(Measurement, st.just(name), NUMBERS, ENDS, ENDS, st.text(max_size=8))


FINALS = st.builds(Final, measurements("latency_ms"), measurements("latency_ratio"), st.booleans())
SEARCHED_TRIAL = sample_record(3, latency_ms=1.0, latency_ratio=0.5, latency_crowded=0.0)
DISTURBED_TRIAL = sample_record(3, latency_ms=1.0, latency_ratio=0.5, latency_crowded=1.0)


def a_final(latency_ms: float = 0.8, *, disturbed: bool = False) -> Final:
    return Final(
        Measurement("latency_ms", latency_ms, latency_ms * 0.99, latency_ms * 1.01, "at the end"),
        Measurement("latency_ratio", latency_ms / 2, how="in turns"),
        disturbed,
    )


def after(record: TrialRecord, final: Final) -> TrialRecord:
    """Return a trial whose latency was taken again."""
    (found,) = settled([record], {record.sha256: final})
    return found


def by_name(record: TrialRecord) -> dict[str, Measurement]:
    return {m.name: m for m in record.measurements}


@given(FINALS)
def test_a_final_reads_back_from_json_as_it_was_written(final: Final) -> None:
    assert Final.from_plain(json.loads(json.dumps(final.to_plain()))) == final


def test_both_numbers_are_kept_and_the_later_one_counts() -> None:
    first, final = by_name(SEARCHED_TRIAL), a_final()
    found = by_name(after(SEARCHED_TRIAL, final))
    assert (found["latency_ms"], found["latency_ratio"]) == (final.latency, final.ratio)
    kept = found[SEARCHED]
    assert (kept.value, kept.low, kept.high) == (1.0, first["latency_ms"].low, first["latency_ms"].high)
    assert kept.how == "made up; taken in the search"


@given(FINALS)
def test_nothing_but_the_latency_changes(final: Final) -> None:
    found = after(SEARCHED_TRIAL, final)
    changed = {"latency_ms", "latency_ratio", CROWDED, SEARCHED}
    assert replace(found, measurements=()) == replace(SEARCHED_TRIAL, measurements=())
    before, now = by_name(SEARCHED_TRIAL), by_name(found)
    assert {name: now[name] for name in before if name not in changed} == {
        name: m for name, m in before.items() if name not in changed
    }


@given(FINALS, st.booleans())
def test_no_number_is_there_twice(final: Final, disturbed: bool) -> None:
    names = [m.name for m in after(DISTURBED_TRIAL if disturbed else SEARCHED_TRIAL, final).measurements]
    assert len(set(names)) == len(names)


def test_a_disturbed_number_does_not_take_the_place_of_one_that_was_not() -> None:
    assert after(SEARCHED_TRIAL, a_final(disturbed=True)) == SEARCHED_TRIAL


def test_a_number_that_nobody_called_disturbed_counts_as_undisturbed() -> None:
    unmarked = sample_record(3)
    assert CROWDED not in unmarked.metrics
    assert after(unmarked, a_final(disturbed=True)) == unmarked


def test_of_two_disturbed_numbers_the_later_one_is_shown_and_still_does_not_count() -> None:
    found = after(DISTURBED_TRIAL, a_final(0.7, disturbed=True))
    assert found.metrics["latency_ms"] == 0.7
    assert crowded(found)


def test_a_quiet_number_takes_the_mark_of_a_disturbed_one_away() -> None:
    assert crowded(DISTURBED_TRIAL)
    assert not crowded(after(DISTURBED_TRIAL, a_final()))


def test_all_trials_of_an_artifact_share_its_latency_and_others_keep_theirs() -> None:
    twin = replace(sample_record(4), sha256=SEARCHED_TRIAL.sha256)
    other = sample_record(5)
    found = settled([SEARCHED_TRIAL, twin, other], {SEARCHED_TRIAL.sha256: a_final(0.8)})
    assert [record.metrics["latency_ms"] for record in found] == [0.8, 0.8, 1.0]
    assert found[2] is other


def test_a_trial_without_a_latency_stays_without() -> None:
    failed = sample_record(3, state="failed", cause="the training loss is nan")
    assert settled([failed], {failed.sha256: a_final()}) == [failed]


def test_without_finals_trials_are_as_they_were() -> None:
    records = [SEARCHED_TRIAL, sample_record(4)]
    assert settled(records, {}) == records
