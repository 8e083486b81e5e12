from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import Dataset

from paretrim.errors import DataError
from paretrim.evaluators.inputs import Inputs, joined, zeros
from paretrim.evaluators.recorded import Recorded, read, write
from paretrim.evaluators.signature import Part, Signature
from paretrim.evaluators.splits import Split

IDS, MASK = torch.arange(12).view(4, 3), torch.ones(4, 3)


class Sum(nn.Module):
    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return first - second


def test_one_tensor_is_given_as_it_is() -> None:
    inputs = Inputs.of(np.ones((4, 3)))
    assert inputs.signature == Signature.single((3,))
    assert inputs.through(nn.Identity()).dtype == torch.float32
    assert len(inputs) == 4


@pytest.mark.parametrize(
    ("given_as", "named"), [((IDS, MASK), False), ([IDS, MASK], False), ({"second": MASK, "first": IDS}, True)]
)
def test_several_are_given_by_position_or_by_name(given_as: object, named: bool) -> None:
    inputs = Inputs.of(given_as)
    assert torch.equal(inputs.through(Sum()), IDS - MASK)
    assert inputs.signature.named is named
    assert inputs.signature.names == (("second", "first") if named else ("input_0", "input_1"))


def test_a_list_of_numbers_is_one_array() -> None:
    assert Inputs.of([[1.0, 2.0], [3.0, 4.0]]).signature == Signature.single((2,))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=9))
def test_samples_are_chosen_from_all_parts_alike(index: list[int]) -> None:
    chosen = Inputs.of({"a": IDS, "b": MASK * 2})[torch.tensor(index)]
    assert torch.equal(chosen.parts[0], IDS[index])
    assert chosen.parts[1].shape == (len(index), 3)
    assert chosen.names == ("a", "b")


@given(st.integers(1, 5))
def test_parts_joined_again_are_the_whole(size: int) -> None:
    inputs = Inputs.of((IDS, MASK))
    again = joined([inputs[start : start + size] for start in range(0, len(inputs), size)])
    assert all(torch.equal(a, b) for a, b in zip(again.parts, inputs.parts, strict=True))


def test_zeros_have_the_signature_that_they_are_made_of() -> None:
    signature = Signature((Part("ids", (5,), "int64"), Part("pixels", (1, 8, 8))), named=True)
    assert zeros(signature, 3).signature == signature
    assert len(zeros(signature, 3)) == 3


def test_parts_of_unequal_lengths_are_refused_with_their_shapes() -> None:
    with pytest.raises(DataError, match=r"a: torch.int64 of shape \(4, 3\); b: torch.float32 of shape \(2, 3\)"):
        Inputs.of({"a": IDS, "b": MASK[:2]})


def test_nothing_is_no_input() -> None:
    with pytest.raises(DataError, match="a model's inputs are empty"):
        Inputs.of({})


def test_they_go_from_process_to_process() -> None:
    again = pickle.loads(pickle.dumps(Inputs.of({"a": IDS})))
    assert torch.equal(again.parts[0], IDS)


class Items(Dataset[object]):
    """Items as Hugging Face's data sets give them, as pairs, or without labels."""

    def __init__(self, form: str) -> None:
        self._form = form

    def __len__(self) -> int:
        return 4

    def __getitem__(self, position: int) -> object:
        inputs = {"ids": IDS[position], "mask": MASK[position]}
        return {
            "mapping": {**inputs, "label": position},
            "pair": (inputs, position),
            "unlabelled": inputs,
            "tensor": IDS[position],
            "tuple": ((IDS[position], MASK[position]), position),
        }[self._form]


@pytest.mark.parametrize(
    ("form", "names", "labelled"),
    [
        ("mapping", ("ids", "mask"), True),
        ("pair", ("ids", "mask"), True),
        ("unlabelled", ("ids", "mask"), False),
        ("tensor", ("input",), False),
        ("tuple", ("input_0", "input_1"), True),
    ],
)
def test_items_of_a_dataset_may_have_several_forms(form: str, names: tuple[str, ...], labelled: bool) -> None:
    split = Split(Items(form))
    batch = split.at(torch.tensor([2, 0]))
    assert batch.inputs.signature.names == names
    assert torch.equal(batch.inputs.parts[0], IDS[[2, 0]])
    assert split.labelled is labelled
    assert batch.labels.flatten().tolist() == ([2, 0] if labelled else [])
    again = split.with_labels(torch.arange(4) * 10).joined(split.with_labels(torch.arange(4)))
    assert again.at(torch.tensor([1, 5])).labels.tolist() == [10, 1]
    assert len(set(split.sample_hashes())) == 4


def test_arrays_without_labels_are_a_split() -> None:
    split = Split(({"ids": IDS, "mask": MASK}, None))
    assert not split.labelled
    assert split.first(2).labels.shape == (2, 0)
    assert split.with_labels(torch.arange(4)).part(torch.tensor([3])).first(1).labels.tolist() == [3]


@pytest.mark.parametrize("names", [("input",), ("input_ids", "attention_mask")])
def test_recorded_samples_are_read_back(names: tuple[str, ...], tmp_path: object) -> None:
    from pathlib import Path

    path = Path(str(tmp_path)) / "samples.npz"
    inputs = {name: np.full((2, 3), i) for i, name in enumerate(names)}
    write(path, Recorded(inputs, np.ones((2, 4))))
    found = read(path)
    assert list(found.inputs) == list(names)
    assert all(np.array_equal(found.inputs[name], inputs[name]) for name in names)
    assert found.outputs.shape == (2, 4)
