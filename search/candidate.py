"""A trial under way, as the driver knows it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from paretrim.search.news import News
from paretrim.search.study import Asked
from paretrim.tracking.records import Epoch, Preview, State, TrialRecord


@dataclass
class Candidate:
    """A trial under way.

    Attributes:
        asked: The trial.
        since: When it was handed out, by the monotonic clock.
        preview: What was measured before its training, once that is known.
        epochs: Its training so far.
        seconds: Wall time by stage of its own work so far.
        verdict: Why it shall stop; empty while it goes on.
    """

    asked: Asked
    since: float = field(default_factory=time.monotonic)
    preview: Preview | None = None
    epochs: list[Epoch] = field(default_factory=list)
    seconds: Mapping[str, float] = field(default_factory=dict)
    verdict: str = ""

    def hear(self, news: News) -> None:
        """Take note of what it tells."""
        self.seconds = news.seconds
        if isinstance(news.event, Preview):
            self.preview = news.event
        else:
            self.epochs.append(news.event)

    def ended(self, state: State, cause: str) -> TrialRecord:
        """Return the record of a trial that does not come to its own end."""
        return TrialRecord(
            number=self.asked.number,
            kind=self.asked.kind,
            state=state,
            recipe=self.asked.recipe.values,
            seed=self.asked.recipe.seed,
            seconds=self.seconds or {"total": time.monotonic() - self.since},
            epochs=tuple(self.epochs),
            preview=self.preview,
            cause=cause,
        )
