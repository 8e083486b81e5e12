"""Recipes as numbers: each knob between 0 and 1."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from paretrim.spaces.dimension import Choice, Dimension, Range, Value, exists

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Encoding:
    """The searched knobs of a space, in order; those that do not exist with the others have their neutral value.

    Attributes:
        dimensions: The knobs.
        constants: Values of the knobs that have only one, which conditions may ask for.
    """

    dimensions: tuple[Dimension, ...]
    constants: Mapping[str, Value]

    @property
    def levels(self) -> list[int | None]:
        """How many values each knob has; None for any between its ends."""
        return [_levels(each) for each in self.dimensions]

    def encode(self, values: Mapping[str, Value]) -> Floats:
        """Return a recipe's knobs between 0 and 1, shape ``(D,)``."""
        return np.array([_position(each, values.get(each.name, each.neutral)) for each in self.dimensions])

    def features(self, values: Mapping[str, Value]) -> Floats:
        """Return what distances between recipes are taken in: numbers as they are, choices among words one for each."""
        return np.concatenate([_features(each, values.get(each.name, each.neutral)) for each in self.dimensions])

    def decode(self, row: Floats) -> dict[str, Value]:
        """Return the recipe of some knobs between 0 and 1, without those that do not exist with the others."""
        found = {each.name: _value(each, float(at)) for each, at in zip(self.dimensions, row, strict=True)}
        kept: dict[str, Value] = dict(self.constants)
        for each in self.dimensions:
            if exists(each, kept):
                kept[each.name] = found[each.name]
        return {each.name: kept[each.name] for each in self.dimensions if each.name in kept}


def stack(rows: Sequence[Floats]) -> Floats:
    """Return rows as a matrix."""
    return np.stack(rows) if rows else np.zeros((0, 0))


def _levels(dimension: Dimension) -> int | None:
    if isinstance(dimension, Choice):
        return len(dimension.values)
    return None if dimension.step is None else 1 + math.floor((dimension.high - dimension.low) / dimension.step + 1e-6)


def _value(dimension: Dimension, at: float) -> Value:
    if isinstance(dimension, Choice):
        return dimension.values[min(len(dimension.values) - 1, int(at * len(dimension.values)))]
    if dimension.log:
        return float(np.clip(dimension.low * (dimension.high / dimension.low) ** at, dimension.low, dimension.high))
    if dimension.step is None:
        return dimension.low + (dimension.high - dimension.low) * at
    levels = _levels(dimension) or 1
    return min(dimension.high, dimension.low + min(levels - 1, int(at * levels)) * dimension.step)


def _position(dimension: Dimension, value: Value) -> float:
    if isinstance(dimension, Choice):
        place = dimension.values.index(value) if value in dimension.values else 0
        return (place + 0.5) / len(dimension.values)
    levels = _levels(dimension)
    if levels is not None and dimension.step is not None:
        place = round((_number(value) - dimension.low) / dimension.step)
        return (min(levels - 1, max(0, place)) + 0.5) / levels
    return _share(dimension, value)


def _share(dimension: Range, value: Value) -> float:
    # A neutral value may lie outside, and 0 has no logarithm.
    number = min(dimension.high, max(dimension.low, _number(value)))
    if dimension.log:
        return math.log(number / dimension.low) / (math.log(dimension.high / dimension.low) or 1.0)
    return (number - dimension.low) / ((dimension.high - dimension.low) or 1.0)


def _features(dimension: Dimension, value: Value) -> Floats:
    if isinstance(dimension, Range):
        return np.array([_share(dimension, value)])
    numbers = [v for v in dimension.values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) == len(dimension.values):
        low, high = min(numbers), max(numbers)
        return np.array([(_number(value) - low) / ((high - low) or 1.0)])
    return np.array([float(value == each) for each in dimension.values]) / math.sqrt(2.0)


def _number(value: Value) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
