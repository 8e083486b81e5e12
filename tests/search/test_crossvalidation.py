"""Cross-validation: which samples are learnt from, which are held out, and what the teacher says of them."""

from __future__ import annotations

import math
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from paretrim.evaluators.splits import SearchSplits, Split
from paretrim.search.crossvalidation import folds, summary
from paretrim.search.result import Result

TRAIN, VALIDATION = 7, 13


def numbered(first: int, count: int) -> Split:
    """Return samples that can be told from all others."""
    numbers = torch.arange(first, first + count)
    return Split((numbers[:, None].float(), numbers % 3))


class Doubler(nn.Module):
    """A model by whose answer a sample is known."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2.0 * x


SPLITS = SearchSplits(numbered(0, TRAIN), numbered(500, 4), numbered(100, VALIDATION))
TEACHER = 2.0 * SPLITS.train.first(TRAIN).inputs.only


def seen(split: Split) -> list[float]:
    inputs: list[float] = split.first(len(split)).inputs.only.flatten().tolist()
    return inputs


@given(st.integers(2, VALIDATION))
def test_the_parts_held_out_are_the_validation_split_each_sample_once(count: int) -> None:
    held = [seen(fold.held) for fold in folds(Doubler(), SPLITS, None, count)]
    assert len(held) == count
    assert sorted(chain(*held)) == seen(SPLITS.validation)
    assert max(map(len, held)) - min(map(len, held)) <= 1


@given(st.integers(2, VALIDATION))
def test_each_part_is_learnt_from_in_all_folds_but_its_own(count: int) -> None:
    for fold in folds(Doubler(), SPLITS, None, count):
        learnt = seen(fold.train)
        assert learnt[:TRAIN] == seen(SPLITS.train)
        assert sorted(learnt[TRAIN:] + seen(fold.held)) == seen(SPLITS.validation)


@given(st.integers(2, VALIDATION))
def test_the_teachers_rows_follow_the_samples(count: int) -> None:
    for fold in folds(Doubler(), SPLITS, TEACHER, count):
        assert fold.teacher is not None
        batch = next(fold.train.batches(len(fold.train), seed=count))
        assert torch.equal(fold.teacher[batch.index], 2.0 * batch.inputs.only)


def test_without_distillation_there_is_no_teacher() -> None:
    assert [fold.teacher for fold in folds(Doubler(), SPLITS, None, 2)] == [None, None]


def test_labels_stay_with_their_inputs() -> None:
    for fold in folds(Doubler(), SPLITS, TEACHER, 3):
        for split in (fold.train, fold.held):
            batch = split.first(len(split))
            assert torch.equal(batch.inputs.only.flatten().long() % 3, batch.labels)


# Student's t for 95%, as tables have it: 2 folds leave one degree of freedom.
@pytest.mark.parametrize(("count", "t"), [(2, 12.706), (3, 4.303), (5, 2.776), (10, 2.262), (11, 2.228), (31, 2.042)])
def test_the_interval_of_the_mean_is_students(count: int, t: float) -> None:
    scores = np.random.default_rng(count).normal(0.9, 0.02, count).tolist()
    found = summary("accuracy_cv", scores)
    assert found.name == "accuracy_cv"
    assert found.value == pytest.approx(np.mean(scores))
    assert found.how == f"mean of {count} folds of the validation split"
    reach = t * np.std(scores, ddof=1) / math.sqrt(count)
    assert found.low == pytest.approx(found.value - reach, abs=0.01 * reach)
    assert found.high == pytest.approx(found.value + reach, abs=0.01 * reach)


def test_folds_that_agree_have_an_interval_of_no_width() -> None:
    found = summary("accuracy_cv", [0.5, 0.5, 0.5])
    assert (found.low, found.value, found.high) == (0.5, 0.5, 0.5)


def test_a_search_measures_what_was_asked_to_be_cross_validated(several: Result) -> None:
    for record in several.records:
        (found,) = (m for m in record.measurements if m.name == "accuracy_cv")
        assert found.low is not None
        assert found.high is not None
        assert found.low <= found.value <= found.high
        assert record.seconds["cross_validation"] > 0
    # Nothing is trained for the baseline, so each of its folds is scored by the given model.
    base = several.records[0].metrics
    assert base["accuracy_cv"] == pytest.approx(base["accuracy"])


def test_a_search_keeps_no_files_of_folds(several: Result) -> None:
    kept = {path.name.partition(".")[0] for path in several.folder.artifacts.glob("*.xz")}
    known = {r.sha256 for target in several.job.targets for r in several.on(target).records}
    assert kept == known
