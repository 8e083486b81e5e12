"""The two ends of a space: the recipe that saves the most bytes, and the one that saves nothing."""

from __future__ import annotations

from paretrim.search.space import Space
from paretrim.spaces.dimension import Value
from paretrim.spaces.recipe import Recipe
from paretrim.tracking.sensitivity import Profile


def smallest(space: Space, sensitivity: Profile, seed: int) -> Recipe:
    """Return the recipe with each knob where it saves most bytes alone."""
    saved: dict[str, tuple[float, Value]] = {}
    for effect in sensitivity.effects:
        if not effect.failed and effect.bytes_saved > saved.get(effect.knob, (0.0, None))[0]:
            saved[effect.knob] = (effect.bytes_saved, effect.value)
    return _recipe(space, {knob: value for knob, (_, value) in saved.items()}, seed)


def largest(space: Space, seed: int) -> Recipe:
    """Return the recipe with each knob where it does nothing, which is trained all the same."""
    return _recipe(space, {}, seed)


def _recipe(space: Space, chosen: dict[str, Value], seed: int) -> Recipe:
    usual = {each.name: each.neutral for each in space.dimensions}
    return space.recipe({**usual, **space.constants, **chosen}, seed)
