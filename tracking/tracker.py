"""What a tracker is: it remembers a search where people look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from paretrim.errors import ParetrimError
from paretrim.evaluators.artifact import Artifact
from paretrim.tracking.constraints import Constraint
from paretrim.tracking.importance import Importance
from paretrim.tracking.progress import Step
from paretrim.tracking.records import TrialRecord
from paretrim.tracking.report import Report
from paretrim.tracking.sensitivity import Profile


class TrackingError(ParetrimError):
    """The tracking server or database could not be reached or refused."""


@dataclass(frozen=True)
class Chosen:
    """A model of the front that people ask for first.

    Attributes:
        aliases: What for: ``champion`` is exported by default, ``smallest`` and ``fastest`` meet the same condition.
        search: Name of the search.
        trial: Number of the trial.
        artifact: Its file.
        samples: File of recorded inputs and outputs.
        threads: Threads that it was timed with.
        requirements: What runs it, as for pip.
        metrics: What was measured of it.
        words: The same in a sentence.
    """

    aliases: tuple[str, ...]
    search: str
    trial: int
    artifact: Artifact
    samples: Path
    threads: int
    requirements: tuple[str, ...]
    metrics: Mapping[str, float]
    words: str


@dataclass(frozen=True)
class Summary:
    """A search at its end, or at an interruption.

    Attributes:
        report: The front.
        records: All trials that ended.
        feasible: Numbers of the trials that meet all constraints.
        figures: Numbers of the search as a whole, such as ``hypervolume``.
        notes: Facts in words by name, such as the state of the search.
        sensitivity: What each knob does alone, where that was taken.
        progress: The search after each of its trials.
        importance: What each knob matters for each objective, where that was reckoned.
        constraints: What a point must meet.
        picked: Number of the trial that is exported by default; None where nothing meets the rule.
        models: Those that are registered, under the name `model`.
        model: The job's name.
    """

    report: Report
    records: Sequence[TrialRecord]
    feasible: frozenset[int]
    figures: Mapping[str, float]
    notes: Mapping[str, str]
    sensitivity: Profile | None = None
    progress: tuple[Step, ...] = ()
    importance: Importance | None = None
    constraints: tuple[Constraint, ...] = ()
    picked: int | None = None
    models: tuple[Chosen, ...] = ()
    model: str = ""


class Tracker(Protocol):
    """Remembers a search. Logging a trial twice keeps one."""

    def logged(self) -> set[int]:
        """Return the numbers of the trials that are wholly logged, and clear away what was half logged."""
        ...

    def log_trial(self, record: TrialRecord) -> None:
        """Remember a trial that ended.

        Raises:
            ParetrimError: It could not be remembered now; the caller tries again later.
        """
        ...

    def log_summary(self, summary: Summary) -> None:
        """Remember the search as a whole, in the place of an earlier summary."""
        ...


class MemoryTracker:
    """Remembers in this process only; for tests, and for a search that nobody will look at."""

    def __init__(self) -> None:
        self.trials: dict[int, TrialRecord] = {}
        self.summary: Summary | None = None

    def logged(self) -> set[int]:
        """Return the numbers of the trials that are logged."""
        return set(self.trials)

    def log_trial(self, record: TrialRecord) -> None:
        """Remember a trial that ended."""
        self.trials.setdefault(record.number, record)

    def log_summary(self, summary: Summary) -> None:
        """Remember the search as a whole."""
        self.summary = summary
