"""What a technique is: one way to make a model smaller.

A technique says which knobs it has and acts at the moments of a trial that concern it; each hook does nothing until
it is overridden. Techniques are found through the entry-point group ``paretrim.techniques``, so that a package of
yours adds one without touching this one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import ClassVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from paretrim.errors import UsageError, nearest
from paretrim.spaces.anatomy import Anatomy
from paretrim.spaces.dimension import Dimension, Value
from paretrim.spaces.recipe import Recipe

GROUP = "paretrim.techniques"

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
"""``(outputs, labels, teacher outputs or None) -> scalar``."""


class TechniqueOptions(BaseModel):
    """A technique's settings, as they stand under its name in the job's space."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Technique:
    """One way to make a model smaller.

    Attributes:
        name: Its name in job files, and the first part of its dimensions' names.
        Options: The pydantic model of its settings; every field needs a default.
    """

    name: ClassVar[str]
    Options: ClassVar[type[TechniqueOptions]] = TechniqueOptions

    def __init__(self, options: TechniqueOptions) -> None:
        self.options = options

    def dimensions(self, anatomy: Anatomy) -> tuple[Dimension, ...]:
        """Return the knobs that this technique has on a model."""
        return ()

    def anchors(self, anatomy: Anatomy) -> Mapping[str, Mapping[str, Value]]:
        """Return recipes, by name, that anyone would try first: the values that differ from neutral."""
        return {}

    def reshape(self, model: nn.Module, recipe: Recipe, anatomy: Anatomy) -> None:
        """Change the model's shape in place, before it is trained."""

    def attach(self, model: nn.Module, recipe: Recipe, anatomy: Anatomy) -> None:
        """Add, in place, what must be there while the model is trained."""

    def loss(self, plain: Loss, recipe: Recipe) -> Loss:
        """Return the loss to train with, made from the one so far."""
        return plain

    def bake(self, model: nn.Module, recipe: Recipe, anatomy: Anatomy) -> None:
        """Make final, in place, what `attach` added, after the model was trained."""

    def weight_bits(self, recipe: Recipe, anatomy: Anatomy) -> Mapping[str, int]:
        """Return the bits per weight of each layer that shall not be stored as 32-bit floats."""
        return {}

    def needs_teacher(self) -> bool:
        """Tell whether `loss` uses the teacher's outputs."""
        return False


def installed() -> dict[str, type[Technique]]:
    """Return all techniques, by name: this package's and those of other packages."""
    return {point.name: point.load() for point in entry_points(group=GROUP)}


def find(name: str) -> type[Technique]:
    """Return the technique of a name.

    Raises:
        UsageError: No technique has that name.
    """
    known = installed()
    if name not in known:
        raise UsageError(
            f"unknown technique '{name}'; allowed: {', '.join(sorted(known))}{nearest(name, sorted(known))}"
        )
    return known[name]
