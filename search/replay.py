"""Making a trial's artifact again, from its recipe and seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import ray
import torch
from torch import nn

from paretrim.errors import UsageError
from paretrim.evaluators.artifact import Artifact
from paretrim.evaluators.lane import Lane
from paretrim.evaluators.served import served
from paretrim.search import engine, prepare
from paretrim.search.context import TrialContext, score_torch
from paretrim.search.head import started
from paretrim.search.job import Job
from paretrim.search.result import Result
from paretrim.search.sections import TargetOptions
from paretrim.search.staff import Staff, material_of
from paretrim.search.station import record_samples
from paretrim.search.workshop import Workshop
from paretrim.spaces.lesson import Trainer
from paretrim.spaces.recipe import Recipe
from paretrim.tracking.records import THREADS, WORKERS, TrialRecord


@dataclass(frozen=True)
class Replayed:
    """A trial that was made again.

    Attributes:
        record: The trial.
        artifact: What was made now; it lies among the search's artifacts.
        score: The metric of the torch model on the validation split, now.
        logged: The same when the trial was made.
        threads: Threads that torch trained with then, which change the last bits of sums; None where it is not recorded.
    """

    record: TrialRecord
    artifact: Artifact
    score: float
    logged: float
    threads: int | None

    @property
    def same(self) -> bool:
        """Whether the artifact is the recorded one, to the bit."""
        return self.artifact.sha256 == self.record.sha256


@dataclass(frozen=True)
class Remade:
    """A trial's model, made again from its recipe and seed.

    Attributes:
        record: The trial.
        context: What the trials of its search share.
        workshop: Where it was made.
        recipe: Its recipe.
        model: The model, in evaluation mode.
        score: Its metric on the validation split.
    """

    record: TrialRecord
    context: TrialContext
    workshop: Workshop
    recipe: Recipe
    model: nn.Module
    score: float

    @property
    def logged(self) -> float:
        """The metric that the torch model had in the search."""
        return self.record.metrics[f"{self.context.metric.name}_torch"]


def replay(result: Result, number: int, say: Callable[[str], None]) -> Replayed:
    """Make a trial's artifact again.

    Args:
        result: The search.
        number: The trial's number.
        say: Told what the user should know, and each epoch.

    Raises:
        UsageError: There is no such trial, or it failed before it had an artifact.
        ResumeError: The model, the data or the space has changed since.
    """
    with remade(result, number, say) as made:
        station = made.context.stations[0]
        artifact = made.workshop.lowered(station.address.build(), made.model, made.recipe)
        with artifact.unpacked() as path, served(station.address, path) as session:
            record_samples(made.context.splits.validation, session, artifact)  # it may be exported
    return Replayed(made.record, artifact, made.score, made.logged, _threads_of(made.record))


@contextmanager
def remade(
    result: Result, number: int, say: Callable[[str], None], also: tuple[TargetOptions, ...] = ()
) -> Iterator[Remade]:
    """Make a trial's model again.

    Args:
        result: The search.
        number: The trial's number.
        say: Told what the user should know, and each epoch.
        also: Targets that the context shall have in the place of the job's further ones.

    Raises:
        UsageError: There is no such trial, it failed before it had an artifact, or this machine cannot run a target.
        ResumeError: The model, the data or the space has changed since.
    """
    record = next((each for each in result.study.records() if each.number == number), None)
    if record is None or not record.complete:
        why = "it has no such trial" if record is None else f"that trial {record.state}: {record.cause}"
        raise UsageError(f"trial {number} of {result.name} cannot be made again: {why}")
    job = result.job.model_copy(update={"also": also}) if also else result.job
    subject = prepare.load(job)
    engine.check_unchanged(result.study.noted("fingerprints", {}), subject.fingerprints, result.name)
    context = prepare.prepare(job, subject, result.folder, result.study.noted("references", {}), say)
    # With no parents that were kept: all of it is made again.
    context = replace(context, channel_ms=result.study.noted("channel_ms", {}), nursery=None)
    recipe, threads = Recipe.of(record.recipe, record.seed), _threads_of(record)
    with _threads(threads), _trainer(int(record.environment.get(WORKERS, 1)), job, context) as trainer:
        workshop = Workshop(context, Lane(gpus=context.gpus), trainer)
        making = workshop.begin(recipe)
        for epoch, each in enumerate(making.train({}), 1):
            say(f"epoch {epoch}: loss {each.loss:.4g}")
        model = making.bake()
        score = score_torch(model, context.splits.validation, context.metric, context.place)
        yield Remade(record, context, workshop, recipe, model, score)


def _threads_of(record: TrialRecord) -> int | None:
    return int(record.environment[THREADS]) if THREADS in record.environment else None


@contextmanager
def _trainer(size: int, job: Job, context: TrialContext) -> Iterator[Trainer | None]:
    """Start as many training workers as the trial had; None where it had none."""
    if size == 1:
        yield None
        return
    from paretrim.search.hiring import hired  # noqa: PLC0415 - most searches need no Ray Train

    there = job.with_budget({"parallel": 1, "trial_workers": size})
    with started(there), TemporaryDirectory(prefix="paretrim-") as folder:
        workers = hired(Staff(size, ray.put(material_of(context))), context, Path(folder))
        try:
            yield workers
        finally:
            workers.close()


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
