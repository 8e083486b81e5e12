"""How it reads when a space cannot meet its bounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from paretrim.search.space import Space
from paretrim.search.words import quantity
from paretrim.spaces import technique
from paretrim.spaces.dimension import Value
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.technique import TRAINING

if TYPE_CHECKING:
    from paretrim.search.reach import Found
    from paretrim.tracking.constraints import Constraint

_MOST_PLACES = 4


def out_of_reach(found: Found, space: Space, absent: Sequence[str]) -> str:
    """Say which bounds cannot be met, by how much, what comes nearest, and what to do.

    Args:
        found: What comes nearest.
        space: What was searched.
        absent: Techniques that are not in it.
    """
    more = f", or more techniques (left out: {', '.join(absent)})" if absent else ""
    return (
        f"{_bounds(found)} cannot be met: {_nearest(found, space)}. Loosen {_them(found)}, name another "
        f"target, or allow stronger settings{more}; with 'preview: off' under 'search' it is tried all the same"
    )


def doubtful(found: Found, space: Space) -> str:
    """Say that bounds may not be met, and what comes nearest."""
    return f"perhaps nothing meets {_bounds(found)}: {_nearest(found, space)}; the search goes on and tries"


def recipe_words(recipe: Recipe, space: Space) -> str:
    """Return what a recipe does to the model, its training left out: ``pruning.ratio 0.75 (stem, inner)``."""
    acting = {part.name for part in space.techniques if part.stage < TRAINING}
    neutral = {each.name: each.neutral for each in space.dimensions}
    groups: dict[tuple[str, Value], list[str]] = {}
    for name, value in recipe.items:
        part, _, rest = name.partition(".")
        if part in acting and value != neutral.get(name, value):
            knob, _, place = rest.partition(".")
            groups.setdefault((f"{part}.{knob}", value), []).append(place)
    told = [f"{knob} {_number(value)}{_places(places)}" for (knob, value), places in groups.items()]
    return "; ".join(told) or "the model as it is"


def absent_techniques(space: Space) -> list[str]:
    """Return the names of techniques that make models cheaper and are not in a space."""
    own = {part.name for part in space.techniques}
    return sorted(name for name, kind in technique.installed().items() if name not in own and kind.stage < TRAINING)


def _bounds(found: Found) -> str:
    told = [f"'{c.text}' (that is {quantity(c.metric, found.limits[c.metric])})" for c in found.bounds]
    return f"{' and '.join(told)} together" if len(told) > 1 else told[0]


def _them(found: Found) -> str:
    return "one of them" if len(found.bounds) > 1 else "it"


def _nearest(found: Found, space: Space) -> str:
    values = ", ".join(_value(found, each) for each in found.bounds)
    return f"of {found.tried} recipes measured untrained the nearest has {values} [{recipe_words(found.recipe, space)}]"


def _value(found: Found, bound: Constraint) -> str:
    value, limit, floor = found.values[bound.metric], found.limits[bound.metric], found.floor[bound.metric]
    over = f"{value / limit - 1:.1%} too much" if limit < value < 2 * limit else f"{value / limit:.3g} times the bound"
    best = f", after training {quantity(bound.metric, floor)} at best" if floor < value else ""
    return f"{bound.metric} {quantity(bound.metric, value)} ({over}{best})"


def _number(value: Value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _places(places: Sequence[str]) -> str:
    named = [place for place in places if place]
    shown = ", ".join(named[:_MOST_PLACES])
    more = f" and {len(named) - _MOST_PLACES} more" if len(named) > _MOST_PLACES else ""
    return f" ({shown}{more})" if named else ""
