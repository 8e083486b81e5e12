"""Sharing out one piece of data: by shares, classes and groups, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paretrim.data import Shares, from_arrays
from paretrim.errors import DataError
from paretrim.evaluators.splits import Split, Splits
from paretrim.search.sources.cut import usual_splits

PARTS = ("train", "validation", "test")


def places(splits: Splits) -> dict[str, list[int]]:
    """Return which samples are in which split; their inputs are their numbers."""
    parts = {"train": splits.search.train, "validation": splits.search.validation, "test": splits.test.unseal()}
    parts["calibration"] = splits.search.calibration
    return {name: numbers(part) for name, part in parts.items()}


def numbers(part: Split) -> list[int]:
    return [int(each) for batch in part.batches(64) for each in batch.inputs.only[:, 0]]


def column(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.float32)[:, None]


@given(st.integers(20, 300), st.integers(1, 6), st.integers(0, 5))
def test_every_sample_is_in_one_split_and_classes_in_the_same_shares(count: int, classes: int, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, classes, count)
    splits = from_arrays(column(count), labels, shares=Shares(0.25, 0.15, seed=seed))
    found = places(splits)
    assert sorted(each for name in PARTS for each in found[name]) == list(range(count))
    for each in range(classes):
        of_class = int((labels == each).sum())
        in_test = sum(labels[i] == each for i in found["test"])
        assert abs(in_test - 0.15 * of_class) <= 2.0
    assert set(found["calibration"]) <= set(found["train"])
    splits.check()


@given(st.integers(6, 40), st.integers(0, 5))
def test_no_group_is_in_two_splits(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = [f"patient {each}" for each in rng.integers(0, count, count * 5)]
    try:
        splits = from_arrays(column(count * 5), rng.integers(0, 2, count * 5), groups=groups, shares=Shares(seed=seed))
    except DataError as error:
        assert "leave nothing for" in str(error)  # of so few groups one may be too large
        return
    found = places(splits)
    held = [{groups[i] for i in found[name]} for name in PARTS]
    assert not held[0] & held[1]
    assert not held[0] & held[2]
    assert not held[1] & held[2]


def test_the_same_seed_shares_out_the_same_and_another_does_not() -> None:
    made = [places(from_arrays(column(100), np.arange(100) % 4, shares=Shares(seed=seed))) for seed in (1, 1, 2)]
    assert made[0] == made[1]
    assert made[0] != made[2]


def test_samples_that_are_equal_go_to_one_split() -> None:
    inputs = np.repeat(column(30), 4, axis=0)
    splits = from_arrays(inputs, np.repeat(np.arange(30) % 2, 4))
    splits.check()
    assert sum(splits.counts()[name] for name in PARTS) == 120


def test_what_is_given_is_taken_as_it_is_and_the_rest_is_cut() -> None:
    test = (np.full((7, 1), 1000.0, np.float32), np.zeros(7, np.int64))
    found = places(from_arrays(column(100), np.zeros(100, np.int64), test=test, shares=Shares(validation=0.3)))
    assert found["test"] == [1000] * 7
    assert len(found["validation"]) == 30
    assert sorted(found["train"] + found["validation"]) == list(range(100))


def test_where_all_is_given_nothing_is_cut() -> None:
    pairs = {name: (column(5) + 100 * i, np.zeros(5, np.int64)) for i, name in enumerate(("validation", "test"), 1)}
    splits = from_arrays(column(50), np.zeros(50, np.int64), **pairs, shares=Shares(calibration=8))  # type: ignore[arg-type]
    assert splits.counts() == {"train": 50, "calibration": 8, "validation": 5, "test": 5}
    assert numbers(splits.search.train) == list(range(50))


def test_numbers_with_fractions_and_no_labels_are_shared_out_too() -> None:
    fractions = from_arrays(column(50), np.linspace(0, 1, 50, dtype=np.float32))
    assert fractions.counts()["test"] == 10
    without = from_arrays(column(50), None)
    assert without.counts()["test"] == 10
    assert not without.search.train.labelled


def test_several_inputs_stay_together() -> None:
    by_name = from_arrays({"a": column(40), "b": np.arange(40)}, np.arange(40) % 2)
    batch = by_name.search.train.first(5).inputs
    assert batch.names == ("a", "b")
    assert torch.equal(batch.parts[0][:, 0].long(), batch.parts[1])
    by_place = from_arrays((column(40), column(40) * 2), np.arange(40) % 2).test.unseal().first(5).inputs
    assert torch.equal(by_place.parts[0] * 2, by_place.parts[1])


def test_names_and_preprocessing_come_along() -> None:
    splits = from_arrays(column(20), np.arange(20) % 2, names=["no", "yes"])
    assert splits.labels == ("no", "yes")


@pytest.mark.parametrize(
    ("validation", "test", "calibration"), [(0.0, 0.2, 1), (0.5, 0.5, 1), (0.2, -0.1, 1), (0.2, 0.2, 0)]
)
def test_impossible_shares_are_refused(validation: float, test: float, calibration: int) -> None:
    with pytest.raises(DataError, match="given"):
        Shares(validation, test, calibration)


def test_too_few_samples_or_groups_are_refused() -> None:
    with pytest.raises(DataError, match="2 samples in 2 groups leave nothing for"):
        from_arrays(column(2), np.zeros(2, np.int64))
    with pytest.raises(DataError, match="100 samples in 1 groups leave nothing for"):
        from_arrays(column(100), np.zeros(100, np.int64), groups=["one"] * 100)
    with pytest.raises(DataError, match="each needs one"):
        from_arrays(column(100), np.zeros(100, np.int64), groups=["one"] * 10)


def test_the_usual_names_of_splits_are_understood() -> None:
    assert usual_splits(["Train", "dev", "test", "extra"], "x") == {
        "train": "Train",
        "validation": "dev",
        "test": "test",
    }
    with pytest.raises(DataError, match="x has dev; none of them is for training"):
        usual_splits(["dev"], "x")
    with pytest.raises(DataError, match="val and dev are for the same split"):
        usual_splits(["train", "val", "dev"], "x")
