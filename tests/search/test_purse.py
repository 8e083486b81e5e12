"""When a search has spent enough: minutes, training seconds, patience, and whoever tells it to stop."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretrim.search.purse import Purse
from paretrim.search.sections import Budget
from paretrim.tracking.constraints import Constraint, parse
from paretrim.tracking.front import Objective, hypervolume
from paretrim.tracking.records import TrialRecord
from paretrim.tracking.testing import OBJECTIVES, sample_record

NOWHERE = Path("/nowhere/stop")


def a_purse(
    budget: Budget,
    records: Sequence[TrialRecord] = (),
    *,
    spent_s: float = 0.0,
    stop: Path = NOWHERE,
    constraints: tuple[Constraint, ...] = (),
    objectives: tuple[Objective, ...] = OBJECTIVES,
) -> Purse:
    return Purse(budget, objectives, constraints, stop, spent_s, lambda: list(records))


def trained(number: int, **seconds: float) -> TrialRecord:
    return replace(sample_record(number), seconds=seconds)


def test_a_budget_of_trials_alone_is_never_over() -> None:
    purse = a_purse(Budget(trials=3), [trained(number, recover=1e9) for number in range(9)])
    assert (purse.why_over(), purse.why_enough()) == ("", "")


def test_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    purse = a_purse(Budget(minutes=2.5))
    now += 149.0
    assert not purse.why_over()
    now += 2.0
    assert purse.why_over() == "its 2.5 minutes are up"


def test_training_seconds_are_those_of_recovery_and_of_what_came_before() -> None:
    records = [trained(0), trained(3, recover=4.0, lower=50.0, latency=9.0)]
    purse = a_purse(Budget(training_seconds=10), records, spent_s=3.0)
    assert not purse.why_over()
    records.append(replace(trained(4, recover=2.0), state="stopped", measurements=()))
    assert not purse.why_over()
    records.append(replace(trained(5, recover=1.5), state="failed", measurements=()))
    assert purse.why_over() == "it has trained for 10 of 10 seconds"


def test_the_baseline_is_made_even_if_all_was_spent_before_it() -> None:
    records: list[TrialRecord] = []
    purse = a_purse(Budget(training_seconds=1), records, spent_s=3.0)
    assert not purse.why_over()
    records.append(sample_record(0))
    assert purse.why_over() == "it has trained for 4 of 1 seconds"


def test_it_is_told_to_stop(tmp_path: Path) -> None:
    purse = a_purse(Budget(), stop=tmp_path / "stop")
    assert not purse.why_over()
    (tmp_path / "stop").touch()
    assert purse.why_over() == "it was told to stop"
    (tmp_path / "stop").unlink()
    assert purse.why_over() == "it was told to stop"  # and is not told otherwise


def better(number: int, by: float) -> TrialRecord:
    """Return a trial that is smaller than the baseline."""
    return sample_record(number, size_bytes=100_000.0 * (1.0 - by))


def test_patience_counts_trials_since_the_hypervolume_rose() -> None:
    records = [sample_record(0), better(3, 0.1), sample_record(4), sample_record(5, state="failed")]
    purse = a_purse(Budget(patience=3), records)
    assert not purse.why_enough()
    records.append(better(6, 0.05))  # smaller than the baseline, but not than trial 3
    assert purse.why_enough() == "the hypervolume has not risen for 3 trials"


def test_patience_begins_anew_when_it_rises() -> None:
    records = [sample_record(0), better(3, 0.1), sample_record(4), sample_record(5)]
    purse = a_purse(Budget(patience=3), records)
    assert not purse.why_enough()
    records.append(better(6, 0.2))
    assert not purse.why_enough()
    records += [sample_record(7), sample_record(8, state="stopped")]
    assert not purse.why_enough()
    records.append(sample_record(9))
    assert purse.why_enough()


def test_a_rise_by_less_than_a_thousandth_is_none_until_it_adds_up() -> None:
    # The volume goes with what is left of twice the baseline's size.
    records = [sample_record(0), *(better(number, 0.0004 * number) for number in range(1, 9))]
    assert hypervolume(records, OBJECTIVES, ()) < hypervolume(records[:1], OBJECTIVES, ()) * 1.004
    assert not a_purse(Budget(patience=3), records).why_enough()  # three of them together are a thousandth
    assert a_purse(Budget(patience=2), records).why_enough()


def test_patience_waits_for_the_first_point_that_meets_the_constraints() -> None:
    bound = (parse("size_bytes <= 50% of baseline"),)
    records = [sample_record(0), *(sample_record(number) for number in range(3, 20))]
    purse = a_purse(Budget(patience=3), records, constraints=bound)
    assert not purse.why_enough()
    records += [better(20, 0.6), *(sample_record(number) for number in (21, 22, 23))]
    assert purse.why_enough()


@given(st.lists(st.floats(-0.2, 0.9) | st.sampled_from(["failed", "stopped"]), max_size=12), st.integers(1, 5))
def test_patience_is_that_of_the_definition(course: list[float | str], patience: int) -> None:
    records = [sample_record(0)]
    for number, each in enumerate(course, 1):
        stopped = sample_record(number, state=each) if isinstance(each, str) else None  # type: ignore[arg-type]
        records.append(stopped or better(number, float(each)))
    reached, flat = hypervolume(records[:1], OBJECTIVES, ()), 0
    for count in range(2, len(records) + 1):
        volume = hypervolume(records[:count], OBJECTIVES, ())
        flat = 0 if volume > reached * 1.001 else flat + 1
        reached = volume if flat == 0 else reached
    assert bool(a_purse(Budget(patience=patience), records).why_enough()) == (flat >= patience)
