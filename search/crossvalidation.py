"""Cross-validation of a recipe over data that the given model has not seen.

The given model was trained on the training split, so the parts are of the validation split: for each part a model is
made by the recipe from the training split and the other parts, and scored on that part.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from paretrim.evaluators.measurement import Measurement
from paretrim.evaluators.splits import SearchSplits, Split
from paretrim.spaces.device import answers
from paretrim.spaces.schooling import CPU

LEAST = 2
# Student's t, 97.5%, by degrees of freedom from 1.
_T = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


@dataclass(frozen=True)
class Fold:
    """One part that is held out, and what may be learnt from.

    Attributes:
        train: The training split and the other parts.
        teacher: The teacher's outputs on `train`, or None when nothing is distilled.
        held: The part.
    """

    train: Split
    teacher: torch.Tensor | None
    held: Split


def folds(
    model: nn.Module, splits: SearchSplits, teacher: torch.Tensor | None, count: int, device: torch.device = CPU
) -> Iterator[Fold]:
    """Yield each fold.

    Args:
        model: The one that teaches.
        splits: Of the search.
        teacher: The model's outputs on the training split, or None when nothing is distilled.
        count: How many folds.
        device: Where the teacher answers.
    """
    validation = splits.validation
    told = None if teacher is None else answers(model, validation.batches(256), device)
    for part in range(count):
        held = torch.arange(part, len(validation), count)
        rest = torch.tensor([i for i in range(len(validation)) if i % count != part])
        taught = None if teacher is None or told is None else torch.cat([teacher, told[rest]])
        yield Fold(splits.train.joined(validation.part(rest)), taught, validation.part(held))


def summary(name: str, scores: Sequence[float]) -> Measurement:
    """Return the mean of the folds' scores, with the t interval of the mean."""
    mean, count = float(np.mean(scores)), len(scores)
    # From ten degrees of freedom on, near the normal distribution, this is right to a hundredth.
    t = _T[count - 2] if count - 2 < len(_T) else 1.96 + 2.5 / (count - 1)
    reach = t * float(np.std(scores, ddof=1)) / math.sqrt(count)
    return Measurement(name, mean, mean - reach, mean + reach, f"mean of {count} folds of the validation split")
