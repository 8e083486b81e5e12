"""What a technique is: one way to make a model smaller.

A technique says which knobs it has and acts at the moments of a trial that concern it; each hook does nothing until
it is overridden. Techniques are found through the entry-point group ``paretrim.techniques``, so that a package of
yours adds one without touching this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationInfo
from torch import nn

from paretrim.errors import UsageError, nearest
from paretrim.evaluators.storage import Activation, Storage
from paretrim.spaces.anatomy import Anatomy
from paretrim.spaces.dimension import Dimension, Value
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.schooling import Loss, Penalty, Schooling

GROUP = "paretrim.techniques"

REMOVING = 20
"""Techniques before this stage remove parts of the model."""

TRAINING = 60
"""Techniques from this stage on only train, and do nothing to a model that is not trained."""

Given = TypeVar("Given")


class TechniqueOptions(BaseModel):
    """A technique's settings, as they stand under its name in the job's space."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def heeded(cls, given: Given, info: ValidationInfo, idle: bool, why: str) -> Given:
        """Return the value of a field, or refuse it when nothing heeds it; for a field's validator.

        The default passes in any case, since a job that was written down names all settings.

        Args:
            given: The value.
            info: The validator's; fields that stand before this one are in its data.
            idle: Whether the other settings make it do nothing.
            why: Which ones, and what to do: ``with one step; give steps of 2 or more``.

        Raises:
            ValueError: It does nothing.
        """
        if idle and given != cls.model_fields[str(info.field_name)].default:
            words = ", ".join(map(str, given)) if isinstance(given, tuple) else given
            raise ValueError(f"is {words}, which does nothing {why}, or leave this out")
        return given


class Technique:
    """One way to make a model smaller.

    The hooks are called in the order in which they stand here, for all techniques of a search by their `stage`.

    Attributes:
        name: Its name in job files, and the first part of its dimensions' names.
        Options: The pydantic model of its settings; every field needs a default.
        stage: When it acts among the techniques: what removes parts of the model before 20, what rewrites the layers
            that are left before 40, what puts their weights on grids before 60, what only trains after that.
        by_default: Whether it is on in a job that does not name it.
        branches: Whether it can act on a model that was trained without it for the first half of its epochs, so that
            recipes that differ in its values only have that half in common.
        excludes: Techniques that it does not go together with, with the reason; one of the two names the other.
    """

    name: ClassVar[str]
    Options: ClassVar[type[TechniqueOptions]] = TechniqueOptions
    stage: ClassVar[int] = 50
    by_default: ClassVar[bool] = False
    branches: ClassVar[bool] = False
    excludes: ClassVar[Mapping[str, str]] = {}

    def __init__(self, options: TechniqueOptions) -> None:
        self.options = options

    @classmethod
    def suited(cls, anatomy: Anatomy) -> TechniqueOptions | None:
        """Return settings that suit a model and its target, for ``space: auto``; None to leave the technique out."""
        return cls.Options() if cls.by_default else None

    def dimensions(self, anatomy: Anatomy) -> tuple[Dimension, ...]:
        """Return the knobs that this technique has on a model; one that another one's value rules out comes later."""
        return ()

    def left_out(self, anatomy: Anatomy) -> Mapping[str, str]:
        """Return what this technique cannot do to the model, by layer or part, with the reason."""
        return {}

    def anchors(self, anatomy: Anatomy) -> Mapping[str, Mapping[str, Value]]:
        """Return recipes, by name, that anyone would try first: the values that differ from neutral."""
        return {}

    def reshape(self, model: nn.Module, recipe: Recipe, anatomy: Anatomy, schooling: Schooling) -> None:
        """Change the model's shape in place, before it is trained. `schooling` is there for what needs data to do so."""

    def attach(self, model: nn.Module, recipe: Recipe, anatomy: Anatomy, schooling: Schooling) -> None:
        """Add, in place, what must be there while the model is trained."""

    def loss(self, plain: Loss, recipe: Recipe) -> Loss:
        """Return the loss to train with, made from the one so far."""
        return plain

    def penalty(self, model: nn.Module, recipe: Recipe, anatomy: Anatomy, schooling: Schooling) -> Penalty | None:
        """Return what is added to the loss at each step beside the outputs' loss, or None."""
        return None

    def advance(self, model: nn.Module, recipe: Recipe, anatomy: Anatomy, done: float) -> None:
        """Prepare the model for the next training step, of which a share `done` from 0 to 1 lies behind."""

    def refine(self, model: nn.Module, recipe: Recipe, anatomy: Anatomy, schooling: Schooling) -> None:
        """Change the weights in place, after the model was trained and before `bake`, where that needs data."""

    def bake(self, model: nn.Module, recipe: Recipe, anatomy: Anatomy) -> None:
        """Make final, in place, what `attach` added, after the model was trained."""

    def storage(self, model: nn.Module, recipe: Recipe, anatomy: Anatomy) -> Mapping[str, Storage]:
        """Return how what does not keep 32-bit floats shall be stored in the baked model.

        Layers go by their module path, weights of embeddings and recurrent layers by their own: ``lstm.weight_ih_l0``.
        """
        return {}

    def activation(self, recipe: Recipe) -> Activation | None:
        """Return how the target shall quantize what flows between the layers, or None for its own way."""
        return None

    def needs_costs(self) -> bool:
        """Tell whether it asks for what a channel costs on the target, `Schooling.channel_ms`."""
        return False

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
