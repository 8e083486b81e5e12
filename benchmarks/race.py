"""Searches that compete for the most hypervolume per second of training: the same trials, other ways of choosing them."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchmarks.race_moasha import Moasha
from benchmarks.race_track import Track
from paretrim.errors import ParetrimError
from paretrim.search import longer, strategy
from paretrim.search.candidate import Candidate
from paretrim.search.judge import Judge
from paretrim.search.knobs import distribution, from_sampled
from paretrim.search.longer import FINAL
from paretrim.search.study import Asked, Study
from paretrim.spaces.dimension import Value
from paretrim.tracking.front import baseline_metrics
from paretrim.tracking.progress import Step, progress
from paretrim.tracking.records import TrialRecord

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

OURS = "paretrim"
MOASHA = "moasha"
RIVALS = ("random", "tpe", "nsga2", "gp", MOASHA)


@dataclass(frozen=True)
class Run:
    """What one search gave.

    Attributes:
        method: Who chose.
        seed: Of the search.
        steps: The search after each of its trials.
        wall_seconds: Of the whole search; for comparison, since it hangs on what else the machine did.
        records: Its trials.
    """

    method: str
    seed: int
    steps: tuple[Step, ...]
    wall_seconds: float
    records: tuple[TrialRecord, ...]


def ours(track: Track, seed: int, trials: int) -> Run:
    """Search as `paretrim search` does, one trial after the other."""
    since, job, context = time.monotonic(), track.job, track.context
    url = f"sqlite:///{track.folder / 'study.db'}"
    study = Study(url, "race", track.objectives, job.bounds, seed, create=True)
    study.begin(context.space.anchors(seed))
    before = context.teaching_seconds
    if job.search.warm_start:
        sensitivity, seconds = track.glance()
        context = replace(context, sensitivity=sensitivity, looks=track.looks(sensitivity))
        before += seconds
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
    records = track.settled(study.records())
    steps = progress(records, track.objectives, job.bounds, before)
    return Run(OURS, seed, steps, time.monotonic() - since, tuple(records))


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
    """Search as a plain loop over one of Optuna's samplers does, each trial to its end; or with the stops of MOASHA.

    What MOASHA saves by stopping it spends on further trials: it ends when it has run as many epochs as the others do.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    since, space, job = time.monotonic(), track.context.space, track.job
    up, down = optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE
    signs = [up if o.maximize else down for o in track.objectives]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the Gaussian process and the constraints are marked as experimental
        study = optuna.create_study(directions=signs, sampler=_sampler(method, seed, trials))
    kinds = {d.name: distribution(d) for d in space.searched}
    moasha = Moasha(track, seed) if method == MOASHA else None
    records: list[TrialRecord] = []
    for kind, recipe in space.anchors(seed).items():
        records.append(_whole(track, Asked(len(records), kind, recipe)))
    base = baseline_metrics(records)
    most = (trials - len(records)) * moasha.longest if moasha else 0
    while moasha.epochs < most if moasha else len(records) < trials:
        trial = study.ask(kinds)
        values: dict[str, Value] = {d.name: from_sampled(d, trial.params[d.name]) for d in space.searched}
        asked = Asked(len(records), "search", space.recipe(values, seed * 1_000_003 + len(records)))
        record = _whole(track, asked, moasha.verdict if moasha else None)
        records.append(record)
        if not record.complete:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        for i, bound in enumerate(job.bounds):
            trial.set_constraint(f"c{i}", bound.excess(record.metrics, base))
        study.tell(trial, [record.metrics[o.name] for o in track.objectives])
    records = track.settled(records)
    steps = progress(records, track.objectives, job.bounds, track.context.teaching_seconds)
    return Run(method, seed, steps, time.monotonic() - since, tuple(records))


def _whole(track: Track, asked: Asked, verdict: Callable[[Candidate], str] | None = None) -> TrialRecord:
    candidate = Candidate(asked)
    try:
        for told in track.run(asked, preview=verdict is not None):
            if isinstance(told, TrialRecord):
                return told
            candidate.hear(told)
            if verdict and (why := verdict(candidate)):
                return candidate.ended("stopped", why)
    except ParetrimError as error:
        return candidate.ended("failed", str(error))
    raise TypeError("a trial ends with its record")


def _sampler(method: str, seed: int, trials: int) -> BaseSampler:
    from optuna import samplers

    startup = max(3, min(10, trials // 3))
    if method in ("random", MOASHA):  # which chooses at random
        return samplers.RandomSampler(seed=seed)
    if method == "tpe":
        return samplers.TPESampler(seed=seed, n_startup_trials=startup)
    if method == "nsga2":
        return samplers.NSGAIISampler(seed=seed, population_size=max(8, trials // 6))
    return samplers.GPSampler(seed=seed, n_startup_trials=startup, warn_independent_sampling=False)
