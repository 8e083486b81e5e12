"""What a search shows while it runs: a small protocol, so that a terminal, a plain log or a test can listen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from paretrim.tracking.constraints import Constraint
from paretrim.tracking.front import Objective
from paretrim.tracking.records import TrialRecord


@dataclass(frozen=True)
class Outline:
    """What a monitor knows of a search beforehand.

    Attributes:
        name: Its name.
        metric: Name of the job's metric.
        objectives: What is optimized.
        constraints: What a point must meet.
        trials: Trials that may end in all.
        minutes: Limit of wall time, or None.
    """

    name: str
    metric: str
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    trials: int
    minutes: float | None


class Monitor(Protocol):
    """Listens to a search."""

    def begin(self, outline: Outline, earlier: Sequence[TrialRecord]) -> None:
        """A search begins, or goes on after trials that ended earlier."""

    def started(self, number: int) -> None:
        """A trial began."""

    def trained(self, number: int) -> None:
        """A trial finished an epoch."""

    def finished(self, record: TrialRecord) -> None:
        """A trial ended."""

    def more(self, trials: int) -> None:
        """So many trials come on top, or fewer than were meant when it is negative."""

    def say(self, text: str) -> None:
        """Something else worth a line happened."""


class Silence:
    """Shows nothing."""

    def begin(self, outline: Outline, earlier: Sequence[TrialRecord]) -> None:
        """Show nothing."""

    def started(self, number: int) -> None:
        """Show nothing."""

    def trained(self, number: int) -> None:
        """Show nothing."""

    def finished(self, record: TrialRecord) -> None:
        """Show nothing."""

    def more(self, trials: int) -> None:
        """Show nothing."""

    def say(self, text: str) -> None:
        """Show nothing."""
