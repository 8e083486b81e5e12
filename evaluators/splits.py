"""The data of a job: three splits that a search may see, and one that it may not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset, default_collate

from paretrim.errors import DataError
from paretrim.evaluators.inputs import Inputs, joined
from paretrim.evaluators.preprocessing import Preprocessing

Tensor = torch.Tensor
_SURVEYED = 4096
_LABELS = ("labels", "label")
_NOTHING = torch.zeros(0)


@dataclass(frozen=True)
class Batch:
    """Some samples.

    Attributes:
        inputs: Of ``N`` samples.
        labels: Shape ``(N,)`` for classes, ``(N, ...)`` for regression.
        index: Positions of the samples in their split, shape ``(N,)``.
    """

    inputs: Inputs
    labels: Tensor
    index: Tensor


class Split:
    """One part of the data: ``N`` samples of an input and a label, or of an input alone.

    An input is one array; or a tuple of several, for a model that takes them by position; or a mapping of names to
    several, for one that takes them by name.

    Args:
        data: A pair (inputs, labels) of arrays or tensors of equal length, or a map-style ``torch.utils.data.Dataset`` whose
            items are (input, label) pairs, or mappings with a ``label`` or ``labels`` in them. Without labels: a pair
            (inputs, None), or a dataset whose items are mappings without a label, or tensors.

    Attributes:
        name: What it is called in messages.
        labelled: Whether it has labels; where it has none, those of a batch have no columns, shape ``(N, 0)``.
        name: What to call it in messages.

    Raises:
        DataError: The data is something else, is empty, or its two arrays differ in length.
    """

    def __init__(self, data: Any, name: str = "data") -> None:
        self.name = name
        self._arrays: tuple[Inputs, Tensor] | None = None
        self._dataset: Dataset[Any] | None = None
        if isinstance(data, Split):
            self._arrays, self._dataset = data._arrays, data._dataset
        elif isinstance(data, tuple | list) and len(data) == 2:
            self._arrays = _as_tensors(data[0], data[1], name)
        elif hasattr(data, "__getitem__") and hasattr(data, "__len__"):
            self._dataset = cast("Dataset[Any]", data)
        else:
            raise DataError(
                f"the {name} split is a {type(data).__name__}; give a pair (inputs, labels) of arrays or tensors, "
                "or a map-style torch Dataset whose items are such pairs, or mappings with a label among them"
            )
        if len(self) == 0:
            raise DataError(f"the {name} split is empty; it needs at least one sample")
        first = self._first()
        self.labelled = first.labels.dim() == 1 or first.labels.shape[1:].numel() > 0

    def __len__(self) -> int:
        if self._arrays is not None:
            return len(self._arrays[0])
        return len(cast(Sized, self._dataset))

    def batches(self, size: int, *, seed: int | None = None) -> Iterator[Batch]:
        """Yield all samples in batches, in order, or shuffled when a seed is given."""
        order = torch.arange(len(self))
        if seed is not None:
            order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        for index in order.split(size):
            yield self.at(index)

    def at(self, index: Tensor) -> Batch:
        """Return the samples at the given positions."""
        if self._arrays is not None:
            inputs, labels = self._arrays
            return Batch(inputs[index], labels[index], index)
        dataset = cast("Dataset[Any]", self._dataset)
        inputs, labels = default_collate([_pair(dataset[i]) for i in index.tolist()])
        return Batch(Inputs.of(inputs), torch.as_tensor(labels), index)

    def with_labels(self, labels: Tensor) -> Split:
        """Return the same inputs with other labels, shape ``(N, ...)``."""
        if self._arrays is not None:
            return Split((self._arrays[0], labels), self.name)
        return Split(_Relabelled(self, labels), self.name)

    def first(self, count: int) -> Batch:
        """Return the first samples, at most `count`."""
        return self.at(torch.arange(min(count, len(self))))

    def part(self, index: Tensor) -> Split:
        """Return the samples at the given positions as a split of their own."""
        if self._arrays is not None:
            return Split((self._arrays[0][index], self._arrays[1][index]), self.name)
        return Split(Subset(cast("Dataset[Any]", self._dataset), index.tolist()), self.name)

    def joined(self, other: Split) -> Split:
        """Return the samples of this split and, after them, those of another."""
        if self._arrays is not None and other._arrays is not None:
            (own, labels), (more, others) = self._arrays, other._arrays
            return Split((joined([own, more]), torch.cat([labels, others])), self.name)
        return Split(ConcatDataset([_Samples(self), _Samples(other)]), self.name)

    def survey(self) -> Iterator[Batch]:
        """Yield all samples of arrays, and up to 4,096 evenly spaced ones of a dataset, which may be slow to read."""
        positions = torch.arange(len(self))
        if self._arrays is None and len(self) > _SURVEYED:
            positions = torch.linspace(0, len(self) - 1, _SURVEYED).long()
        for index in positions.split(1024):
            yield self.at(index)

    def sample_hashes(self) -> list[bytes]:
        """Return a hash of the input and label of each surveyed sample."""
        return [
            _sample_hash(x, y)
            for batch in self.survey()
            for x, y in zip(batch.inputs.samples(), batch.labels, strict=True)
        ]

    def fingerprint(self) -> str:
        """Return a hash over the length and the surveyed samples."""
        digest = hashlib.sha256(str(len(self)).encode())
        for sample in self.sample_hashes():
            digest.update(sample)
        return digest.hexdigest()

    def _first(self) -> Batch:
        try:
            return self.first(1)
        except DataError as error:
            raise DataError(f"the {self.name} split: {error}") from None
        except Exception as error:
            raise DataError(
                f"the {self.name} split cannot give its first sample: {type(error).__name__}: {error}"
            ) from error


class _Samples(Dataset[Any]):
    """A split as a dataset of tensors: those of two forms of data, such as arrays and numbers, fit in one batch."""

    def __init__(self, split: Split) -> None:
        self._split = split

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, position: int) -> tuple[Any, Tensor]:
        sample = self._split.at(torch.tensor([position]))
        return _alone(sample.inputs), sample.labels[0]


class _Relabelled(Dataset[Any]):
    """A split as a dataset, with labels of another's."""

    def __init__(self, split: Split, labels: Tensor) -> None:
        self._split, self._labels = split, labels

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, position: int) -> tuple[Any, Tensor]:
        return _alone(self._split.at(torch.tensor([position])).inputs), self._labels[position]


