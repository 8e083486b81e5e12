"""What a search learns from an earlier one of the same model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from paretrim.errors import UsageError
from paretrim.search import knowledge, prepare
from paretrim.search.job import Job
from paretrim.search.longer import FINAL
from paretrim.search.prepare import Subject
from paretrim.search.result import Result
from paretrim.search.store import Store
from paretrim.spaces.dimension import Value
from paretrim.tracking.records import TrialRecord
from paretrim.tracking.testing import sample_record

from .conftest import a_search, tiny_job

SPACE = {"recovery": {"epochs": 2}, "pruning": {"ratio": [0.0, 0.5], "step": 0.25}, "distillation": "off"}


@pytest.fixture(scope="module")
def subject() -> Subject:
    return prepare.load(tiny_job(space=SPACE))


@pytest.fixture
def earlier(subject: Subject, tmp_path: Path) -> Result:
    anchors = subject.space.anchors(0)
    searched: dict[str, Value] = {d.name: getattr(d, "high", d.neutral) for d in subject.space.searched}
    recipe = subject.space.recipe(searched, 3).values
    records = [
        *(sample_record(number, recipe=each.values) for number, each in enumerate(anchors.values())),
        sample_record(3, recipe=recipe),
        sample_record(4, recipe={**recipe, "pruning.ratio.stem": 0.25}, state="stopped", cause="place 3 of 3"),
        sample_record(5, recipe=recipe, state="failed", cause="the training loss is nan"),
        replace(sample_record(6, recipe={**recipe, "recovery.epochs": 4}), kind=FINAL),
    ]
    result = a_search(Store(tmp_path), records, tiny_job(space=SPACE))
    result.study.note("fingerprints", subject.fingerprints)
    return result


def learned(earlier: Result, **changes: object) -> list[int]:
    """Return the numbers of the trials that a job may learn from."""
    job = Job(**{**earlier.job.model_dump(), **changes})
    return [record.number for record in knowledge._usable(earlier, prepare.load(job), job)]


def test_trials_are_learned_from_whose_recipes_the_space_allows(earlier: Result) -> None:
    # Neither 16 bits nor 4 epochs are its own, and what failed tells nothing.
    assert learned(earlier) == [0, 2, 3, 4]


def test_a_wider_space_allows_more_and_a_narrower_one_less(earlier: Result) -> None:
    wide = {**SPACE, "recovery": {"epochs": [2, 4]}, "quantization": {"weight_bits": [4, 8, 16, "none"]}}
    assert learned(earlier, space=wide) == [0, 1, 2, 3, 4, 6]
    narrow: Mapping[str, object] = {**SPACE, "pruning": {"ratio": [0.0, 0.3], "step": 0.1}}
    assert learned(earlier, space=narrow) == [0, 2]
    assert learned(earlier, space={**SPACE, "pruning": "off"}) == [0]  # the baseline in any case


def test_seed_budget_objectives_and_constraints_may_be_others(earlier: Result) -> None:
    assert learned(earlier, seed=9, objectives=["size_bytes"], constraints=["accuracy >= 0.5"]) == [0, 2, 3, 4]


@pytest.mark.parametrize(
    ("changes", "other"),
    [
        ({"metric": "f1", "objectives": ()}, "another metric"),
        ({"target": {"batch_size": 4}}, "another target"),
        ({"metric": "f1", "objectives": (), "target": {"threads": 2}}, "another metric and another target"),
    ],
)
def test_a_search_of_something_else_is_refused(earlier: Result, changes: dict[str, object], other: str) -> None:
    with pytest.raises(UsageError, match=rf"^from: tiny-1 is of {other}, so nothing can be learned from it; name a"):
        learned(earlier, **changes)


@pytest.mark.parametrize("part", ["model", "data"])
def test_a_search_of_another_model_or_other_data_is_refused(part: str, earlier: Result, subject: Subject) -> None:
    changed = replace(subject, fingerprints={**subject.fingerprints, part: "another"})
    with pytest.raises(UsageError, match=f"is of another {part}, so"):
        knowledge._usable(earlier, changed, earlier.job)


def test_records_come_as_they_are(earlier: Result, subject: Subject) -> None:
    found: list[TrialRecord] = knowledge._usable(earlier, subject, earlier.job)
    assert found == [record for record in earlier.records if record.number in (0, 2, 3, 4)]
