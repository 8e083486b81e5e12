"""The knobs of a space as Optuna's samplers see them: a flat list, in which every trial has a value for every knob.

Some knobs exist only with some values of others. Samplers that model all knobs together see no more than what all trials
have in common, so a knob that a trial lacks is filled in, and at random: filled in with always the same value, all other
values of it would look as if they had never been tried, and samplers that seek the unknown would try them again and
again, though nothing depends on them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from paretrim.search.space import Space
from paretrim.spaces.dimension import Choice, Dimension, Range, Value, existing

_DECIMALS = 9


def distribution(dimension: Dimension) -> BaseDistribution:
    """Return what Optuna samples a knob from."""
    if isinstance(dimension, Choice):
        return CategoricalDistribution(dimension.values)
    if dimension.step is None:
        return FloatDistribution(dimension.low, dimension.high, log=dimension.log)
    # Optuna reckons steps in decimals, in which four times 0.16666666666666666 is more than 4 / 6, and would end such a
    # range a step too early: so it gets a step that has few decimals.
    steps, short = _grid(dimension, dimension.step)
    return FloatDistribution(dimension.low, round(dimension.low + steps * short, _DECIMALS), step=short)


def from_sampled(dimension: Dimension, value: Value) -> Value:
    """Return a knob's value for the value that Optuna sampled."""
    if isinstance(dimension, Choice) or dimension.step is None:
        return value
    _, short = _grid(dimension, dimension.step)
    number = _number(value)
    # To the bit what the guide makes of the same place, or the two would not know each other's recipes.
    return min(dimension.high, dimension.low + round((number - dimension.low) / short) * dimension.step)


def to_sampled(dimension: Dimension, value: Value) -> Value:
    """Return the value that Optuna would have sampled for a knob's value."""
    if isinstance(dimension, Choice):
        return dimension.values[dimension.values.index(value)]
    if dimension.step is None:
        return _number(value)
    steps, short = _grid(dimension, dimension.step)
    at = min(steps, max(0, round((_number(value) - dimension.low) / dimension.step)))
    return round(dimension.low + at * short, _DECIMALS)


def flat(space: Space, values: Mapping[str, Value], seed: int) -> dict[str, Value] | None:
    """Return what Optuna would have sampled for a recipe's values, or None where it could not have.

    The baseline's knobs are neutral, and not all neutral values are among those that are searched.

    Args:
        space: What is searched.
        values: Of the recipe.
        seed: Of what is filled in.
    """
    drawn = random.Random(seed)
    found: dict[str, Value] = {}
    for dimension in space.searched:
        value = _drawn(dimension, drawn)
        if dimension.name in values:
            value = values[dimension.name]
            if not dimension.allows(value):
                return None
        found[dimension.name] = to_sampled(dimension, value)
    return found


def sampled(space: Space, values: Mapping[str, Value]) -> dict[str, Value]:
    """Return the values of the knobs that exist, in Optuna's terms, for what is kept in the study."""
    there = existing(space.dimensions, {**space.constants, **values})
    return {d.name: to_sampled(d, there[d.name]) for d in space.searched if d.name in there}


def _drawn(dimension: Dimension, drawn: random.Random) -> Value:
    if isinstance(dimension, Choice):
        return drawn.choice(dimension.values)
    share = drawn.random()
    if dimension.log:
        return dimension.low * math.pow(dimension.high / dimension.low, share)
    return dimension.low + share * (dimension.high - dimension.low)


def _grid(dimension: Range, step: float) -> tuple[int, float]:
    return math.floor((dimension.high - dimension.low) / step + 1e-6), round(step, _DECIMALS)


def _number(value: Value) -> float:
    if not isinstance(value, int | float):
        raise TypeError(f"a number is needed; given {value!r}")
    return float(value)
