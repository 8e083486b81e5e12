"""Every error that paretrim raises on purpose.

::

    ParetrimError                 exit code 1: something failed
    ├── UsageError                exit code 2: what was asked cannot be done as asked
    │   ├── JobError              a job file or Job with one or more mistakes
    │   ├── UserCodeError         a model, data or metric function that does not import, raises, or returns the wrong thing
    │   ├── SourceError           a file, folder or name that a model was to come from, and that cannot be taken
    │   ├── DataError             splits that overlap, are empty, or do not fit the model
    │   ├── UnknownJobError       no such job in the store
    │   ├── ResumeError           the job changed since it was started
    │   ├── OutputExistsError     a folder that would be overwritten
    │   └── MissingExtraError     an optional dependency that is not installed
    ├── LoweringError             a model that the target cannot take
    ├── ArtifactError             an artifact that does not load, differs from its record, or answers wrongly
    ├── MeasurementError          a measuring process that died, hung or answered nonsense
    ├── TrialError                a trial that failed, with its cause
    │   └── LostTrialError        one that failed for what it ran on, of which its recipe is innocent
    ├── StoreError                a store that cannot be written, above all for want of space
    ├── ClusterError              a cluster that cannot be reached, refuses, or lacks something
    └── NothingFoundError         no trial answers the question; says which condition binds and the nearest misses
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

INTERRUPTED = 130
"""The exit code of a run that was told to stop, by Ctrl-C or a signal."""


class ParetrimError(Exception):
    """Base of all errors of paretrim."""

    exit_code = 1


class UsageError(ParetrimError):
    """What was asked cannot be done as asked."""

    exit_code = 2


@dataclass(frozen=True)
class Problem:
    """One mistake.

    Attributes:
        location: Keys and positions that lead to the field, such as ``("budget", "trials")``; empty for the whole job.
        message: What was given, and what is allowed or to be done.
        line: Line in the job file, where there is one.
    """

    location: tuple[int | str, ...]
    message: str
    line: int | None = None

    def __str__(self) -> str:
        field = ".".join(str(part) for part in self.location)
        where = ", ".join(part for part in (f"line {self.line}" if self.line else "", field) if part)
        return f"{where}: {self.message}" if where else self.message


class JobError(UsageError):
    """A job with mistakes; all of them are in `problems`."""

    def __init__(self, problems: Sequence[Problem], source: str = "the job") -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        head = f"{source} has {count} mistake{'s' if count != 1 else ''}:"
        super().__init__("\n".join([head, *(f"  - {problem}" for problem in self.problems)]))


class UserCodeError(UsageError):
    """A user's function that does not import, raises, or returns the wrong thing."""


class SourceError(UsageError):
    """A file, folder or name that a model was to come from, and that cannot be taken."""


class DataError(UsageError):
    """Splits that overlap, are empty, or do not fit the model."""


class UnknownJobError(UsageError):
    """No such job in the store."""


class ResumeError(UsageError):
    """The job changed since it was started, so its trials would not be comparable."""


class OutputExistsError(UsageError):
    """A folder that would be overwritten."""


class MissingExtraError(UsageError):
    """An optional dependency that is not installed; the message names the extra."""


class LoweringError(ParetrimError):
    """A model that the target cannot take."""


class ArtifactError(ParetrimError):
    """An artifact that does not load, differs from its record, or answers wrongly."""


class MeasurementError(ParetrimError):
    """A measuring process that died, hung or answered nonsense."""


class TrialError(ParetrimError):
    """A trial that failed, with its cause."""


class LostTrialError(TrialError):
    """A trial that failed for what it ran on, such as memory that others use too; its recipe is innocent of that."""


class StoreError(ParetrimError):
    """A store that cannot be written, above all for want of space."""


class ClusterError(ParetrimError):
    """A cluster that cannot be reached, refuses, or lacks something."""


class NothingFoundError(ParetrimError):
    """No trial answers the question."""


def nearest(given: str, allowed: Sequence[str]) -> str:
    """Return ``"; did you mean 'x'?"`` when a name is close to an allowed one, else an empty string."""
    match = get_close_matches(given, list(allowed), n=1, cutoff=0.6)
    return f"; did you mean '{match[0]}'?" if match else ""