def _alone(inputs: Inputs) -> Any:
    """Return the only sample's inputs as a dataset gives them."""
    (one,) = inputs.samples()
    given = one.arguments()
    return given[0] if isinstance(given, tuple) and len(given) == 1 else given


class HeldOut:
    """The test split: a type of its own, which no evaluator of the search accepts.

    It is opened once, by the step that scores the final front.
    """

    def __init__(self, data: Any) -> None:
        self._split = Split(data, "test")

    def __len__(self) -> int:
        return len(self._split)

    def unseal(self) -> Split:
        """Return the samples. Only the final scoring, and the check that splits do not overlap, may call this."""
        return self._split


@dataclass(frozen=True)
class SearchSplits:
    """What a search may see."""

    train: Split
    calibration: Split
    validation: Split


class Splits:
    """The data of a job.

    Each part is a pair ``(inputs, labels)`` of arrays or tensors, or a map-style torch ``Dataset`` of such pairs; see `Split`
    for models of several inputs.

    Args:
        train: For recovery training.
        calibration: For the quantizer's activation ranges; may be drawn from the training data.
        validation: For every choice of the search.
        test: Held out; scored once, for the final front.
        labels: Names of the classes, in the order of the model's outputs, for who receives an exported model.
        preprocessing: How raw inputs become these, for the same.

    Raises:
        DataError: A part is empty or of the wrong kind.
    """

    def __init__(
        self,
        *,
        train: Any,
        calibration: Any,
        validation: Any,
        test: Any,
        labels: Sequence[str] | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        self.labels = None if labels is None else tuple(str(name) for name in labels)
        self.preprocessing = preprocessing
        self.search = SearchSplits(
            Split(train, "train"), Split(calibration, "calibration"), Split(validation, "validation")
        )
        self.test = HeldOut(test)

    def check(self) -> None:
        """Check that validation and test share no sample with another split, and that inputs are finite.

        Raises:
            DataError: Lists everything that is wrong.
        """
        parts = {
            "train": self.search.train,
            "calibration": self.search.calibration,
            "validation": self.search.validation,
            "test": self.test.unseal(),
        }
        wrong = [problem for part in parts.values() for problem in _unfit_inputs(part)]
        hashes = {name: set(part.sample_hashes()) for name, part in parts.items()}
        for kept, others in (("validation", ("train", "calibration", "test")), ("test", ("train", "calibration"))):
            for other in others:
                shared = len(hashes[kept] & hashes[other])
                if shared:
                    wrong.append(
                        f"{shared} sample{'s' if shared > 1 else ''} of the {kept} split {'are' if shared > 1 else 'is'} "
                        f"also in the {other} split; scores would be too good, so remove them from one of the two"
                    )
        if wrong:
            raise DataError("the data has mistakes:\n" + "\n".join(f"  - {problem}" for problem in wrong))

    def counts(self) -> dict[str, int]:
        """Return how many samples each part has."""
        return {part.name: len(part) for part in self._parts()}

    def fingerprint(self) -> str:
        """Return a hash of the data, to tell whether a resumed job still has the same."""
        return hashlib.sha256("".join(part.fingerprint() for part in self._parts()).encode()).hexdigest()

    def _parts(self) -> tuple[Split, ...]:
        return self.search.train, self.search.calibration, self.search.validation, self.test.unseal()


def _as_tensors(inputs: Any, labels: Any, name: str) -> tuple[Inputs, Tensor]:
    try:
        x = Inputs.of(inputs)
        y = torch.zeros((len(x), 0)) if labels is None else _labels(labels)
    except DataError as error:
        raise DataError(f"the {name} split: {error}") from None
    except (TypeError, ValueError) as error:
        raise DataError(f"the {name} split cannot be read as two arrays: {error}") from error
    if any(part.dim() == 0 for part in x.parts) or y.dim() == 0 or len(x) != len(y):
        shapes = " and ".join(str(tuple(part.shape)) for part in x.parts)
        raise DataError(
            f"the {name} split has inputs of shape {shapes} and labels of shape {tuple(y.shape)}; "
            "their first dimensions must be equal"
        )
    return x, y


def _labels(data: Any) -> Tensor:
    return torch.as_tensor(np.asarray(data.detach() if isinstance(data, Tensor) else data))


def _pair(item: Any) -> tuple[Any, Any]:
    """Return a dataset's item as (inputs, label)."""
    if isinstance(item, Mapping):
        label = next((name for name in _LABELS if name in item), None)
        inputs = {name: value for name, value in item.items() if name != label}
        return inputs, _NOTHING if label is None else item[label]
    if isinstance(item, Tensor | np.ndarray):
        return item, _NOTHING
    inputs, label = item
    return inputs, label


def _sample_hash(x: Inputs, y: Tensor) -> bytes:
    # The same label may be stored in another type in another split.
    y = y.double() if y.is_floating_point() else y.long()
    parts = b"".join(part.numpy().tobytes() for part in x.parts)
    return hashlib.sha256(parts + y.numpy().tobytes()).digest()[:16]


def _unfit_inputs(part: Split) -> Iterator[str]:
    floats = (each for batch in part.survey() for each in batch.inputs.parts if each.is_floating_point())
    odd = (not bool(torch.isfinite(each).all()) for each in floats)
    if any(odd):
        yield f"the {part.name} split has inputs that are NaN or infinite; clean them before the search"
