"""What would fail in hour three, found in minute one: the whole path of a trial, once for each end of the space.

The model is exported, reopened and measured as it is; then the recipe that saves nothing and the one that saves the most
bytes are made, trained on a few batches, exported, and measured in full, and their artifacts are held against torch. From
what that took follows what the job's budget will take.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from paretrim.errors import JobError, ParetrimError
from paretrim.evaluators import cores
from paretrim.evaluators.lane import Lane
from paretrim.search import prepare, reach
from paretrim.search.cache import LIMIT_BYTES
from paretrim.search.context import TrialContext, score_torch
from paretrim.search.costs import with_costs
from paretrim.search.extremes import largest, smallest
from paretrim.search.job import Job
from paretrim.search.profile import glance
from paretrim.search.staff import check_room
from paretrim.search.station import Station
from paretrim.search.store import JobFolder, Store
from paretrim.search.workshop import Workshop
from paretrim.spaces.recipe import Recipe

_EPOCHS = "recovery.epochs"
_BATCHES, _BATCH = 8, 64
_MINUTE = 60.0
# A record, its runs in MLflow and its recorded samples.
_RECORD_BYTES = 200_000


@dataclass(frozen=True)
class Attempt:
    """A recipe that went the whole path of a trial, but for most of its training.

    Attributes:
        name: What it is.
        metrics: What was measured of its artifact; empty when it did not come so far.
        torch_score: The metric of the torch model.
        epoch_s: What an epoch on the whole training split would take, in seconds, on one worker.
        other_s: What all else of a trial took, in seconds.
        artifact_bytes: What its files weigh in the store.
        cause: Why it failed; empty when it did not.
    """

    name: str
    metrics: dict[str, float]
    torch_score: float = 0.0
    epoch_s: float = 0.0
    other_s: float = 0.0
    artifact_bytes: int = 0
    cause: str = ""


@dataclass(frozen=True)
class Estimate:
    """What a job's budget will take if no trial is stopped early.

    Attributes:
        trial_s: Seconds of the longest trial.
        training_s: Seconds of training in all, the last phase included.
        wall_s: Seconds in all.
        disk_bytes: Bytes in the store, parents included.
    """

    trial_s: float
    training_s: float
    wall_s: float
    disk_bytes: int


@dataclass(frozen=True)
class Checked:
    """What was found.

    Attributes:
        metric: Name of the job's metric.
        knobs: How many are searched.
        attempts: The baseline and the ends of the space.
        problems: What would make the search fail.
        warnings: What may disappoint.
        estimate: What it will take; None where no recipe came through.
    """

    metric: str
    knobs: int
    attempts: tuple[Attempt, ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    estimate: Estimate | None


def check(job: Job, store: Store, say: Callable[[str], None]) -> Checked:
    """Try what a search of a job would do.

    Args:
        job: The job.
        store: Where the search would keep what it makes; nothing is written there.
        say: Told what is being tried.

    Raises:
        UsageError: The model, the data or the settings do not do at all; says all that is wrong.
        LoweringError: The model does not export.
    """
    check_room(job)
    # As in a trial.
    torch.set_num_threads(max(1, len(cores.usable()) // job.budget.parallel))
    say("loading the model and the data")
    subject = prepare.load(job)
    warnings: list[str] = []
    with TemporaryDirectory(prefix="paretrim-") as folder:
        say("exporting, reopening and timing the baseline")
        context = with_costs(prepare.prepare(job, subject, _scratch(Path(folder)), {}, warnings.append))
        trials = _Trials(context, Path(folder))
        say("looking at what each knob does alone")
        context = replace(context, sensitivity=glance(context))
        attempts = []
        for name, recipe in _ends(job, context):
            say(f"{name}: making, training on a few batches, exporting, measuring")
            attempts.append(trials.attempt(name, recipe))
        problems = [f"{each.name}: {each.cause}" for each in attempts if each.cause]
        problems += _unreachable(job, context, warnings.append)
    estimate = _estimate(job, context, attempts)
    if estimate is not None:
        problems += _too_much(job, estimate, store)
        warnings += _too_little(job, estimate)
    return Checked(
        context.metric.name,
        len(context.space.searched),
        tuple(attempts),
        tuple(problems),
        tuple(warnings),
        estimate,
    )


def _scratch(folder: Path) -> JobFolder:
    found = JobFolder("check", folder / "jobs" / "check")
    found.path.mkdir(parents=True)
    return found


def _ends(job: Job, context: TrialContext) -> Iterator[tuple[str, Recipe]]:
    yield "baseline", context.space.anchors(job.seed)["baseline"]
    yield "largest", largest(context.space, job.seed)
    if context.sensitivity is not None:
        yield "smallest", smallest(context.space, context.sensitivity, job.seed)


class _Trials:
    """Makes trials that train on a few batches only."""

    def __init__(self, context: TrialContext, folder: Path) -> None:
        self._folder, self._count = folder, len(context.splits.train)
        few = torch.arange(min(self._count, _BATCHES * _BATCH))
        # Neither parents nor previews: each recipe goes all the way by itself.
        self._context = replace(context, share=False, nursery=None, preview=False)
        self._train = context.splits.train.part(few)
        self._teacher = None if context.teacher is None else context.teacher[few]
        self._waited_s = 0.0
        lane = Lane(waiting=self._waiting)
        self._workshop = Workshop(self._context, lane)
        self._stations = [
            Station(plan, context.metric, context.splits.validation, folder / f"bench-{i}", lane)
            for i, plan in enumerate(context.stations)
        ]

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """Take the time that other searches' measurements took, which is none of this one's."""
        since = time.perf_counter()
        yield
        self._waited_s += time.perf_counter() - since

    def _now(self) -> float:
        return time.perf_counter() - self._waited_s

    def attempt(self, name: str, recipe: Recipe) -> Attempt:
        """Return how a recipe fared."""
        try:
            return self._attempt(name, recipe)
        except ParetrimError as error:
            return Attempt(name, {}, cause=str(error))
        except Exception as error:  # noqa: BLE001 - a user's code may raise anything
            return Attempt(name, {}, cause=f"{type(error).__name__}: {error}")

    def _attempt(self, name: str, recipe: Recipe) -> Attempt:
        began = self._now()
        short = Recipe.of({**recipe.values, _EPOCHS: 2}, recipe.seed) if _epochs(recipe) else recipe
        making = self._workshop.begin(short, self._workshop.schooling(short, self._train, self._teacher))
        moments = [self._now(), *(self._now() for _ in making.train({}))]
        model = making.bake()
        scored = self._now()
        score = score_torch(model, self._context.splits.validation, self._context.metric)
        score_s = self._now() - scored
        main, *others = self._stations
        artifact = self._workshop.lowered(main.target, model, short)
        found = main.score(artifact, score, {})
        for other in others:
            other.score(self._workshop.lowered(other.target, model, short, self._folder / other.plan.name), score, {})
        # The first epoch also warms up; with each the model is scored.
        few_s = max(0.0, moments[-1] - moments[-2] - score_s) if len(moments) > 1 else 0.0
        epoch_s = few_s * self._count / len(self._train) + score_s if len(moments) > 1 else 0.0
        return Attempt(
            name,
            {m.name: m.value for m in found},
            score,
            epoch_s,
            self._now() - began - (moments[-1] - moments[0]),
            artifact.path.stat().st_size,
        )


def _epochs(recipe: Recipe) -> int:
    return int(recipe.number(_EPOCHS))


def _unreachable(job: Job, context: TrialContext, warn: Callable[[str], None]) -> list[str]:
    """Return the bounds on costs that the space cannot meet."""

    def doubtful(text: str) -> None:
        if text.startswith("perhaps"):
            warn(text)

    try:
        reach.check(job, context, doubtful)
    except JobError as error:
        return [str(problem) for problem in error.problems]
    return []


def _estimate(job: Job, context: TrialContext, attempts: list[Attempt]) -> Estimate | None:
    """Return what a budget will take, with trials in the middle between the ends of the space."""
    ends = [each for each in attempts if not each.cause and each.name != "baseline"]
    if not ends:
        return None
    epochs = _epochs(largest(context.space, job.seed))
    team, budget, finals = job.budget.trial_workers, job.budget, job.search.finals
    last = finals.points * finals.seeds
    epoch_s = sum(each.epoch_s for each in ends) / len(ends) / team
    other_s = sum(each.other_s for each in ends) / len(ends)
    training_s = epochs * epoch_s * (budget.trials + last * finals.longer)
    weights = sum(p.numel() * p.element_size() for p in context.model.parameters())
    artifacts = sum(each.artifact_bytes for each in ends) // len(ends) * len(job.targets)
    parents = min(LIMIT_BYTES, budget.trials * weights) if job.search.share else 0
    return Estimate(
        trial_s=max(epochs * each.epoch_s / team + each.other_s for each in ends),
        training_s=training_s,
        wall_s=(training_s + (budget.trials + last) * other_s) / budget.parallel,
        disk_bytes=(budget.trials + last) * (artifacts + _RECORD_BYTES) + parents,
    )


def _too_much(job: Job, estimate: Estimate, store: Store) -> Iterator[str]:
    limit_s = job.budget.trial_minutes * _MINUTE
    if estimate.trial_s > limit_s:
        yield (
            f"budget.trial_minutes is {job.budget.trial_minutes:g}, and the longest trial takes about "
            f"{estimate.trial_s / _MINUTE:.1f} minutes: it would be stopped; give {2 * estimate.trial_s / _MINUTE:.0f} or "
            "more, or fewer epochs in space.recovery.epochs"
        )
    place = next(path for path in (store.root, *store.root.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    if estimate.disk_bytes > free:
        yield (
            f"the search will keep about {estimate.disk_bytes / 1e9:.1f} GB in {store.root}, where {free / 1e9:.1f} GB are "
            "free; free some, or name another place with --store"
        )


def _too_little(job: Job, estimate: Estimate) -> Iterator[str]:
    minutes, seconds = job.budget.minutes, job.budget.training_seconds
    if minutes is not None and estimate.wall_s > minutes * _MINUTE:
        yield (
            f"budget.minutes is {minutes:g}, in which about {job.budget.trials * minutes * _MINUTE / estimate.wall_s:.0f} of "
            f"{job.budget.trials} trials end if none is stopped early"
        )
    if seconds is not None and estimate.training_s > seconds:
        yield (
            f"budget.training_seconds is {seconds:g}, in which about "
            f"{job.budget.trials * seconds / estimate.training_s:.0f} of {job.budget.trials} trials end if none is stopped early"
        )
