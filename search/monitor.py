"""What a search shows while it runs: a small protocol, so that a terminal, a plain log or a test can listen."""

from __future__ import annotations

from typing import Protocol

from paretrim.tracking.records import TrialRecord


class Monitor(Protocol):
    """Listens to a search."""

    def started(self, number: int) -> None:
        """A trial began."""

    def trained(self, number: int) -> None:
        """A trial finished an epoch."""

    def finished(self, record: TrialRecord) -> None:
        """A trial ended."""

    def say(self, text: str) -> None:
        """Something else worth a line happened."""


class Silence:
    """Shows nothing."""

    def started(self, number: int) -> None:
        """Show nothing."""

    def trained(self, number: int) -> None:
        """Show nothing."""

    def finished(self, record: TrialRecord) -> None:
        """Show nothing."""

    def say(self, text: str) -> None:
        """Show nothing."""
