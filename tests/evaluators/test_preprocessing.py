from __future__ import annotations

import numpy as np
import pytest

from paretrim.errors import DataError
from paretrim.evaluators.preprocessing import Preprocessing
from paretrim.evaluators.splits import Splits


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"scale": float("nan")}, "must be finite"),
        ({"scale": 0.0}, "may be zero"),
        ({"std": (1.0, 0.0)}, "may be zero"),
        ({"mean": (0.5,), "std": (1.0, 1.0)}, "1 means and 2 standard deviations"),
    ],
)
def test_numbers_that_do_not_do_are_refused(given: dict[str, object], words: str) -> None:
    with pytest.raises(DataError, match=words):
        Preprocessing(**given)  # type: ignore[arg-type]


def test_splits_carry_what_a_receiver_must_know() -> None:
    def part(first: int) -> tuple[np.ndarray, np.ndarray]:
        return np.arange(first, first + 3, dtype=np.float32)[:, None], np.arange(3)

    raw = Preprocessing(scale=0.5)
    splits = Splits(
        train=part(0), calibration=part(3), validation=part(6), test=part(9), labels=["a", "b", "c"], preprocessing=raw
    )
    assert (splits.labels, splits.preprocessing) == (("a", "b", "c"), raw)
    assert splits.counts() == {"train": 3, "calibration": 3, "validation": 3, "test": 3}
