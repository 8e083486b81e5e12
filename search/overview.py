"""The space of a job, laid out for reading: its knobs, how many recipes they make, and what was left out and why."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from paretrim.search.space import Space
from paretrim.spaces.dimension import Choice, Condition, Dimension


@dataclass(frozen=True)
class Knobs:
    """Knobs that differ in the layers they turn only.

    Attributes:
        name: Their name, a star for where they differ: ``pruning.ratio.*``.
        values: What they may be: ``0 to 0.75 in steps of 0.125``.
        when: When they exist; empty for always.
        places: The knobs of the model's layers; empty for a single knob.
    """

    name: str
    values: str
    when: str
    places: tuple[str, ...]


@dataclass(frozen=True)
class Overview:
    """What there is to know of a space before it is searched.

    Attributes:
        searched: What is searched.
        constant: (name, value) of what is in each recipe and does not change.
        groups: (knob, layers, channels) of what is cut together.
        left_out: (technique, layer or part, reason).
        recipes: Base-10 logarithm of how many recipes there are, continuous knobs left out, and counted as if knobs that
            exist only with some values of others did so always.
        continuous: How many knobs take any value in a range.
    """

    searched: tuple[Knobs, ...]
    constant: tuple[tuple[str, str], ...]
    groups: tuple[tuple[str, tuple[str, ...], int], ...]
    left_out: tuple[tuple[str, str, str], ...]
    recipes: float
    continuous: int


def overview(space: Space) -> Overview:
    """Lay out a space."""
    anatomy = space.anatomy
    named = (*anatomy.cut_groups(), *anatomy.head_groups(), *anatomy.layer_groups(), *anatomy.weight_only_groups())
    places = {name for name, _ in named}
    gathered: dict[tuple[str, str, str], list[str]] = {}
    for dimension in space.searched:
        family, place = _family(dimension.name, places)
        gathered.setdefault((family, _values(dimension), _when(dimension.when, places)), []).append(place)
    found = (Knobs(*key, tuple(place for place in where if place)) for key, where in gathered.items())
    sizes = [_size(dimension) for dimension in space.searched]
    return Overview(
        searched=tuple(found),
        constant=tuple((name, str(value)) for name, value in space.constants.items()),
        groups=tuple(
            (name, tuple(layer for group in groups for layer in group.layers), sum(g.channels for g in groups))
            for name, groups in anatomy.cut_groups()
        ),
        left_out=tuple(_left_out(space)),
        recipes=sum(math.log10(size) for size in sizes if size is not None),
        continuous=sizes.count(None),
    )


def _left_out(space: Space) -> Iterable[tuple[str, str, str]]:
    for part in space.techniques:
        for where, reason in part.left_out(space.anatomy).items():
            yield part.name, where, reason


def _family(name: str, places: set[str]) -> tuple[str, str]:
    """Split a knob's name at the layer that it is of: ``pruning.ratio.stem`` to ``pruning.ratio.*`` and ``stem``."""
    parts = name.split(".")
    # A knob that belongs to no layer has two words, of which the second may be a layer's name too: recovery.momentum.
    for start in range(2, len(parts)):
        place = ".".join(parts[start:])
        if place in places:
            return ".".join([*parts[:start], "*"]), place
    return name, ""


def _values(dimension: Dimension) -> str:
    if isinstance(dimension, Choice):
        return ", ".join(str(value) for value in dimension.values)
    ends = f"{dimension.low:g} to {dimension.high:g}"
    if dimension.step is not None:
        return f"{ends} in steps of {dimension.step:g}"
    return f"{ends}, by ratios" if dimension.log else ends


def _when(conditions: tuple[Condition, ...], places: set[str]) -> str:
    said = []
    for condition in conditions:
        family = _family(condition.name, places)[0]
        if condition.values is None:
            said.append(f"{family} above {condition.above:g}")
        else:
            said.append(f"{family} is {' or '.join(str(value) for value in condition.values)}")
    return ", or ".join(dict.fromkeys(said))


def _size(dimension: Dimension) -> int | None:
    if isinstance(dimension, Choice):
        return len(dimension.values)
    return None if dimension.step is None else 1 + round((dimension.high - dimension.low) / dimension.step)
