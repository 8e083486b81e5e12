"""Makes models and artifacts from recipes: what a trial makes before anything is measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from paretrim.evaluators.artifact import Artifact
from paretrim.evaluators.lane import Lane
from paretrim.evaluators.splits import SearchSplits, Split
from paretrim.evaluators.storage import Activation, Storage
from paretrim.evaluators.target import LoweringRequest, Target
from paretrim.evaluators.tasks import Task
from paretrim.search.context import TrialContext
from paretrim.search.making import Making
from paretrim.search.space import Space
from paretrim.spaces.lesson import InProcess, Trainer
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.schooling import Loss, Schooling

_LABELS = 512


class Workshop:
    """Makes models and artifacts from recipes.

    Args:
        context: What all trials of the search share.
        lane: The machine's measuring lane, which work makes room for.
        trainer: Trains models; by default this process does.
    """

    def __init__(self, context: TrialContext, lane: Lane, trainer: Trainer | None = None) -> None:
        self._context = context
        self._lane = lane
        self._trainer = trainer or InProcess()

    def schooling(self, recipe: Recipe, train: Split | None = None, teacher: torch.Tensor | None = None) -> Schooling:
        """Return what there is to train a recipe with, by default the search's training split and its teacher's outputs."""
        if train is None:
            train, teacher = self._context.splits.train, self._context.teacher
        return Schooling(
            batches=lambda size, seed: train.batches(size, seed=seed),
            samples=len(train),
            teacher=teacher,
            loss=self._loss(recipe),
            working=self._lane.working,
            tutor=None if teacher is None else self._context.teaches,
            channel_ms=self._context.channel_ms,
            device=self._context.place,
        )

    def begin(self, recipe: Recipe, schooling: Schooling | None = None, *, alone: bool = False) -> Making:
        """Begin to make a recipe's model: a copy of the uncompressed one, in the recipe's shape.

        Args:
            recipe: What to make.
            schooling: What to train it with, by default what `schooling` returns.
            alone: Whether its training has nothing in common with that of the search's other trials.
        """
        school = schooling or self.schooling(recipe)
        return Making(self._context, self._lane, recipe, school, self._trainer, alone=alone)

    def _loss(self, recipe: Recipe) -> Loss:
        metric = self._context.metric

        def plain(outputs: torch.Tensor, labels: torch.Tensor, teacher: torch.Tensor | None) -> torch.Tensor:  # noqa: ARG001
            return metric.loss(outputs, labels)

        loss: Loss = plain
        for part in self._context.space.techniques:
            loss = part.loss(loss, recipe)

        def scaled(outputs: torch.Tensor, labels: torch.Tensor, teacher: torch.Tensor | None) -> torch.Tensor:
            numbers = metric.task(outputs[:1], labels[:1]) is Task.REGRESSION
            return loss(outputs, labels, teacher) / (self._variance if numbers else 1.0)

        return scaled

    @cached_property
    def _variance(self) -> float:
        """The variance of some training labels, 1 where they do not vary.

        Squares of numbers in the thousands would make of every learning rate one that diverges.
        """
        labels = self._context.splits.train.first(_LABELS).labels.double()
        variance = float(labels.var(dim=0, unbiased=False).mean()) if labels.numel() else 0.0
        return variance if math.isfinite(variance) and variance > 0 else 1.0

    def storage(self, model: nn.Module, recipe: Recipe) -> dict[str, Storage]:
        """Return how each layer of a baked model is stored that does not keep 32-bit floats."""
        stored: dict[str, Storage] = {}
        for part in self._context.space.techniques:
            stored |= part.storage(model, recipe, self._context.space.anatomy)
        return stored

    def lowered(self, target: Target, model: nn.Module, recipe: Recipe, folder: Path | None = None) -> Artifact:
        """Lower a baked model, by default into the folder that keeps artifacts.

        Raises:
            LoweringError: The target cannot take it.
        """
        context, stored = self._context, self.storage(model, recipe)
        activations = [part.activation(recipe) for part in context.space.techniques]
        chosen = next((each for each in activations if each is not None), Activation())
        request = lowering_request(context.space, stored, chosen, context.splits)
        with self._lane.working():
            return target.lower(model, request, folder or context.artifacts)


def lowering_request(
    space: Space, stored: Mapping[str, Storage], activation: Activation, splits: SearchSplits
) -> LoweringRequest:
    """Return the request that lowers a model of a space with its layers stored as given."""
    return LoweringRequest(space.anatomy.inputs, stored, splits.calibration, activation)
