"""Which trials stop early: those that could not matter however well they were trained, and those that fall behind."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from paretrim.search.candidate import Candidate
from paretrim.search.gate import Gate
from paretrim.search.halving import Halving, RungEntry
from paretrim.spaces.recipe import Recipe
from paretrim.tracking.constraints import Constraint, hard
from paretrim.tracking.front import Objective, baseline_metrics
from paretrim.tracking.records import Epoch, Preview, TrialRecord

SEARCHED = "search"
"""The kind of the trials that may stop early: not of those that stand in every table, nor of the finalists."""


Hope = Callable[[Sequence[TrialRecord], Recipe], float | None]


class Judge(Protocol):
    """Tells which trials stop early."""

    def verdict(self, candidate: Candidate, records: Sequence[TrialRecord]) -> str:
        """Return why a trial under way shall stop, or nothing when it goes on."""
        ...

    def ended(self, record: TrialRecord) -> None:
        """Take note of a trial that ended, however it did."""
        ...


class Lenient:
    """Stops nothing."""

    def verdict(self, candidate: Candidate, records: Sequence[TrialRecord]) -> str:  # noqa: ARG002 - the protocol
        """Return nothing."""
        return ""

    def ended(self, record: TrialRecord) -> None:
        """Take no note."""


@dataclass(frozen=True)
class Terms:
    """What trials are compared by.

    Attributes:
        metric: Name of the job's metric.
        objectives: What is optimized.
        constraints: What a point must meet.
    """

    metric: str
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]


class Thrift:
    """Stops trials at the gate before training, and at the rungs of successive halving.

    Args:
        terms: What trials are compared by.
        halving: The rungs; None for none.
        earlier: Trials that ended before, from which the rungs are built again.
        hope: What a recipe scores at best, by what is predicted; None while that is not known.
    """

    def __init__(
        self, terms: Terms, halving: Halving | None, earlier: Sequence[TrialRecord], hope: Hope | None = None
    ) -> None:
        self._hope = hope
        self._terms = terms
        self._gate = Gate(terms.metric, terms.objectives, terms.constraints)
        self._halving = halving
        self._begun = False
        self._begin(earlier)

    def verdict(self, candidate: Candidate, records: Sequence[TrialRecord]) -> str:
        """Return why a trial under way shall stop, or nothing when it goes on."""
        if candidate.asked.kind != SEARCHED or candidate.preview is None:
            return ""
        if not candidate.epochs:
            return self._before_training(candidate, candidate.preview, records)
        if self._halving is None or not baseline_metrics(records):
            return ""
        self._begin(records)
        number, epochs = candidate.asked.number, candidate.epochs
        # Those that it had before the baseline was done are not in the rungs yet.
        self._enter(number, epochs[:-1], candidate.preview, records)
        entry = self._entry(number, epochs, candidate.preview, records)
        found = self._halving.judge(entry)
        if found.goes_on:
            return ""
        return (
            f"stopped after epoch {entry.epoch}: place {found.place} of {found.of} trials at that epoch, of which the best "
            f"{found.quota} go on"
        )

    def _before_training(self, candidate: Candidate, preview: Preview, records: Sequence[TrialRecord]) -> str:
        why = self._gate.why_hopeless(preview, records)
        if why or self._hope is None:
            return why
        hope = self._hope(records, candidate.asked.recipe)
        return "" if hope is None else self._gate.why_hopeless(preview, records, hope)

    def ended(self, record: TrialRecord) -> None:
        """Take a trial that failed out of the rungs."""
        if record.state == "failed" and self._halving is not None:
            self._halving.forget(record.number)

    def _begin(self, records: Sequence[TrialRecord]) -> None:
        """Build the rungs from trials that ended, once; without the baseline no bound relative to it is known."""
        if self._begun or not baseline_metrics(records):
            return
        self._begun = True
        for record in records:
            if record.preview is not None and record.state != "failed" and record.kind == SEARCHED:
                self._enter(record.number, record.epochs, record.preview, records)

    def _enter(self, number: int, epochs: Sequence[Epoch], preview: Preview, records: Sequence[TrialRecord]) -> None:
        if self._halving is not None:
            for count in range(1, len(epochs) + 1):
                self._halving.record(self._entry(number, epochs[:count], preview, records))

    def _entry(
        self, number: int, epochs: Sequence[Epoch], preview: Preview, records: Sequence[TrialRecord]
    ) -> RungEntry:
        metric, base = self._terms.metric, baseline_metrics(records)
        score = epochs[-1].score
        # A score that is no number is worst: halving takes care of it.
        known = {**preview.metrics, metric: math.nan if score is None else score}
        values = tuple(o.box(known[o.name]) for o in self._terms.objectives if o.name in known)
        broken = [c.excess(known, base) for c in hard(self._terms.constraints) if c.metric in preview.metrics]
        return RungEntry(number, len(epochs), values, sum(max(0.0, excess) for excess in broken))
