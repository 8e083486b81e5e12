"""Data from torch's data loaders: the datasets behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    default_collate,
)

from paretrim.errors import DataError
from paretrim.evaluators.preprocessing import Preprocessing
from paretrim.evaluators.splits import Split, Splits
from paretrim.search.sources.cut import CALIBRATION, TEST, VALIDATION, Shares, classes_of, share_out

Loader = DataLoader[Any] | Dataset[Any]


def from_loaders(
    train: Loader,
    *,
    calibration: Loader | None = None,
    validation: Loader | None = None,
    test: Loader | None = None,
    groups: Sequence[Any] | None = None,
    shares: Shares = Shares(),  # noqa: B008 - it is frozen
    names: Sequence[str] | None = None,
    preprocessing: Preprocessing | None = None,
) -> Splits:
    """Return splits of the datasets behind data loaders; of datasets too.

    A search makes its own batches, in an order of its own, so only the loaders' datasets are taken: samples are shuffled for
    training whether the loader does or not, those that ``drop_last`` leaves out are used, and of a loader with a
    `SubsetRandomSampler` the subset is. What would make the samples others than the loader's is refused.

    Args:
        train: Loader of the training samples; items of its dataset are as `paretrim.Splits` takes them.
        calibration: By default drawn from the training samples.
        validation: By default cut from the training samples, each of whose labels is then read once.
        test: As `validation`.
        groups: Of each training sample; no group is in two splits.
        shares: How much is cut, and with which seed.
        names: Of the classes, in the order of the model's outputs.
        preprocessing: How raw inputs become these.

    Raises:
        DataError: A loader has no map-style dataset, a sampler or a collate function that changes which samples there are or what
            they are, or a dataset whose first sample is another one each time.
    """
    loaders = {"train": train, CALIBRATION: calibration, VALIDATION: validation, TEST: test}
    datasets = {name: _dataset(each, name) for name, each in loaders.items() if each is not None}
    for name, dataset in datasets.items():
        _check_steady(dataset, name)
    whole = datasets.pop("train")
    given = VALIDATION in datasets and TEST in datasets
    labels = None if given else _labels(whole)
    return share_out(
        whole,
        datasets,
        shares,
        classes=None if labels is None else classes_of(labels),
        groups=groups,
        names=names,
        preprocessing=preprocessing,
    )


def _dataset(loader: Loader, name: str) -> Dataset[Any]:
    if not isinstance(loader, DataLoader):
        return loader
    dataset, sampler = loader.dataset, loader.sampler
    if isinstance(dataset, IterableDataset):
        raise DataError(
            f"the {name} loader streams its samples; a search looks at them again and again: give a dataset with __len__ and "
            "__getitem__"
        )
    if loader.collate_fn is not default_collate:
        what = getattr(loader.collate_fn, "__name__", type(loader.collate_fn).__name__)
        raise DataError(
            f"the {name} loader makes its batches with '{what}', which is not used by a search; do in the dataset what it does, "
            "such as padding to one length, so that items are alike"
        )
    if type(loader.batch_sampler) not in (BatchSampler, type(None)):
        raise DataError(
            f"the {name} loader chooses its batches with a {type(loader.batch_sampler).__name__}, which is not used by a search; "
            "give the dataset itself where any order will do"
        )
    if isinstance(sampler, SubsetRandomSampler):
        return Subset(dataset, sorted(int(index) for index in sampler.indices))
    whole = (
        isinstance(sampler, RandomSampler)
        and not sampler.replacement
        and sampler.num_samples == len(sampler.data_source)
    )
    if not (type(sampler) is SequentialSampler or whole):
        raise DataError(
            f"the {name} loader chooses its samples with a {type(sampler).__name__}, which is not used by a search: each sample "
            "counts once; give the dataset itself, or a Subset of it, if that is what you want"
        )
    return dataset


def _check_steady(dataset: Dataset[Any], name: str) -> None:
    """Refuse a dataset that augments its samples: scores and fingerprints would change with each look."""
    split = Split(dataset, name)
    one, other = split.first(1), split.first(1)
    pairs = zip((*one.inputs.parts, one.labels), (*other.inputs.parts, other.labels), strict=True)
    if not all(torch.equal(a, b) for a, b in pairs):
        raise DataError(
            f"the first sample of the {name} dataset is another one each time it is read; leave out random transforms: a search "
            "augments with space.recovery.augmentation"
        )


def _labels(dataset: Dataset[Any]) -> np.ndarray[Any, Any] | None:
    targets = getattr(dataset, "targets", None)
    if targets is not None and len(targets) == len(dataset):  # type: ignore[arg-type]
        return np.asarray(targets)
    split = Split(dataset, "train")
    if not split.labelled:
        return None
    return torch.cat([batch.labels for batch in split.batches(256)]).numpy()
