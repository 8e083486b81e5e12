"""How a search got on: the hypervolume after each trial, and over the time spent training. Pure arithmetic."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from paretrim.tracking.constraints import Constraint
from paretrim.tracking.front import Objective, baseline_metrics, place, volume
from paretrim.tracking.records import TrialRecord

_TRAINING = ("recover", "parent")


@dataclass(frozen=True)
class Step:
    """A search after one of its trials.

    Attributes:
        trial: Number of the trial.
        hypervolume: Of all trials up to this one, from 0 to 1; see `paretrim.tracking.front.hypervolume`.
        training_seconds: What all trials up to this one spent training, in seconds.
        state: How the trial ended.
    """

    trial: int
    hypervolume: float
    training_seconds: float
    state: str


def training_seconds(record: TrialRecord) -> float:
    """Return the wall time that a trial spent training, in seconds: its recovery, and that of a parent made for it."""
    return sum(record.seconds.get(stage, 0.0) for stage in _TRAINING)


def progress(
    records: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
    before: float = 0.0,
) -> tuple[Step, ...]:
    """Return a search after each of its trials, by number; trials that failed or were stopped cost their time too.

    The box, and bounds relative to the baseline, are those of the finished baseline throughout, so that all steps
    compare; the last step's hypervolume is the search's.

    Args:
        records: All trials that ended.
        objectives: What is compared.
        constraints: What a point must meet.
        before: Training seconds that were spent before the first trial.
    """
    base = baseline_metrics(records)
    archive, reached, spent = _Archive(len(objectives)), 0.0, before
    steps = []
    for record in sorted(records, key=lambda each: each.number):
        spent += training_seconds(record)
        point = place(record, objectives, constraints, base)
        if point is not None and archive.add(point):
            # Taken anew from the points that are left, so that no rounding adds up; hence it may not seem to fall.
            reached = max(reached, archive.volume)
        steps.append(Step(record.number, reached, spent, record.state))
    return tuple(steps)


def to_csv(steps: Sequence[Step]) -> str:
    """Return steps as CSV with a heading, one line a trial."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("trial", "state", "training_seconds", "hypervolume"))
    writer.writerows((step.trial, step.state, step.training_seconds, step.hypervolume) for step in steps)
    return text.getvalue()


class _Archive:
    """The points so far that no other dominates."""

    def __init__(self, dimensions: int) -> None:
        self._points: npt.NDArray[np.float64] = np.empty((0, dimensions))

    @property
    def volume(self) -> float:
        return volume(self._points.tolist())

    def add(self, point: Sequence[float]) -> bool:
        """Add a point; tell whether it was not dominated."""
        new = np.asarray(point)
        if (self._points <= new).all(axis=1).any():
            return False
        self._points = np.vstack([self._points[~(new <= self._points).all(axis=1)], new])
        return True
