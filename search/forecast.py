"""What a job's budget will take, from what the ends of its space took."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from paretrim.search.cache import LIMIT_BYTES
from paretrim.search.context import TrialContext
from paretrim.search.extremes import largest
from paretrim.search.job import Job
from paretrim.search.store import Store

EPOCHS = "recovery.epochs"
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


def estimate(job: Job, context: TrialContext, attempts: Sequence[Attempt]) -> Estimate | None:
    """Return what a budget will take, with trials in the middle between the ends of the space."""
    ends = [each for each in attempts if not each.cause and each.name != "baseline"]
    if not ends:
        return None
    epochs = int(largest(context.space, job.seed).number(EPOCHS))
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


def too_much(job: Job, estimate: Estimate, store: Store) -> Iterator[str]:
    """Yield what the budget or the disk has no room for."""
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


def too_little(job: Job, estimate: Estimate) -> Iterator[str]:
    """Yield what ends the search before its trials are done."""
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
