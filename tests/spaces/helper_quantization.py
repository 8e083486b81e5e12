"""Recipes of quantization for the small net."""

from __future__ import annotations

from paretrim.evaluators.abilities import GRIDS, Abilities
from paretrim.spaces.dimension import Value
from paretrim.spaces.recipe import Recipe

LAYERS = ("stem", "conv1", "conv2", "head")
ABLE = Abilities(integers=GRIDS, weight_only=(4, 8), signs=True)


def recipe_of(bits: int, **settings: Value) -> Recipe:
    widths: dict[str, Value] = {f"quantization.bits.{name}": bits for name in LAYERS}
    return Recipe.of(widths | {f"quantization.{name}": value for name, value in settings.items()}, seed=3)
