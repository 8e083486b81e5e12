"""One training of a model, with all that takes part in it: what a process needs to do it by itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from torch import nn

from paretrim.spaces.anatomy import Anatomy
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.schooling import Schooling
from paretrim.spaces.technique import Technique
from paretrim.spaces.training import recover


@dataclass(frozen=True)
class Lesson:
    """One training of a model.

    Attributes:
        model: What is trained, with what `Technique.attach` has added.
        recipe: Says how.
        anatomy: Of the uncompressed model.
        schooling: What to train with, without what techniques add for each training.
        new: The techniques that join in with this training.
        settled: Those that did so before.
    """

    model: nn.Module
    recipe: Recipe
    anatomy: Anatomy
    schooling: Schooling
    new: tuple[Technique, ...] = ()
    settled: tuple[Technique, ...] = ()

    @property
    def idle(self) -> bool:
        """Whether there is nothing to train."""
        frozen = not any(each.requires_grad for each in self.model.parameters())
        return frozen or self.recipe.number("recovery.epochs") == 0

    def advance(self, done: float) -> None:
        """Prepare the model for the step before which a share `done` of the training lies."""
        for part in self.new:
            part.advance(self.model, self.recipe, self.anatomy, done)


class Trainer(Protocol):
    """What trains models."""

    @property
    def size(self) -> int:
        """How many processes share the work."""
        ...

    def learn(self, lesson: Lesson) -> AbstractContextManager[Iterator[float]]:
        """Train the lesson's model in place: within the context, each turn is an epoch and gives its mean loss."""
        ...


class InProcess:
    """Trains here, in this process."""

    size = 1

    @contextmanager
    def learn(self, lesson: Lesson) -> Iterator[Iterator[float]]:
        """Train the lesson's model, with the penalties that techniques ask for."""
        schooling = lesson.schooling
        asked = (
            part.penalty(lesson.model, lesson.recipe, lesson.anatomy, schooling)
            for part in (*lesson.settled, *lesson.new)
        )
        penalties = tuple(penalty for penalty in asked if penalty is not None)
        try:
            yield recover(lesson.model, lesson.recipe, replace(schooling, penalties=penalties, advance=lesson.advance))
        finally:
            for penalty in penalties:
                penalty.close()
