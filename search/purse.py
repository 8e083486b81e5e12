"""When a search has spent enough."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from paretrim.search.sections import Budget
from paretrim.tracking.constraints import Constraint
from paretrim.tracking.front import Objective, baseline_metrics
from paretrim.tracking.progress import progress, training_seconds
from paretrim.tracking.records import TrialRecord

# A hypervolume counts as risen when it rises by this share of itself.
_RISE = 1e-3


class Purse:
    """Watches what a run of the driver spends.

    Args:
        budget: What may be spent.
        objectives: What is optimized.
        constraints: What a point must meet.
        stop_file: Made by whoever asks the search to end.
        spent_s: Training seconds that were spent before any trial.
        records: Returns all trials that ended.
    """

    def __init__(
        self,
        budget: Budget,
        objectives: tuple[Objective, ...],
        constraints: tuple[Constraint, ...],
        stop_file: Path,
        spent_s: float,
        records: Callable[[], list[TrialRecord]],
    ) -> None:
        self._budget, self._objectives, self._constraints = budget, objectives, constraints
        self._stop_file, self._spent_s, self._records = stop_file, spent_s, records
        self._deadline = None if budget.minutes is None else time.monotonic() + budget.minutes * 60
        self._seen = -1
        self._over = self._enough = ""

    def why_over(self) -> str:
        """Return why no more trials of any kind shall be started, or nothing while they may."""
        if not self._over:
            self._over = self._spent()
        return self._over

    def why_enough(self) -> str:
        """Return why the search has come to its end although it may go on, or nothing when it has not."""
        patience = self._budget.patience
        if patience is not None and not self._enough:
            records = self._records()
            if len(records) != self._seen and self._flat_for(records) >= patience:
                self._enough = f"the hypervolume has not risen for {patience} trials"
            self._seen = len(records)
        return self._enough

    def _spent(self) -> str:
        if self._deadline is not None and time.monotonic() > self._deadline:
            return f"its {self._budget.minutes:g} minutes are up"
        if self._stop_file.exists():
            return "it was told to stop"
        limit = self._budget.training_seconds
        records = [] if limit is None else self._records()
        used = self._spent_s + sum(map(training_seconds, records))
        # The baseline costs no training, and there is nothing to be shown without it.
        over = limit is not None and used >= limit and bool(baseline_metrics(records))
        return f"it has trained for {used:.0f} of {limit:g} seconds" if over else ""

    def _flat_for(self, records: list[TrialRecord]) -> int:
        """Return how many trials in a row, up to the last, did not raise the hypervolume."""
        reached, flat = 0.0, 0
        for step in progress(records, self._objectives, self._constraints):
            if step.hypervolume > reached * (1.0 + _RISE):
                reached, flat = step.hypervolume, 0
            else:
                flat += 1
        return flat if reached else 0
