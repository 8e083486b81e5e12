"""From a recipe to a torch model and its artifact: what a trial makes before anything is measured."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import nn

from paretrim.evaluators.artifact import Artifact
from paretrim.evaluators.lane import Lane
from paretrim.evaluators.metrics import Metric
from paretrim.evaluators.splits import SearchSplits, Split
from paretrim.evaluators.storage import Activation, Storage
from paretrim.evaluators.target import LoweringRequest, Target
from paretrim.search.space import Space
from paretrim.search.station import StationPlan, clocked
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.recovery import recover
from paretrim.spaces.schooling import Loss, Schooling
from paretrim.tracking.records import Epoch


@dataclass(frozen=True)
class TrialContext:
    """What all trials of a search share. The test split is not among it.

    Attributes:
        model: The uncompressed model.
        splits: Training, calibration and validation data.
        metric: Scores outputs against labels.
        space: The techniques and the model's anatomy.
        teacher: The teacher's outputs on the training split, or None when nothing is distilled.
        stations: The targets; the first is the one that the search is for.
        artifacts: Folder that keeps artifacts.
        folds: Parts of the validation split for cross-validation; fewer than two for none.
        channel_ms: Milliseconds that a channel of each group costs on the target; empty unless a technique asks for it.
        tutor: The model that teaches, or None where it is the uncompressed one.
    """

    model: nn.Module
    splits: SearchSplits
    metric: Metric
    space: Space
    teacher: torch.Tensor | None
    stations: tuple[StationPlan, ...]
    artifacts: Path
    folds: int = 0
    channel_ms: Mapping[str, float] = field(default_factory=dict)
    tutor: nn.Module | None = None

    @property
    def teaches(self) -> nn.Module:
        """The model that teaches."""
        return self.model if self.tutor is None else self.tutor


class Workshop:
    """Makes models and artifacts from recipes.

    Args:
        context: What all trials of the search share.
        lane: The machine's measuring lane, which work makes room for.
    """

    def __init__(self, context: TrialContext, lane: Lane) -> None:
        self._context = context
        self._lane = lane

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
        )

    def shaped(self, recipe: Recipe, schooling: Schooling) -> nn.Module:
        """Return a copy of the uncompressed model in the recipe's shape."""
        model = copy.deepcopy(self._context.model)
        if not any(p.requires_grad for p in model.parameters()):
            model.requires_grad_(True)
        for part in self._context.space.techniques:
            part.reshape(model, recipe, self._context.space.anatomy, schooling)
        return model

    def recovered(
        self, model: nn.Module, recipe: Recipe, schooling: Schooling, seconds: dict[str, float]
    ) -> Iterator[Epoch]:
        """Train a model that has its shape, in place, and yield each epoch; afterwards it is to be baked."""
        techniques, anatomy = self._context.space.techniques, self._context.space.anatomy
        for part in techniques:
            part.attach(model, recipe, anatomy, schooling)
        asked = (part.penalty(model, recipe, anatomy, schooling) for part in techniques)
        penalties = tuple(penalty for penalty in asked if penalty is not None)

        def advance(done: float) -> None:
            for part in techniques:
                part.advance(model, recipe, anatomy, done)

        losses = recover(model, recipe, replace(schooling, penalties=penalties, advance=advance))
        try:
            yield from self._epochs(model, losses, recipe.number("recovery.epochs") > 0, seconds)
        finally:
            for penalty in penalties:
                penalty.close()
        advance(1.0)

    def _epochs(
        self, model: nn.Module, losses: Iterator[float], trained: bool, seconds: dict[str, float]
    ) -> Iterator[Epoch]:
        with clocked(seconds, "recover"):
            before = self._score(model) if trained else None
        while True:
            with clocked(seconds, "recover"):
                loss = next(losses, None)
                if loss is None:
                    model.eval()
                    return
                score = self._score(model)
            yield Epoch(loss, score, before)
            before = None

    def _score(self, model: nn.Module) -> float:
        with self._lane.working():
            return score_torch(model, self._context.splits.validation, self._context.metric)

    def _loss(self, recipe: Recipe) -> Loss:
        metric = self._context.metric

        def plain(outputs: torch.Tensor, labels: torch.Tensor, teacher: torch.Tensor | None) -> torch.Tensor:  # noqa: ARG001
            return metric.loss(outputs, labels)

        loss: Loss = plain
        for part in self._context.space.techniques:
            loss = part.loss(loss, recipe)
        return loss

    def bake(self, model: nn.Module, recipe: Recipe) -> None:
        """Make final, in place, what was added for the training."""
        for part in self._context.space.techniques:
            part.bake(model, recipe, self._context.space.anatomy)

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
    anatomy = space.anatomy
    kind = str(anatomy.input_dtype).removeprefix("torch.")
    return LoweringRequest(anatomy.input_shape, kind, stored, splits.calibration, activation)


def score_torch(model: nn.Module, split: Split, metric: Metric) -> float:
    """Return the metric of a torch model on a split."""
    model.eval()
    outputs, labels = [], []
    with torch.no_grad():
        for batch in split.batches(256):
            outputs.append(model(batch.inputs))
            labels.append(batch.labels)
    return metric(torch.cat(outputs), torch.cat(labels))
