"""What is known of a search under way, in numbers; each trial costs the same, however many there were."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from paretrim.search.monitor import Outline
from paretrim.tracking.front import baseline_metrics, place, volume
from paretrim.tracking.records import BASELINE, TrialRecord
from paretrim.tracking.report import Report, build


class Progress:
    """What is known of a search under way, in numbers."""

    def __init__(self) -> None:
        self.outline: Outline | None = None
        self.records: list[TrialRecord] = []
        self.running: set[int] = set()
        self._earlier = 0
        self._since = time.monotonic()
        self._states: Counter[str] = Counter()
        self._base: dict[str, float] = {}
        self._pool: list[TrialRecord] = []
        self._points = np.zeros((0, 0))
        self._volume: float | None = 0.0
        self._report: Report | None = None
        self._changed = True

    def begin(self, outline: Outline, earlier: Sequence[TrialRecord]) -> None:
        """Take the outline and the trials that ended before."""
        self.outline = outline
        self.records = list(earlier)
        self._earlier = len(self.records)
        self._since = time.monotonic()
        self._measure()

    def more(self, trials: int) -> None:
        """Expect so many trials more."""
        if self.outline is not None:
            self.outline = replace(self.outline, trials=self.outline.trials + trials)

    def finished(self, record: TrialRecord) -> None:
        """Count a trial that ended."""
        self.running.discard(record.number)
        self.records.append(record)
        if record.kind == BASELINE:
            self._measure()  # all the others are compared with it
        else:
            self._count(record)

    def count(self, state: str) -> int:
        """Return how many trials ended in a state."""
        return self._states[state]

    @property
    def hypervolume(self) -> float:
        """The share of a fixed box that the trials dominate, as in `tracking.front.hypervolume`."""
        if self._volume is None:
            self._volume = volume(self._points.tolist())
        return self._volume

    @property
    def report(self) -> Report | None:
        """The front so far; None while the baseline is not done."""
        outline = self.outline
        if outline is not None and self._changed:
            found = build(outline.name, outline.metric, self._pool, outline.objectives, outline.constraints, {})
            self._report, self._changed = found, False
            on_front = {row.trial for row in found.front} if found is not None else set()
            # What is not on the front now will never be.
            if found is not None:
                self._pool = [r for r in self._pool if r.number in on_front or r.kind == BASELINE]
        return self._report

    def elapsed(self) -> float:
        """Return the seconds since the search began or went on."""
        return time.monotonic() - self._since

    def left(self) -> float | None:
        """Return an estimate of the seconds that are left, or None before there is ground for one."""
        if self.outline is None or len(self.records) <= self._earlier:
            return None
        pace = self.elapsed() / (len(self.records) - self._earlier)
        seconds = pace * max(0, self.outline.trials - len(self.records))
        if self.outline.minutes is not None:
            seconds = min(seconds, max(0.0, self.outline.minutes * 60 - self.elapsed()))
        return seconds

    def _measure(self) -> None:
        self._states, self._pool, self._points, self._volume = Counter(), [], np.zeros((0, 0)), 0.0
        self._report, self._changed = None, True
        self._base = baseline_metrics(self.records)
        for record in self.records:
            self._count(record)

    def _count(self, record: TrialRecord) -> None:
        self._states[record.state] += 1
        if self.outline is None or not record.complete:
            return
        self._pool.append(record)
        self._changed = True
        found = place(record, self.outline.objectives, self.outline.constraints, self._base)
        if found is not None:
            self._add(np.asarray(found, dtype=np.float64))

    def _add(self, point: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> None:
        if not len(self._points):
            self._points, self._volume = point[None], None
        elif not (self._points <= point).all(axis=1).any():
            kept = self._points[~(point <= self._points).all(axis=1)]
            self._points, self._volume = np.vstack([kept, point]), None
