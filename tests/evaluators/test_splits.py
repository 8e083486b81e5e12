"""The data of a job: what is accepted, and what must not be shared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset, TensorDataset

from paretrim.errors import DataError
from paretrim.evaluators.splits import HeldOut, Split, Splits

Pair = tuple[Any, Any]


class Rows(Dataset[Any]):
    """A map-style dataset that keeps numpy rows."""

    def __init__(self, inputs: Any, labels: Any) -> None:
        self._inputs, self._labels = inputs, labels

    def __len__(self) -> int:
        return len(self._inputs)

    def __getitem__(self, index: int) -> Any:
        return self._inputs[index], self._labels[index]


def pair(count: int, seed: int = 0) -> Pair:
    source = np.random.default_rng(seed)
    return source.standard_normal((count, 4)).astype(np.float32), source.integers(0, 3, count)


def dataset(count: int, seed: int = 0) -> Dataset[Any]:
    return Rows(*pair(count, seed))


def parts() -> dict[str, Any]:
    """Return four parts that share nothing."""
    return {name: pair(20, seed) for seed, name in enumerate(("train", "calibration", "validation", "test"))}


class TestReading:
    @pytest.mark.parametrize(
        "data",
        [
            pair(7),
            list(pair(7)),
            tuple(map(torch.from_numpy, pair(7))),
            (pair(7)[0].tolist(), pair(7)[1].tolist()),
            dataset(7),
            TensorDataset(*map(torch.from_numpy, pair(7))),
            Split(pair(7)),
        ],
        ids=["arrays", "list", "tensors", "numbers", "rows", "tensor dataset", "split"],
    )
    def test_all_forms_of_data_give_the_same_samples(self, data: Any) -> None:
        inputs, labels = map(torch.from_numpy, pair(7))
        batch = Split(data).first(10)
        assert torch.equal(batch.inputs.only, inputs)
        assert torch.equal(batch.labels, labels)
        assert batch.index.tolist() == list(range(7))

    @pytest.mark.parametrize("form", [tuple, lambda arrays: Rows(*arrays)], ids=["arrays", "dataset"])
    def test_double_precision_becomes_single(self, form: Any) -> None:
        inputs, labels = pair(5)
        split = Split(form((inputs.astype(np.float64), labels)))
        assert split.first(5).inputs.only.dtype == torch.float32

    def test_other_types_of_input_stay(self) -> None:
        assert Split((np.zeros((3, 2), np.int64), np.zeros(3))).first(3).inputs.only.dtype == torch.int64
        assert Split((np.zeros((3, 2), np.float16), np.zeros(3))).first(3).inputs.only.dtype == torch.float16

    def test_labels_of_a_regression_keep_their_shape(self) -> None:
        assert Split((pair(5)[0], np.zeros((5, 2), np.float32))).first(3).labels.shape == (3, 2)

    def test_tensors_that_record_gradients_are_read_without_them(self) -> None:
        split = Split((torch.ones((3, 2), requires_grad=True), torch.zeros(3)))
        assert not split.first(3).inputs.only.requires_grad


class TestRefusing:
    @pytest.mark.parametrize(
        ("data", "complaint"),
        [
            (None, "is a NoneType; give a pair"),
            (7, "is a int; give a pair"),
            ((np.zeros((4, 2)), np.zeros(3)), r"inputs of shape \(4, 2\) and labels of shape \(3,\)"),
            ((np.zeros(()), np.zeros(())), "first dimensions must be equal"),
            ((np.zeros((0, 2)), np.zeros(0)), "is empty; it needs at least one sample"),
            (Rows([], []), "is empty; it needs at least one sample"),
            ((np.array(["a", "b"]), np.zeros(2)), "cannot be read as two arrays"),
            (([[1.0], [1.0, 2.0]], [0, 1]), "cannot be read as two arrays"),
            ([(1, 2, 3)] * 5, "cannot give its first sample"),
        ],
    )
    def test_other_data_raises_data_error(self, data: Any, complaint: str) -> None:
        with pytest.raises(DataError, match=complaint):
            Split(data)

    def test_a_dataset_that_raises_is_named(self) -> None:
        class Broken(Rows):
            def __getitem__(self, index: int) -> Any:
                raise FileNotFoundError("image 0 is gone")

        with pytest.raises(DataError, match="train split cannot give its first sample: FileNotFoundError: image 0"):
            Split(Broken(*pair(3)), "train")


FORMS: dict[str, Any] = {
    "arrays": tuple,
    "rows": lambda arrays: Rows(*arrays),
    "numbers": lambda arrays: Rows(arrays[0], arrays[1].tolist()),
    "tensor dataset": lambda arrays: TensorDataset(*map(torch.from_numpy, arrays)),
}


class TestPartsAndJoins:
    @pytest.mark.parametrize("form", FORMS)
    @given(st.data())
    def test_a_part_has_the_samples_at_its_positions_in_their_order(self, form: str, data: st.DataObject) -> None:
        split = Split(FORMS[form](pair(9)), "validation")
        index = torch.tensor(data.draw(st.lists(st.integers(0, 8), min_size=1, max_size=12)))
        part, wanted = split.part(index), split.at(index)
        found = part.first(len(index))
        assert part.name == "validation"
        assert torch.equal(found.inputs.only, wanted.inputs.only)
        assert torch.equal(found.labels, wanted.labels)
        assert found.index.tolist() == list(range(len(index)))

    @pytest.mark.parametrize("second", FORMS)
    @pytest.mark.parametrize("first", FORMS)
    def test_a_join_has_the_samples_of_one_and_then_those_of_the_other(self, first: str, second: str) -> None:
        joined = Split(FORMS[first](pair(5, 1)), "train").joined(Split(FORMS[second](pair(4, 2)), "validation"))
        assert (joined.name, len(joined)) == ("train", 9)
        both = list(zip(pair(5, 1), pair(4, 2), strict=True))
        for seed in (None, 3):  # in both orders a batch has samples of both
            for batch in joined.batches(9, seed=seed):
                inputs, labels = (torch.from_numpy(np.concatenate(halves)) for halves in both)
                assert torch.equal(batch.inputs.only, inputs[batch.index])
                assert torch.equal(batch.labels, labels[batch.index])

    @pytest.mark.parametrize("form", FORMS)
    def test_a_split_in_two_and_joined_again_is_the_split(self, form: str) -> None:
        split = Split(FORMS[form](pair(7)))
        again = split.part(torch.arange(3)).joined(split.part(torch.arange(3, 7)))
        assert again.fingerprint() == split.fingerprint()

    def test_an_empty_part_is_refused(self) -> None:
        with pytest.raises(DataError, match="the validation split is empty"):
            Split(pair(3), "validation").part(torch.arange(0))


class TestBatches:
    @given(st.integers(1, 40), st.integers(1, 50), st.one_of(st.none(), st.integers(0, 2**31)))
    def test_each_sample_comes_once(self, count: int, size: int, seed: int | None) -> None:
        batches = list(Split((np.arange(count), np.arange(count))).batches(size, seed=seed))
        assert sorted(int(x) for batch in batches for x in batch.inputs.only) == list(range(count))
        assert all(torch.equal(batch.inputs.only, batch.index) for batch in batches)
        assert [len(batch.index) for batch in batches[:-1]] == [size] * (len(batches) - 1)

    def test_without_a_seed_the_order_is_kept(self) -> None:
        batches = Split(pair(10)).batches(3)
        assert [i for batch in batches for i in batch.index.tolist()] == list(range(10))

    def test_a_seed_decides_the_order(self) -> None:
        split = Split(pair(50))
        orders = [torch.cat([b.index for b in split.batches(8, seed=seed)]).tolist() for seed in (1, 1, 2)]
        assert orders[0] == orders[1] != orders[2]


class TestOverlap:
    def test_parts_that_share_nothing_are_fine(self) -> None:
        splits = Splits(**parts())
        splits.check()
        assert [len(s) for s in (splits.search.train, splits.search.validation, splits.test)] == [20, 20, 20]

    def test_calibration_may_be_drawn_from_the_training_data(self) -> None:
        data = parts()
        data["calibration"] = tuple(a[:5] for a in data["train"])
        Splits(**data).check()
        assert Splits(**data).search.calibration.sample_hashes()[0] in Splits(**data).search.train.sample_hashes()

    @pytest.mark.parametrize(
        ("kept", "other"),
        [
            ("validation", "train"),
            ("validation", "calibration"),
            ("validation", "test"),
            ("test", "train"),
            ("test", "calibration"),
        ],
    )
    def test_what_is_scored_on_may_be_nowhere_else(self, kept: str, other: str) -> None:
        data = parts()
        data[other] = tuple(np.concatenate([a, b[:3]]) for a, b in zip(data[other], data[kept], strict=True))
        with pytest.raises(DataError, match=f"3 samples of the {kept} split are also in the {other} split"):
            Splits(**data).check()

    def test_samples_are_compared_across_kinds_of_data(self) -> None:
        data = parts()
        data["test"] = TensorDataset(*(torch.from_numpy(a[:1]) for a in data["train"]))
        with pytest.raises(DataError, match="1 sample of the test split is also in the train split"):
            Splits(**data).check()

    def test_the_integer_type_of_labels_does_not_hide_an_overlap(self) -> None:
        data = parts()
        inputs, labels = data["train"]
        data["test"] = (inputs[:4], labels[:4].astype(np.int32))
        with pytest.raises(DataError, match="4 samples of the test split"):
            Splits(**data).check()

    def test_everything_that_is_wrong_is_said_at_once(self) -> None:
        data = parts()
        data["test"] = data["validation"] = data["train"]
        with pytest.raises(DataError) as caught:
            Splits(**data).check()
        assert str(caught.value).count("\n  - ") == 3


class TestFiniteInputs:
    @pytest.mark.parametrize("name", ["train", "calibration", "validation", "test"])
    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_inputs_that_are_not_finite_raise_data_error(self, name: str, value: float) -> None:
        data = parts()
        data[name][0][7, 2] = value
        with pytest.raises(DataError, match=f"the {name} split has inputs that are NaN or infinite"):
            Splits(**data).check()

    def test_a_late_sample_is_looked_at_too(self) -> None:
        data = parts()
        data["train"] = pair(600, seed=9)
        data["train"][0][-1, 0] = np.nan
        with pytest.raises(DataError, match="the train split has inputs that are NaN"):
            Splits(**data).check()


class TestHeldOut:
    def test_the_test_split_is_of_a_type_of_its_own(self) -> None:
        splits = Splits(**parts())
        assert isinstance(splits.test, HeldOut)
        assert not isinstance(splits.test, Split)
        assert not hasattr(splits.search, "test")

    def test_it_cannot_be_made_a_split_or_read_by_the_way(self) -> None:
        held = Splits(**parts()).test
        with pytest.raises(DataError, match="HeldOut"):
            Split(held)
        assert not hasattr(held, "batches")
        assert not hasattr(held, "__getitem__")

    def test_it_opens_when_it_is_unsealed(self) -> None:
        data = parts()
        assert torch.equal(Splits(**data).test.unseal().first(20).inputs.only, torch.from_numpy(data["test"][0]))


class TestFingerprint:
    def test_the_same_data_has_the_same_fingerprint_in_all_forms(self) -> None:
        assert Split(pair(9)).fingerprint() == Split(dataset(9)).fingerprint() == Split(pair(9)).fingerprint()

    @pytest.mark.parametrize("change", ["input", "label", "order", "length"])
    def test_changed_data_has_another(self, change: str) -> None:
        inputs, labels = pair(9)
        before = Split((inputs.copy(), labels.copy())).fingerprint()
        if change == "input":
            inputs[4, 1] += 1e-3
        elif change == "label":
            labels[4] = 3
        elif change == "order":
            inputs, labels = np.ascontiguousarray(inputs[::-1]), np.ascontiguousarray(labels[::-1])
        else:
            inputs, labels = inputs[:-1], labels[:-1]
        assert Split((inputs, labels)).fingerprint() != before

    @pytest.mark.parametrize("name", ["train", "calibration", "validation", "test"])
    def test_each_part_counts(self, name: str) -> None:
        before = Splits(**parts()).fingerprint()
        changed = {**parts(), name: pair(20, seed=77)}
        assert Splits(**changed).fingerprint() != before
        assert Splits(**parts()).fingerprint() == before
