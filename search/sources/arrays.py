"""Data from arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from paretrim.evaluators.preprocessing import Preprocessing
from paretrim.evaluators.splits import Split, Splits
from paretrim.search.sources.cut import CALIBRATION, TEST, VALIDATION, Shares, alike, classes_of, share_out

Pair = tuple[Any, Any]


def from_arrays(
    inputs: Any,
    labels: Any,
    *,
    calibration: Pair | None = None,
    validation: Pair | None = None,
    test: Pair | None = None,
    groups: Sequence[Any] | None = None,
    shares: Shares = Shares(),  # noqa: B008 - it is frozen
    names: Sequence[str] | None = None,
    preprocessing: Preprocessing | None = None,
) -> Splits:
    """Return splits of NumPy arrays or tensors.

    Args:
        inputs: Of ``N`` samples, shape ``(N, ...)``; or a tuple of such, for a model that takes them by position, or a mapping of
            names to such, for one that takes them by name.
        labels: Shape ``(N,)`` of whole numbers for classes; floats, or more dimensions, for others. None where there are none:
            the uncompressed model's answers are learned then.
        calibration: Inputs and labels of its own; by default drawn from the training samples.
        validation: Inputs and labels of its own; by default cut from `inputs`.
        test: As `validation`.
        groups: Of each of the ``N`` samples, such as whom it was taken from; no group is in two splits.
        shares: How much is cut, and with which seed.
        names: Of the classes, in the order of the model's outputs.
        preprocessing: How raw inputs become these.

    Raises:
        DataError: Inputs and labels differ in number, or there are too few.
    """
    whole = Split((_parts(inputs), labels), "train")
    given = {CALIBRATION: calibration, VALIDATION: validation, TEST: test}
    classes = None if labels is None else classes_of(labels.detach() if hasattr(labels, "detach") else labels)
    return share_out(
        whole,
        {name: None if pair is None else (_parts(pair[0]), pair[1]) for name, pair in given.items()},
        shares,
        classes=classes,
        groups=alike(whole) if groups is None else groups,
        names=names,
        preprocessing=preprocessing,
    )


def _parts(inputs: Any) -> Any:
    return dict(inputs) if isinstance(inputs, Mapping) else inputs
