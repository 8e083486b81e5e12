"""Searches that compete for the most hypervolume per second of training: the same trials, other ways of choosing them."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from paretrim.errors import ParetrimError
from paretrim.evaluators.accuracy import AccuracyEvaluator
from paretrim.evaluators.artifact import Artifact
from paretrim.evaluators.lane import Lane
from paretrim.evaluators.measurement import Measurement
from paretrim.evaluators.served import served
from paretrim.search import longer, prepare, strategy
from paretrim.search.candidate import Candidate
from paretrim.search.job import Job
from paretrim.search.judge import Judge
from paretrim.search.knobs import distribution, from_sampled
from paretrim.search.longer import FINAL
from paretrim.search.news import News
from paretrim.search.profile import glance
from paretrim.search.result import objectives_of
from paretrim.search.station import Station, clocked
from paretrim.search.store import JobFolder
from paretrim.search.study import Asked, Study
from paretrim.search.workshop import Workshop
from paretrim.spaces.dimension import Value
from paretrim.spaces.recipe import Recipe
from paretrim.tracking.front import baseline_metrics
from paretrim.tracking.progress import Step, progress
from paretrim.tracking.records import Epoch, Preview, TrialRecord

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

OURS = "paretrim"
RIVALS = ("random", "tpe", "nsga2", "gp")


@dataclass(frozen=True)
class Run:
    """What one search gave.

    Attributes:
        method: Who chose.
        seed: Of the search.
        steps: The search after each of its trials.
        wall_seconds: Of the whole search; for comparison, since it hangs on what else the machine did.
    """

    method: str
    seed: int
    steps: tuple[Step, ...]
    wall_seconds: float


class Track:
    """The trials that all methods make: trained, lowered, and scored on the artifact, in this process.

    Latency is taken in three layouts and memory in one process, as a candidate's is before its training: less exact than
    a trial of `paretrim search`, and the same for all. Training is counted in processor seconds of its one thread, so that it
    does not matter what else the machine does.

    Args:
        job: The job.
        folder: For artifacts and caches; new for each run, so that every run begins cold.
    """

    def __init__(self, job: Job, folder: Path) -> None:
        self.job = job
        self.subject = prepare.load(job)
        self.folder = JobFolder("race", folder / "jobs" / "race")
        self.folder.path.mkdir(parents=True)
        self.context = prepare.prepare(job, self.subject, self.folder, {}, lambda _: None)
        self.objectives = objectives_of(job, self.subject.metric.maximize)
        lane = Lane(yielding=False)
        self.workshop = Workshop(self.context, lane)
        validation = self.context.splits.validation
        self._accuracy = AccuracyEvaluator(self.context.metric, validation, self.context.stations[0].output_shape)
        self._station = Station(self.context.stations[0], self.context.metric, validation, folder / "bench", lane)

    def run(self, asked: Asked, *, preview: bool) -> Iterator[News | TrialRecord]:
        """Make one trial: yields what it tells under way, and last its record."""
        seconds: dict[str, float] = {}
        making = self.workshop.begin(asked.recipe)
        known: Preview | None = None
        epochs: list[Epoch] = []
        if preview:
            with clocked(seconds, "preview"):
                known = self._measured(making.untrained(), asked.recipe)
            yield News(known, dict(seconds))
        epoch_s = time.process_time()
        for epoch in making.train({}):
            seconds["recover"] = seconds.get("recover", 0.0) + time.process_time() - epoch_s
            epochs.append(epoch)
            yield News(epoch, dict(seconds))
            epoch_s = time.process_time()
        seconds["recover"] = seconds.get("recover", 0.0) + time.process_time() - epoch_s
        with clocked(seconds, "score"):
            found = self._scored(making.bake(), asked.recipe)
        yield TrialRecord(
            asked.number,
            asked.kind,
            "complete",
            asked.recipe.values,
            asked.recipe.seed,
            found,
            seconds=seconds,
            epochs=tuple(epochs),
            preview=known,
        )

    def _measured(self, model: torch.nn.Module, recipe: Recipe) -> Preview:
        with tempfile.TemporaryDirectory(prefix="paretrim-") as folder:
            return self._station.preview(self._lowered(model, recipe, Path(folder)))

    def _scored(self, model: torch.nn.Module, recipe: Recipe) -> tuple[Measurement, ...]:
        with tempfile.TemporaryDirectory(prefix="paretrim-") as folder:
            artifact = self._lowered(model, recipe, Path(folder))
            address = self.context.stations[0].address
            with artifact.unpacked() as path, served(address, path) as session:
                score = self._accuracy.score(session)
            return score, *self._station.preview(artifact).measurements

    def _lowered(self, model: torch.nn.Module, recipe: Recipe, folder: Path) -> Artifact:
        return self.workshop.lowered(self._station.target, model, recipe, folder)


def ours(track: Track, seed: int, trials: int) -> Run:
    """Search as `paretrim search` does, one trial after the other."""
    since, job, context = time.monotonic(), track.job, track.context
    url = f"sqlite:///{track.folder.path / 'study.db'}"
    study = Study(url, "race", track.objectives, job.bounds, seed, create=True)
    study.begin(context.space.anchors(seed))
    before, began = context.teaching_seconds, time.process_time()
    if job.search.warm_start:
        context = replace(context, sensitivity=glance(context))
        before += time.process_time() - began
    study.use_sampler(trials, job.sampler, 1)
    guide = strategy.guide(job, context, study)
    study.follow(guide)
    judge = strategy.judge(job, context, study, guide)
    while study.ended < trials:
        _next(track, study, judge)
    settings = job.search.finals
    chosen = longer.finalists(study.records(), track.objectives, job.bounds, settings)
    study.append(FINAL, longer.recipes(chosen, settings, seed))
    for _ in range(study.count(FINAL)):
        _next(track, study, judge)
    steps = progress(study.records(), track.objectives, job.bounds, before)
    return Run(OURS, seed, steps, time.monotonic() - since)


def _next(track: Track, study: Study, judge: Judge) -> None:
    candidate = Candidate(study.ask(track.context.space))
    record = _made(track, study, judge, candidate)
    study.tell(record)
    judge.ended(record)


def _made(track: Track, study: Study, judge: Judge, candidate: Candidate) -> TrialRecord:
    try:
        for told in track.run(candidate.asked, preview=track.job.search.preview):
            if isinstance(told, TrialRecord):
                return told
            candidate.hear(told)
            candidate.verdict = judge.verdict(candidate, study.records())
            if candidate.verdict:
                return candidate.ended("stopped", candidate.verdict)
    except ParetrimError as error:
        return candidate.ended("failed", str(error))
    raise TypeError("a trial ends with its record")


def rival(track: Track, method: str, seed: int, trials: int) -> Run:
    """Search as a plain loop over one of Optuna's samplers does: each trial to its end."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    since, space, job = time.monotonic(), track.context.space, track.job
    up, down = optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE
    signs = [up if o.maximize else down for o in track.objectives]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the Gaussian process and the constraints are marked as experimental
        study = optuna.create_study(directions=signs, sampler=_sampler(method, seed, trials))
    kinds = {d.name: distribution(d) for d in space.searched}
    records: list[TrialRecord] = []
    for kind, recipe in space.anchors(seed).items():
        records.append(_whole(track, Asked(len(records), kind, recipe)))
    base = baseline_metrics(records)
    while len(records) < trials:
        trial = study.ask(kinds)
        values: dict[str, Value] = {d.name: from_sampled(d, trial.params[d.name]) for d in space.searched}
        record = _whole(track, Asked(len(records), "search", space.recipe(values, seed * 1_000_003 + len(records))))
        records.append(record)
        if not record.complete:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        for i, bound in enumerate(job.bounds):
            trial.set_constraint(f"c{i}", bound.excess(record.metrics, base))
        study.tell(trial, [record.metrics[o.name] for o in track.objectives])
    steps = progress(records, track.objectives, job.bounds, track.context.teaching_seconds)
    return Run(method, seed, steps, time.monotonic() - since)


def _whole(track: Track, asked: Asked) -> TrialRecord:
    candidate = Candidate(asked)
    try:
        for told in track.run(asked, preview=False):
            if isinstance(told, TrialRecord):
                return told
            candidate.hear(told)
    except ParetrimError as error:
        return candidate.ended("failed", str(error))
    raise TypeError("a trial ends with its record")


def _sampler(method: str, seed: int, trials: int) -> BaseSampler:
    from optuna import samplers

    startup = max(3, min(10, trials // 3))
    if method == "random":
        return samplers.RandomSampler(seed=seed)
    if method == "tpe":
        return samplers.TPESampler(seed=seed, n_startup_trials=startup)
    if method == "nsga2":
        return samplers.NSGAIISampler(seed=seed, population_size=max(8, trials // 6))
    return samplers.GPSampler(seed=seed, n_startup_trials=startup, warn_independent_sampling=False)
