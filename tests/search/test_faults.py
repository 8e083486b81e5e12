"""A user's code may raise, hang, answer NaN or be killed: that fails one trial at most, and the search goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from paretrim.search.api import search
from paretrim.search.result import Result
from paretrim.tracking.records import TrialRecord

from .conftest import tiny_job

# The hang takes them whole; any other trial takes seconds, its waits for measurements left out, or most of a minute on a slow
# machine whose other core works too.
MINUTES = 1.5
TRIALS = 7
FAULTS = ("hang", "kill", "nan", "raise")


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file for each fault that is to be suffered."""
    folder = tmp_path_factory.mktemp("faults")
    for name in FAULTS:
        (folder / name).touch()
    return folder


@pytest.fixture(scope="module")
def result(one_ray: None, faults: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A search of seven trials in which four suffer a fault each, and whose constraint nothing meets."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PARETRIM_TEST_FAULTS", str(faults))
        budget = {"trials": TRIALS, "parallel": 2, "trial_minutes": MINUTES}
        job = tiny_job(model="tiny:faulty_model", budget=budget, constraints=["size_bytes <= 2% of baseline"])
        return search(job, store=tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def records(result: Result) -> list[TrialRecord]:
    return list(result.records)


def cause_with(records: list[TrialRecord], words: str) -> str:
    (cause,) = (r.cause for r in records if words in r.cause)
    return cause


def test_the_search_goes_on_to_its_budget(records: list[TrialRecord]) -> None:
    assert [r.number for r in records] == list(range(TRIALS))
    # The one that was killed was made again.
    assert sum(r.complete for r in records) == TRIALS - len(FAULTS) + 1


def test_a_raise_is_recorded_with_the_users_own_traceback(records: list[TrialRecord]) -> None:
    cause = cause_with(records, "RuntimeError")
    assert "the augmentation tripped over its own feet" in cause
    assert "tiny.py" in cause


def test_only_what_its_recipe_made_is_held_against_it(records: list[TrialRecord]) -> None:
    (unfit,) = (r.cause for r in records if r.unfit)
    assert "the training loss is nan" in unfit


def test_a_nan_loss_says_what_to_do(records: list[TrialRecord]) -> None:
    assert "learning rate" in cause_with(records, "the training loss is nan")


def test_a_hang_is_stopped_at_its_limit_and_shows_where_it_was(records: list[TrialRecord]) -> None:
    cause = cause_with(records, f"took longer than {MINUTES} minutes")
    assert "tiny.py" in cause


def test_a_trial_whose_process_was_killed_is_made_again(faults: Path, records: list[TrialRecord]) -> None:
    assert list(faults.iterdir()) == []  # each was suffered
    assert not any("process died" in r.cause for r in records)


def test_the_baseline_is_not_touched_by_faults(records: list[TrialRecord]) -> None:
    assert all(r.complete for r in records[:3])


def test_a_search_that_found_nothing_has_an_end_that_says_why(result: Result) -> None:
    assert not result.interrupted
    assert not result.require_report().front
    assert "the one that binds is 'size_bytes <= 2% of baseline'" in result.why_empty()
