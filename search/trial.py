"""One trial: recipe, model, artifact, measurements. It knows nothing of Ray, Optuna or MLflow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

import torch
from torch import nn

from paretrim.errors import ParetrimError
from paretrim.evaluators import cuda_driver
from paretrim.evaluators.artifact import Artifact
from paretrim.evaluators.cores import Plan
from paretrim.evaluators.lane import Lane
from paretrim.evaluators.measurement import Measurement
from paretrim.search import crossvalidation
from paretrim.search.context import TrialContext, score_torch
from paretrim.search.judge import SEARCHED
from paretrim.search.making import Making
from paretrim.search.room import why_unwritten
from paretrim.search.station import Station, clocked
from paretrim.search.study import Asked
from paretrim.search.workshop import Workshop
from paretrim.spaces.lesson import Trainer
from paretrim.spaces.recipe import Recipe
from paretrim.tracking.records import GPU, THREADS, WORKERS, Elsewhere, Epoch, Preview, TrialRecord


class TrialRunner:
    """Makes and scores trials, one after the other, in one process.

    Args:
        context: What all trials of the search share.
        scratch: A folder for files that nobody needs after the search.
        waiting: Entered while a trial waits for another's measurement, so that its time limit does not count that.
        plan: Which cores measure; by default the last ones, while all training waits.
        trainer: Trains models; by default this process does.
    """

    def __init__(
        self,
        context: TrialContext,
        scratch: Path,
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
        plan: Plan | None = None,
        trainer: Trainer | None = None,
    ) -> None:
        self._context = context
        self._scratch = scratch
        self._lane = Lane(waiting=waiting, yielding=plan is None or not plan.spare, gpus=context.gpus)
        self._trained_by = trainer.size if trainer else 1
        self._workshop = Workshop(context, self._lane, trainer)
        folder, validation = Path(mkdtemp(prefix="bench-", dir=scratch)), context.splits.validation
        cores = () if plan is None else plan.measuring
        self._stations = [
            Station(each, context.metric, validation, folder / str(i), self._lane, cores)
            for i, each in enumerate(context.stations)
        ]

    def run(self, asked: Asked, seconds: dict[str, float]) -> Iterator[Preview | Epoch | TrialRecord]:
        """Make and score one trial: yields what is known before training, each epoch of it, and last the record.

        Args:
            asked: The trial.
            seconds: Takes the wall time of each stage as they end.

        Raises:
            ParetrimError: The trial fails for a reason that paretrim knows.
            Exception: A user's code raised.
        """
        epochs: list[Epoch] = []
        preview: Preview | None = None
        with clocked(seconds, "reshape"):
            making = self._workshop.begin(asked.recipe)
        if self._context.preview and asked.kind == SEARCHED:
            with clocked(seconds, "preview"):
                preview = self._preview(making, asked.recipe)
            yield preview
        for epoch in making.train(seconds):
            epochs.append(epoch)
            yield epoch
        with clocked(seconds, "bake"), self._lane.working():
            model = making.bake()
            expected = score_torch(model, self._context.splits.validation, self._context.metric, self._context.place)
        main, *others = self._stations
        artifact = self._lowered(main, model, asked.recipe, seconds)
        measurements = main.score(artifact, expected, seconds)
        weights = Measurement("weights", sum(p.numel() for p in model.parameters()), how="parameters that are left")
        # The same on all targets.
        of_recipe = (*self._cross_validated(asked.recipe, seconds), weights, *self._gain(epochs))
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
            environment={**self._context.origin, **main.environment(), **self._trained_with()},
            seconds=seconds,
            epochs=tuple(epochs),
            preview=preview,
        )

    def _trained_with(self) -> dict[str, str]:
        several = {WORKERS: str(self._trained_by)} if self._trained_by > 1 else {}
        place = self._context.place
        gpu = {GPU: cuda_driver.name()} if place.type == "cuda" else {}
        return {THREADS: str(torch.get_num_threads()), **several, **gpu}

    def _preview(self, making: Making, recipe: Recipe) -> Preview:
        with TemporaryDirectory(prefix="preview-", dir=self._scratch) as folder:
            with self._lane.working():
                model = making.untrained()
            station = self._stations[0]
            return station.preview(self._workshop.lowered(station.target, model, recipe, Path(folder)))

    def _gain(self, epochs: list[Epoch]) -> Iterator[Measurement]:
        """Yield what training won, which is below zero where it did harm."""
        before, after = (epochs[0].before, epochs[-1].score) if epochs else (None, None)
        if before is not None and after is not None:
            won = after - before if self._context.metric.maximize else before - after
            how = f"{self._context.metric.name} on validation after training against before, of the torch model"
            yield Measurement("recovery_gain", won, how=how)

    def _lowered(
        self,
        station: Station,
        model: nn.Module,
        recipe: Recipe,
        seconds: dict[str, float],
        folder: Path | None = None,
    ) -> Artifact:
        with clocked(seconds, "lower"):
            return self._workshop.lowered(station.target, model, recipe, folder)

    def _cross_validated(self, recipe: Recipe, seconds: dict[str, float]) -> tuple[Measurement, ...]:
        """Score the recipe on parts of the validation split, each made anew with the help of the other parts."""
        context, station = self._context, self._stations[0]
        if context.folds < crossvalidation.LEAST:
            return ()
        scores = []
        for fold in crossvalidation.folds(
            context.teaches, context.splits, context.teacher, context.folds, context.place
        ):  # fmt: skip
            schooling = self._workshop.schooling(recipe, fold.train, fold.teacher)
            making = self._workshop.begin(recipe, schooling, alone=True)
            for _ in making.train(seconds):
                pass  # its course is not recorded
            model = making.bake()
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
            if why_unwritten(error):
                raise  # no fault of the target's
            return Elsewhere(cause=str(error))
        return Elsewhere((*found, *of_recipe), artifact.sha256, artifact.model_sha256, station.environment())
