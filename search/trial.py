"""One trial: recipe, model, artifact, measurements. It knows nothing of Ray, Optuna or MLflow."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import torch
from torch import nn

from paretrim.errors import TrialError
from paretrim.evaluators import evaluator
from paretrim.evaluators.accuracy import AccuracyEvaluator
from paretrim.evaluators.artifact import Artifact
from paretrim.evaluators.evaluator import Specimen
from paretrim.evaluators.lane import Lane
from paretrim.evaluators.measurement import Measurement
from paretrim.evaluators.metrics import Metric
from paretrim.evaluators.splits import SearchSplits, Split
from paretrim.evaluators.target import Array, LoweringRequest, Session, TargetAddress, as_batch
from paretrim.search.space import Space
from paretrim.search.study import Asked
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.recovery import Schooling, recover
from paretrim.spaces.technique import Loss
from paretrim.tracking.records import Epoch, TrialRecord

_TIMED_INPUTS = 32
_RECORDED_SAMPLES = 16


@dataclass(frozen=True)
class TrialContext:
    """What all trials of a search share. The test split is not among it.

    Attributes:
        model: The uncompressed model.
        splits: Training, calibration and validation data.
        metric: Scores outputs against labels.
        space: The techniques and the model's anatomy.
        teacher: The uncompressed model's outputs on the training split, or None when nothing is distilled.
        baseline: The uncompressed model's artifact.
        address: The target.
        artifacts: Folder that keeps artifacts.
        tolerance: How much worse the artifact may score than the torch model.
    """

    model: nn.Module
    splits: SearchSplits
    metric: Metric
    space: Space
    teacher: torch.Tensor | None
    baseline: Artifact
    address: TargetAddress
    artifacts: Path
    tolerance: float


class TrialRunner:
    """Makes and scores trials, one after the other, in one process.

    Args:
        context: What all trials of the search share.
        scratch: A folder for files that nobody needs after the search.
        waiting: Entered while a trial waits for another's measurement, so that its time limit does not count that.
    """

    def __init__(
        self,
        context: TrialContext,
        scratch: Path,
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._context = context
        self._lane = Lane(waiting=waiting)
        self._target = context.address.build()
        self._evaluators = evaluator.installed()
        samples = timed_inputs(context.splits.validation, context.address)
        folder = Path(mkdtemp(prefix="bench-", dir=scratch))
        self._bench = evaluator.set_up(context.address, context.baseline, samples, folder, self._lane)
        self._accuracy = AccuracyEvaluator(context.metric, context.splits.validation)

    def run(self, asked: Asked) -> Iterator[Epoch | TrialRecord]:
        """Make and score one trial: yields each epoch of training, and last the record.

        Raises:
            ParetrimError: The trial fails for a reason that paretrim knows.
            Exception: A user's code raised.
        """
        seconds: dict[str, float] = {}
        epochs: list[Epoch] = []
        with _timed(seconds, "reshape"), self._lane.working():
            model = self._shaped(asked.recipe)
        for epoch in self._recovered(model, asked.recipe, seconds):
            epochs.append(epoch)
            yield epoch
        with _timed(seconds, "lower"), self._lane.working():
            for part in self._context.space.techniques:
                part.bake(model, asked.recipe, self._context.space.anatomy)
            expected = score_torch(model, self._context.splits.validation, self._context.metric)
            artifact = self._lower(model, asked.recipe)
        with _timed(seconds, "score"):
            measurements = self._measured(artifact, expected)
        weights = Measurement("weights", sum(p.numel() for p in model.parameters()), how="parameters that are left")
        yield TrialRecord(
            number=asked.number,
            kind=asked.kind,
            state="complete",
            recipe=asked.recipe.values,
            seed=asked.recipe.seed,
            measurements=(*measurements, weights),
            sha256=artifact.sha256,
            model_sha256=artifact.model_sha256,
            seconds=seconds,
            epochs=tuple(epochs),
        )

    def _shaped(self, recipe: Recipe) -> nn.Module:
        model = copy.deepcopy(self._context.model)
        if not any(p.requires_grad for p in model.parameters()):
            model.requires_grad_(True)
        for part in self._context.space.techniques:
            part.reshape(model, recipe, self._context.space.anatomy)
        return model

    def _recovered(self, model: nn.Module, recipe: Recipe, seconds: dict[str, float]) -> Iterator[Epoch]:
        context, train = self._context, self._context.splits.train
        for part in context.space.techniques:
            part.attach(model, recipe, context.space.anatomy)
        schooling = Schooling(
            batches=lambda size, seed: train.batches(size, seed=seed),
            samples=len(train),
            teacher=context.teacher,
            loss=self._loss(recipe),
            working=self._lane.working,
        )
        losses = recover(model, recipe, schooling)
        while True:
            with _timed(seconds, "recover"):
                loss = next(losses, None)
                if loss is None:
                    model.eval()
                    return
                with self._lane.working():
                    score = score_torch(model, context.splits.validation, context.metric)
            yield Epoch(loss, score)

    def _loss(self, recipe: Recipe) -> Loss:
        metric = self._context.metric

        def plain(outputs: torch.Tensor, labels: torch.Tensor, teacher: torch.Tensor | None) -> torch.Tensor:  # noqa: ARG001
            return metric.loss(outputs, labels)

        loss: Loss = plain
        for part in self._context.space.techniques:
            loss = part.loss(loss, recipe)
        return loss

    def _lower(self, model: nn.Module, recipe: Recipe) -> Artifact:
        context = self._context
        bits: dict[str, int] = {}
        for part in context.space.techniques:
            bits |= part.weight_bits(recipe, context.space.anatomy)
        return self._target.lower(model, lowering_request(context.space, bits, context.splits), context.artifacts)

    def _measured(self, artifact: Artifact, expected: float) -> tuple[Measurement, ...]:
        with artifact.unpacked() as path:
            session = self._target.open(path)
            with self._lane.working():
                accuracy = self._accuracy.score(session)
                self._record_samples(session, artifact)
            self._check_gap(accuracy.value, expected)
            specimen = Specimen(artifact, path)
            found = [m for e in self._evaluators.values() for m in e.measure(specimen, self._bench)]
        odd = [m.name for m in found if not math.isfinite(m.value)]
        if odd:
            raise TrialError(f"measured NaN or infinity for {', '.join(odd)}")
        torch_score = Measurement(
            f"{accuracy.name}_torch", expected, how="of the torch model before export; for comparison"
        )
        return (accuracy, torch_score, *found)

    def _check_gap(self, scored: float, expected: float) -> None:
        gap = expected - scored if self._context.metric.maximize else scored - expected
        if gap > self._context.tolerance:
            raise TrialError(
                f"the exported file scores {scored:.4f} and the torch model {expected:.4f}: worse by {gap:.4f}, more than "
                f"export_tolerance ({self._context.tolerance}); more calibration samples or more bits may help"
            )

    def _record_samples(self, session: Session, artifact: Artifact) -> None:
        """Keep some inputs with the artifact's outputs, against which an exported bundle is checked."""
        inputs = as_batch(self._context.splits.validation.first(_RECORDED_SAMPLES).inputs)
        path = samples_path(artifact.path)
        partial = path.with_suffix(".partial.npz")
        np.savez_compressed(partial, inputs=inputs, outputs=session(inputs))
        partial.replace(path)


def samples_path(artifact: Path) -> Path:
    """Return where the recorded samples of an artifact lie."""
    return artifact.with_name(artifact.name.removesuffix(".onnx.xz") + ".samples.npz")


def timed_inputs(validation: Split, address: TargetAddress) -> Array:
    """Return the inputs on which artifacts are timed: different ones, in the target's batch size."""
    return as_batch(validation.first(_TIMED_INPUTS * address.settings.batch_size).inputs)


def lowering_request(space: Space, bits: dict[str, int], splits: SearchSplits) -> LoweringRequest:
    """Return the request that lowers a model of a space with the given bits per layer."""
    anatomy = space.anatomy
    return LoweringRequest(
        anatomy.input_shape, str(anatomy.input_dtype).removeprefix("torch."), bits, splits.calibration
    )


def score_torch(model: nn.Module, split: Split, metric: Metric) -> float:
    """Return the metric of a torch model on a split."""
    model.eval()
    outputs, labels = [], []
    with torch.no_grad():
        for batch in split.batches(256):
            outputs.append(model(batch.inputs))
            labels.append(batch.labels)
    return metric(torch.cat(outputs), torch.cat(labels))


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    started = time.perf_counter()
    try:
        yield
    finally:
        seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - started
