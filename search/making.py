"""From a recipe to a trained torch model."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

from torch import nn

from paretrim.evaluators.lane import Lane
from paretrim.search.context import TrialContext, score_torch
from paretrim.search.parents import phases
from paretrim.search.station import clocked
from paretrim.spaces.lesson import Lesson, Trainer
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.schooling import Schooling
from paretrim.spaces.technique import Technique
from paretrim.tracking.records import Epoch


class Making:
    """One recipe's model on its way: in its shape, trained, final.

    Attributes:
        model: As it is now.
    """

    def __init__(
        self,
        context: TrialContext,
        lane: Lane,
        recipe: Recipe,
        schooling: Schooling,
        trainer: Trainer,
        *,
        alone: bool,
    ) -> None:
        self._context, self._lane, self._recipe, self._schooling, self._alone = context, lane, recipe, schooling, alone
        self._trainer = trainer
        techniques = context.space.techniques
        self._phases = phases(recipe, techniques, context.seed) if context.share else None
        self._branching = [part for part in techniques if part.branches and self._phases is not None]
        self._trunk = [part for part in techniques if part not in self._branching]
        self.model = copy.deepcopy(context.model)
        if not any(p.requires_grad for p in self.model.parameters()):
            self.model.requires_grad_(True)
        self._reshape(self.model, self._trunk, recipe if self._phases is None else self._phases.parent)

    def untrained(self) -> nn.Module:
        """Return a copy of the model as it would come out, but for the training."""
        model, techniques = copy.deepcopy(self.model), self._context.space.techniques
        self._reshape(model, self._branching, self._recipe)
        self._attach(model, techniques, self._recipe)
        self._advance(model, techniques, self._recipe, 1.0)
        self._bake(model)
        return model.eval()

    def train(self, seconds: dict[str, float]) -> Iterator[Epoch]:
        """Train the model and yield each epoch; those of its parent first."""
        if self._phases is not None:
            yield from self._raise_parent(self._phases.parent, seconds)
            self._reshape(self.model, self._branching, self._recipe)
            yield from self._train(self._branching, self._trunk, self._phases.branch, seconds)
        else:
            yield from self._train(self._trunk, [], self._recipe, seconds)

    def bake(self) -> nn.Module:
        """Make final what was added for the training, and return the model."""
        self._bake(self.model)
        return self.model

    def _raise_parent(self, parent: Recipe, seconds: dict[str, float]) -> Iterator[Epoch]:
        if self._alone or self._context.nursery is None:
            yield from self._train(self._trunk, [], parent, seconds)
            return
        school = self._schooling
        nursery = self._context.nursery.where(school.channel_ms, self._trainer.size, school.device)
        grown = copy.deepcopy(self.model)
        self._attach(grown, self._trunk, parent)
        self._advance(grown, self._trunk, parent, 1.0)
        known = nursery.find(parent, grown)
        if known is not None:
            self.model = grown
            yield from known
            return
        course: list[Epoch] = []
        for epoch in self._train(self._trunk, [], parent, seconds):
            course.append(epoch)
            yield epoch
        nursery.keep(parent, self.model, course)

    def _train(
        self, new: Sequence[Technique], settled: Sequence[Technique], recipe: Recipe, seconds: dict[str, float]
    ) -> Iterator[Epoch]:
        """Train with techniques that join in now, and those that did so before."""
        anatomy = self._context.space.anatomy
        self._attach(self.model, new, recipe)
        lesson = Lesson(self.model, recipe, anatomy, self._schooling, tuple(new), tuple(settled))
        with self._trainer.learn(lesson) as losses:
            yield from self._epochs(losses, recipe, seconds)
        lesson.advance(1.0)

    def _epochs(self, losses: Iterator[float], recipe: Recipe, seconds: dict[str, float]) -> Iterator[Epoch]:
        with clocked(seconds, "recover"):
            before = self._score() if recipe.number("recovery.epochs") > 0 else None
        while True:
            with clocked(seconds, "recover"):
                loss = next(losses, None)
                if loss is None:
                    self.model.eval()
                    return
                score = self._score()
            yield Epoch(loss, score, before)
            before = None

    def _score(self) -> float:
        with self._lane.working():
            return score_torch(
                self.model, self._context.splits.validation, self._context.metric, self._schooling.device
            )

    def _reshape(self, model: nn.Module, techniques: Sequence[Technique], recipe: Recipe) -> None:
        for part in techniques:
            part.reshape(model, recipe, self._context.space.anatomy, self._schooling)

    def _attach(self, model: nn.Module, techniques: Sequence[Technique], recipe: Recipe) -> None:
        for part in techniques:
            part.attach(model, recipe, self._context.space.anatomy, self._schooling)

    def _advance(self, model: nn.Module, techniques: Sequence[Technique], recipe: Recipe, done: float) -> None:
        for part in techniques:
            part.advance(model, recipe, self._context.space.anatomy, done)

    def _bake(self, model: nn.Module) -> None:
        anatomy = self._context.space.anatomy
        for part in self._context.space.techniques:
            part.refine(model, self._recipe, anatomy, self._schooling)
            part.bake(model, self._recipe, anatomy)
