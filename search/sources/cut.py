"""Sharing out samples that come in one piece among the splits of a search."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from paretrim.errors import DataError
from paretrim.evaluators.preprocessing import Preprocessing
from paretrim.evaluators.splits import Split, Splits

TRAIN, CALIBRATION, VALIDATION, TEST = "train", "calibration", "validation", "test"
# What folders and datasets call the splits.
USUAL = {
    TRAIN: ("train", "training"),
    CALIBRATION: ("calibration", "calib"),
    VALIDATION: ("validation", "valid", "val", "dev"),
    TEST: ("test", "testing"),
}
Codes = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Shares:
    """How samples that come in one piece are shared out.

    Samples of each class go to all splits in the same shares, all samples of a group go to one split, and so do samples that
    are equal, where they are looked at (arrays and frames). The same seed shares out the same samples in the same way.

    Attributes:
        validation: Share of the samples for validation, where no validation data is given.
        test: Share for the test at the end, where no test data is given.
        calibration: How many training samples are used for calibration too, where no calibration data is given.
        seed: Of what is random.

    Raises:
        DataError: The shares leave nothing to train on, or nothing for one of the others.
    """

    validation: float = 0.2
    test: float = 0.2
    calibration: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the numbers."""
        if min(self.validation, self.test) <= 0 or self.validation + self.test >= 1:
            raise DataError(
                f"shares of {self.validation} for validation and {self.test} for the test were given; both must be more than 0, "
                "and together less than 1"
            )
        if self.calibration < 1:
            raise DataError(f"{self.calibration} samples for calibration were given; at least one is needed")


def share_out(
    piece: Any,
    given: Mapping[str, Any],
    shares: Shares,
    *,
    classes: Sequence[Any] | Codes | None = None,
    groups: Sequence[Any] | Codes | None = None,
    names: Sequence[str] | None = None,
    preprocessing: Preprocessing | None = None,
) -> Splits:
    """Return splits: those that are given as they are, the others cut from one piece.

    Args:
        piece: Training data, and all that is not given.
        given: Data of the other splits, by their names; None where there is none.
        shares: How much of the piece each gets.
        classes: Of each sample of the piece, for splits with the same shares of each; None for none.
        groups: Of each sample of the piece; a group is never in two splits.
        names: Of the classes, for `Splits`.
        preprocessing: For `Splits`.

    Raises:
        DataError: There are too few samples or groups.
    """
    whole = Split(piece, TRAIN)
    found = {name: data for name, data in given.items() if data is not None}
    wanted = {n: s for n, s in ((VALIDATION, shares.validation), (TEST, shares.test)) if n not in found}
    rng = np.random.default_rng(shares.seed)
    kept = np.arange(len(whole))
    if wanted:
        parts = _cut(len(whole), wanted, codes(classes), codes(groups), rng)
        kept = parts.pop(TRAIN)
        found |= {name: Split(whole, name).part(torch.from_numpy(index)) for name, index in parts.items()}
    train = whole.part(torch.from_numpy(kept))
    if CALIBRATION not in found:
        drawn = np.sort(rng.permutation(len(train))[: shares.calibration])
        found[CALIBRATION] = train.part(torch.from_numpy(drawn))
    return Splits(
        train=train,
        calibration=found[CALIBRATION],
        validation=found[VALIDATION],
        test=found[TEST],
        labels=names,
        preprocessing=preprocessing,
    )


def usual_splits(names: Iterable[str], what: str) -> dict[str, str]:
    """Return the names under which folders or datasets have the splits, by those that the splits have here.

    Args:
        names: That there are.
        what: They are of, for messages.

    Raises:
        DataError: None is for training, or two are for the same split.
    """
    there = list(names)
    found = {split: [name for name in there if name.lower() in usual] for split, usual in USUAL.items()}
    twice = next((each for each in found.values() if len(each) > 1), None)
    if twice or not found[TRAIN]:
        wrong = f"{' and '.join(twice)} are for the same split" if twice else "none of them is for training"
        known = "; ".join(f"{split}: {', '.join(usual)}" for split, usual in USUAL.items())
        raise DataError(f"{what} has {', '.join(there) or 'nothing'}; {wrong}. Names are understood so: {known}")
    return {split: each[0] for split, each in found.items() if each}


def codes(values: Sequence[Any] | Codes | None) -> Codes | None:
    """Return a number for each value, equal ones the same."""
    if values is None:
        return None
    known: dict[Any, int] = {}
    return np.array([known.setdefault(value, len(known)) for value in np.asarray(values).tolist()], dtype=np.int64)


def alike(split: Split) -> Codes:
    """Return groups of samples that are equal in inputs and label."""
    known: dict[bytes, int] = {}
    return np.array([known.setdefault(each, len(known)) for each in split.sample_hashes()], dtype=np.int64)


def classes_of(labels: Any) -> Codes | None:
    """Return the classes that labels are, None where they are something else, such as numbers with fractions."""
    found = np.asarray(labels)
    return found.astype(np.int64) if found.ndim == 1 and found.dtype.kind in "iub" else None


def _cut(
    count: int, wanted: Mapping[str, float], classes: Codes | None, groups: Codes | None, rng: np.random.Generator
) -> dict[str, np.ndarray[Any, Any]]:
    """Return the positions of the samples of each split."""
    groups = np.arange(count) if groups is None else groups
    classes = np.zeros(count, dtype=np.int64) if classes is None else classes
    if len(groups) != count or len(classes) != count:
        raise DataError(f"{count} samples have {len(groups)} groups and {len(classes)} classes; each needs one")
    sizes = np.bincount(groups)
    order = np.argsort(_ranks(_majority(groups, classes), rng), kind="stable")
    middles = (np.cumsum(sizes[order]) - sizes[order] / 2) / count
    bounds = np.cumsum([0.0, *wanted.values(), 1.0 - sum(wanted.values())])
    parts: dict[str, np.ndarray[Any, Any]] = {}
    for name, low, high in zip([*wanted, TRAIN], bounds, bounds[1:], strict=False):
        chosen = order[(middles >= low) & (middles < high)]
        parts[name] = np.flatnonzero(np.isin(groups, chosen))
    empty = [name for name, part in parts.items() if not len(part)]
    if empty:
        raise DataError(
            f"{count} samples in {len(sizes)} groups leave nothing for {' and '.join(empty)}; give more samples or groups, or "
            "data of its own"
        )
    return parts


def _majority(groups: Codes, classes: Codes) -> Codes:
    """Return the most frequent class of each group."""
    width = int(classes.max()) + 1
    pairs, counts = np.unique(groups * width + classes, return_counts=True)
    by_count = pairs[np.argsort(counts, kind="stable")]
    found = np.zeros(int(groups.max()) + 1, dtype=np.int64)
    found[by_count // width] = by_count % width  # the last one written is the most frequent
    return found


def _ranks(classes: Codes, rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return numbers from 0 to 1 by which members of each class are spread evenly, in random order."""
    sizes = np.bincount(classes)
    classes = np.where(sizes[classes] == 1, len(sizes), classes)  # those that are alone are spread together
    ranks = np.empty(len(classes))
    for each in np.unique(classes):
        members = rng.permutation(np.flatnonzero(classes == each))
        ranks[members] = (np.arange(len(members)) + rng.random()) / len(members)
    return ranks
