"""What would fail in hour three, found in minute one: the whole path of a trial, once for each end of the space.

The model is exported, reopened and measured as it is; then the recipe that saves nothing and the one that saves the most
bytes are made, trained on a few batches, exported, and measured in full, and their artifacts are held against torch. From
what that took follows what the job's budget will take.
"""

from __future__ import annotations

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
from paretrim.search.context import TrialContext, score_torch
from paretrim.search.costs import with_costs
from paretrim.search.extremes import largest, smallest
from paretrim.search.forecast import EPOCHS, Attempt, Estimate, estimate, too_little, too_much
from paretrim.search.job import Job
from paretrim.search.profile import glance
from paretrim.search.staff import check_room
from paretrim.search.station import Station
from paretrim.search.store import JobFolder, Store
from paretrim.search.workshop import Workshop
from paretrim.spaces.recipe import Recipe

_BATCHES, _BATCH = 8, 64


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
    say("loading the model and the data")
    subject = prepare.load(job)
    warnings: list[str] = []
    with TemporaryDirectory(prefix="paretrim-") as folder:
        say("exporting, reopening and timing the baseline")
        context = with_costs(prepare.prepare(job, subject, _scratch(Path(folder)), {}, warnings.append))
        trials = _Trials(context, Path(folder))
        say("looking at what each knob does alone")
        context = replace(context, sensitivity=glance(context, say))
        attempts = []
        # As in a trial.
        torch.set_num_threads(max(1, len(cores.usable()) // job.budget.parallel))
        for name, recipe in _ends(job, context):
            say(f"{name}: making, training on a few batches, exporting, measuring")
            attempts.append(trials.attempt(name, recipe))
        problems = [f"{each.name}: {each.cause}" for each in attempts if each.cause]
        problems += _unreachable(job, context, warnings.append)
    expected = estimate(job, context, attempts)
    if expected is not None:
        problems += too_much(job, expected, store)
        warnings += too_little(job, expected)
    return Checked(
        context.metric.name,
        len(context.space.searched),
        tuple(attempts),
        tuple(problems),
        tuple(warnings),
        expected,
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
        lane = Lane(waiting=self._waiting, gpus=context.gpus)
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
        short = Recipe.of({**recipe.values, EPOCHS: 2}, recipe.seed) if recipe.number(EPOCHS) else recipe
        making = self._workshop.begin(short, self._workshop.schooling(short, self._train, self._teacher))
        moments = [self._now(), *(self._now() for _ in making.train({}))]
        model = making.bake()
        scored = self._now()
        score = score_torch(model, self._context.splits.validation, self._context.metric, self._context.place)
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
