"""One trial: recipe, model, artifact, measurements. It knows nothing of Ray, Optuna or MLflow."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

import torch
from torch import nn

from paretrim.errors import ParetrimError
from paretrim.evaluators.artifact import Artifact
from paretrim.evaluators.cores import Plan
from paretrim.evaluators.lane import Lane
from paretrim.evaluators.measurement import Measurement
from paretrim.evaluators.metrics import Metric
from paretrim.evaluators.splits import SearchSplits, Split
from paretrim.evaluators.storage import Activation, Storage
from paretrim.evaluators.target import LoweringRequest
from paretrim.search import crossvalidation
from paretrim.search.space import Space
from paretrim.search.station import Station, StationPlan, clocked
from paretrim.search.study import Asked
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.recovery import recover
from paretrim.spaces.schooling import Loss, Schooling
from paretrim.tracking.records import Elsewhere, Epoch, TrialRecord


@dataclass(frozen=True)
class TrialContext:
    """What all trials of a search share. The test split is not among it.

    Attributes:
        model: The uncompressed model.
        splits: Training, calibration and validation data.
        metric: Scores outputs against labels.
        space: The techniques and the model's anatomy.
        teacher: The uncompressed model's outputs on the training split, or None when nothing is distilled.
        stations: The targets; the first is the one that the search is for.
        artifacts: Folder that keeps artifacts.
        folds: Parts of the validation split for cross-validation; fewer than two for none.
    """

    model: nn.Module
    splits: SearchSplits
    metric: Metric
    space: Space
    teacher: torch.Tensor | None
    stations: tuple[StationPlan, ...]
    artifacts: Path
    folds: int = 0


class TrialRunner:
    """Makes and scores trials, one after the other, in one process.

    Args:
        context: What all trials of the search share.
        scratch: A folder for files that nobody needs after the search.
        waiting: Entered while a trial waits for another's measurement, so that its time limit does not count that.
        plan: Which cores measure; by default the last ones, while all training waits.
    """

    def __init__(
        self,
        context: TrialContext,
        scratch: Path,
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
        plan: Plan | None = None,
    ) -> None:
        self._context = context
        self._scratch = scratch
        self._lane = Lane(waiting=waiting, yielding=plan is None or not plan.spare)
        folder, validation = Path(mkdtemp(prefix="bench-", dir=scratch)), context.splits.validation
        cores = () if plan is None else plan.measuring
        self._stations = [
            Station(each, context.metric, validation, folder / str(i), self._lane, cores)
            for i, each in enumerate(context.stations)
        ]

    def run(self, asked: Asked) -> Iterator[Epoch | TrialRecord]:
        """Make and score one trial: yields each epoch of training, and last the record.

        Raises:
            ParetrimError: The trial fails for a reason that paretrim knows.
            Exception: A user's code raised.
        """
        seconds: dict[str, float] = {}
        epochs: list[Epoch] = []
        schooling = self._schooling(asked.recipe, self._context.splits.train, self._context.teacher)
        with clocked(seconds, "reshape"):
            model = self._shaped(asked.recipe, schooling)
        for epoch in self._recovered(model, asked.recipe, schooling, seconds):
            epochs.append(epoch)
            yield epoch
        with clocked(seconds, "bake"), self._lane.working():
            self._bake(model, asked.recipe)
            expected = score_torch(model, self._context.splits.validation, self._context.metric)
        main, *others = self._stations
        artifact = self._lowered(main, model, asked.recipe, seconds)
        measurements = main.score(artifact, expected, seconds)
        weights = Measurement("weights", sum(p.numel() for p in model.parameters()), how="parameters that are left")
        # The same on all targets.
        of_recipe = (*self._cross_validated(asked.recipe, seconds), weights)
        yield TrialRecord(
            number=asked.number,
            kind=asked.kind,
            state="complete",
            recipe=asked.recipe.values,
            seed=asked.recipe.seed,
            measurements=(*measurements, *of_recipe),
            sha256=artifact.sha256,
            model_sha256=artifact.model_sha256,
            elsewhere={
                each.plan.name: self._elsewhere(each, model, asked.recipe, expected, of_recipe, seconds)
                for each in others
            },
            environment=main.environment(),
            seconds=seconds,
            epochs=tuple(epochs),
        )

    def _schooling(self, recipe: Recipe, train: Split, teacher: torch.Tensor | None) -> Schooling:
        return Schooling(
            batches=lambda size, seed: train.batches(size, seed=seed),
            samples=len(train),
            teacher=teacher,
            loss=self._loss(recipe),
            working=self._lane.working,
            tutor=None if teacher is None else self._context.model,
        )

    def _shaped(self, recipe: Recipe, schooling: Schooling) -> nn.Module:
        model = copy.deepcopy(self._context.model)
        if not any(p.requires_grad for p in model.parameters()):
            model.requires_grad_(True)
        for part in self._context.space.techniques:
            part.reshape(model, recipe, self._context.space.anatomy, schooling)
        return model

    def _recovered(
        self, model: nn.Module, recipe: Recipe, schooling: Schooling, seconds: dict[str, float]
    ) -> Iterator[Epoch]:
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
            yield from self._epochs(model, losses, seconds)
        finally:
            for penalty in penalties:
                penalty.close()
        advance(1.0)

    def _epochs(self, model: nn.Module, losses: Iterator[float], seconds: dict[str, float]) -> Iterator[Epoch]:
        while True:
            with clocked(seconds, "recover"):
                loss = next(losses, None)
                if loss is None:
                    model.eval()
                    return
                with self._lane.working():
                    score = score_torch(model, self._context.splits.validation, self._context.metric)
            yield Epoch(loss, score)

    def _loss(self, recipe: Recipe) -> Loss:
        metric = self._context.metric

        def plain(outputs: torch.Tensor, labels: torch.Tensor, teacher: torch.Tensor | None) -> torch.Tensor:  # noqa: ARG001
            return metric.loss(outputs, labels)

        loss: Loss = plain
        for part in self._context.space.techniques:
            loss = part.loss(loss, recipe)
        return loss

    def _bake(self, model: nn.Module, recipe: Recipe) -> None:
        for part in self._context.space.techniques:
            part.bake(model, recipe, self._context.space.anatomy)

    def _lowered(
        self,
        station: Station,
        model: nn.Module,
        recipe: Recipe,
        seconds: dict[str, float],
        folder: Path | None = None,
    ) -> Artifact:
        context = self._context
        stored: dict[str, Storage] = {}
        for part in context.space.techniques:
            stored |= part.storage(model, recipe, context.space.anatomy)
        activations = [part.activation(recipe) for part in context.space.techniques]
        chosen = next((each for each in activations if each is not None), Activation())
        request = lowering_request(context.space, stored, chosen, context.splits)
        with clocked(seconds, "lower"), self._lane.working():
            return station.target.lower(model, request, folder or context.artifacts)

    def _cross_validated(self, recipe: Recipe, seconds: dict[str, float]) -> tuple[Measurement, ...]:
        """Score the recipe on parts of the validation split, each made anew with the help of the other parts."""
        context, station = self._context, self._stations[0]
        if context.folds < crossvalidation.LEAST:
            return ()
        scores = []
        for fold in crossvalidation.folds(context.model, context.splits, context.teacher, context.folds):
            schooling = self._schooling(recipe, fold.train, fold.teacher)
            model = self._shaped(recipe, schooling)
            for _ in self._recovered(model, recipe, schooling, seconds):
                pass  # its course is not recorded
            self._bake(model, recipe)
            with TemporaryDirectory(prefix="fold-", dir=self._scratch) as folder:
                artifact = self._lowered(station, model, recipe, seconds, Path(folder))
                with clocked(seconds, "cross_validation"), self._lane.working():
                    scores.append(station.score_on(artifact, fold.held))
        return (crossvalidation.summary(f"{context.metric.name}_cv", scores),)

    def _elsewhere(
        self,
        station: Station,
        model: nn.Module,
        recipe: Recipe,
        expected: float,
        of_recipe: tuple[Measurement, ...],
        seconds: dict[str, float],
    ) -> Elsewhere:
        """Score a trial on a further target, where it may fail without failing the trial."""
        try:
            artifact = self._lowered(station, model, recipe, seconds)
            found = station.score(artifact, expected, seconds)
        except ParetrimError as error:
            return Elsewhere(cause=str(error))
        return Elsewhere((*found, *of_recipe), artifact.sha256, artifact.model_sha256, station.environment())


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
