"""Data loaders: their datasets are taken, and what would make that wrong is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from paretrim.data import from_loaders
from paretrim.errors import DataError


def samples(count: int = 40, start: int = 0) -> TensorDataset:
    return TensorDataset(torch.arange(start, start + count).float()[:, None], torch.arange(count) % 2)


def test_the_datasets_behind_loaders_are_taken_whole() -> None:
    splits = from_loaders(
        DataLoader(samples(), batch_size=16, shuffle=True, drop_last=True),
        validation=DataLoader(samples(8, 100)),
        test=samples(6, 200),
    )
    assert splits.counts() == {"train": 40, "calibration": 40, "validation": 8, "test": 6}
    assert splits.search.train.first(3).inputs.only[:, 0].tolist() == [0.0, 1.0, 2.0]


def test_what_is_not_given_is_cut_by_the_labels() -> None:
    splits = from_loaders(DataLoader(samples(), batch_size=7))
    assert splits.counts() == {"train": 24, "calibration": 24, "validation": 8, "test": 8}
    assert splits.test.unseal().first(8).labels.sum() == 4


def test_a_datasets_own_targets_spare_reading_its_samples() -> None:
    class Slow(Dataset[Any]):
        targets = np.arange(40) % 2
        reads = 0

        def __len__(self) -> int:
            return 40

        def __getitem__(self, position: int) -> tuple[torch.Tensor, int]:
            Slow.reads += 1
            return torch.tensor([float(position)]), int(self.targets[position])

    splits = from_loaders(DataLoader(Slow()))
    assert splits.counts()["test"] == 8
    assert Slow.reads < 20


def test_of_a_sampled_subset_only_the_subset_is_taken() -> None:
    loader = DataLoader(samples(), sampler=SubsetRandomSampler([5, 3, 30]))
    splits = from_loaders(loader, validation=samples(4, 100), test=samples(4, 200))
    assert splits.search.train.first(9).inputs.only[:, 0].tolist() == [3.0, 5.0, 30.0]


def test_a_dataset_without_labels_is_shared_out() -> None:
    class Unlabelled(Dataset[Any]):
        def __len__(self) -> int:
            return 20

        def __getitem__(self, position: int) -> torch.Tensor:
            return torch.tensor([float(position)])

    splits = from_loaders(DataLoader(Unlabelled()))
    assert splits.counts()["train"] == 12
    assert not splits.search.train.labelled


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[tuple[torch.Tensor, int]]:
        return iter([(torch.ones(1), 0)])


class Noisy(Dataset[Any]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, position: int) -> tuple[torch.Tensor, int]:
        return torch.randn(3), 0


def padded(batch: list[Any]) -> list[Any]:
    return batch


@pytest.mark.parametrize(
    ("loader", "said"),
    [
        (DataLoader(Stream()), "streams its samples"),
        (DataLoader(samples(), sampler=WeightedRandomSampler([1.0] * 40, 40)), "with a WeightedRandomSampler"),
        (DataLoader(samples(), sampler=RandomSampler(samples(), replacement=True)), "with a RandomSampler"),
        (DataLoader(samples(), sampler=RandomSampler(samples(), num_samples=10)), "with a RandomSampler"),
        (DataLoader(samples(), sampler=[3, 1, 2]), "with a list"),
        (DataLoader(samples(), collate_fn=padded), "makes its batches with 'padded'"),
        (DataLoader(Noisy()), "is another one each time it is read"),
        (DataLoader(Subset(Noisy(), [0, 1])), "space.recovery.augmentation"),
    ],
)
def test_what_makes_the_samples_others_than_the_loaders_is_refused(loader: DataLoader[Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        from_loaders(loader)


def test_the_loader_that_is_wrong_is_named() -> None:
    with pytest.raises(DataError, match="the test loader makes its batches"):
        from_loaders(samples(), test=DataLoader(samples(), collate_fn=padded))


def test_batches_of_another_choice_are_refused() -> None:
    batches: Any = [[0, 1], [5, 6]]
    with pytest.raises(DataError, match="chooses its batches with a list"):
        from_loaders(DataLoader(samples(), batch_sampler=batches))
