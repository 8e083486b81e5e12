"""The ends of a space: the recipe that saves the most bytes, the one that saves nothing, and the way between."""

from __future__ import annotations

from collections.abc import Sequence

from paretrim.search.encoding import Encoding
from paretrim.search.space import Space
from paretrim.spaces.dimension import Value
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.technique import REMOVING
from paretrim.tracking.sensitivity import Profile


def smallest(space: Space, sensitivity: Profile, seed: int) -> Recipe:
    """Return the recipe with each knob where it saves most bytes alone."""
    return _recipe(space, _strongest(sensitivity), seed)


def ladder(space: Space, encoding: Encoding, sensitivity: Profile, steps: Sequence[float]) -> list[dict[str, Value]]:
    """Return recipes that go shares of the way from nothing to the strongest, which makes a model cheaper all round.

    Parts are removed and bits are saved; what only shrinks the file, as zeros do, is left alone, and so are knobs that only
    train.

    Args:
        space: What is searched.
        encoding: Of its searched knobs.
        sensitivity: What each knob does alone.
        steps: Shares of the way, from 0 to 1.
    """
    strongest = {knob: value for knobs in families(space, sensitivity).values() for knob, value in knobs.items()}
    start, end = encoding.encode({}), encoding.encode(strongest)
    return [encoding.decode(start + step * (end - start)) for step in steps] if strongest else []


def families(space: Space, sensitivity: Profile) -> dict[str, dict[str, Value]]:
    """Return the strongest values of the knobs that make a model cheaper all round, by technique."""
    found: dict[str, dict[str, Value]] = {
        part.name: {} for part in space.techniques if part.stage < REMOVING or part.branches
    }
    for knob, value in _strongest(sensitivity).items():
        technique = knob.partition(".")[0]
        if technique in found:
            found[technique][knob] = value
    return {name: knobs for name, knobs in found.items() if knobs}


def largest(space: Space, seed: int) -> Recipe:
    """Return the recipe with each knob where it does nothing, which is trained all the same."""
    return _recipe(space, {}, seed)


def _strongest(sensitivity: Profile) -> dict[str, Value]:
    saved: dict[str, tuple[float, Value]] = {}
    for effect in sensitivity.effects:
        if not effect.failed and effect.bytes_saved > saved.get(effect.knob, (0.0, None))[0]:
            saved[effect.knob] = (effect.bytes_saved, effect.value)
    return {knob: value for knob, (_, value) in saved.items()}


def _recipe(space: Space, chosen: dict[str, Value], seed: int) -> Recipe:
    usual = {each.name: each.neutral for each in space.dimensions}
    return space.recipe({**usual, **space.constants, **chosen}, seed)
