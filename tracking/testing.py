"""For authors of trackers: the contract that every tracker keeps, as tests, and sample trials to log.

Nothing here needs pytest, but it is made for it: pytest runs the methods of a subclass whose name begins with ``Test``,
and hands each a fresh folder as ``tmp_path``::

    class TestMyTracker(TrackerContract):
        def open_tracker(self, store):
            return MyTracker(store / "mine.db")

        def kept_trials(self, store):
            return [row.number for row in read_rows(store / "mine.db")]

        def kept_summaries(self, store):
            return len(read_summaries(store / "mine.db"))
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from paretrim.evaluators.measurement import Measurement
from paretrim.tracking.constraints import Constraint
from paretrim.tracking.front import Objective, baseline_metrics, feasible
from paretrim.tracking.records import BASELINE, Epoch, State, TrialRecord, Value
from paretrim.tracking.report import build
from paretrim.tracking.tracker import Summary, Tracker

OBJECTIVES = (
    Objective("accuracy", maximize=True),
    Objective("latency_ms", noise=0.03),
    Objective("size_bytes"),
    Objective("memory_bytes", noise=0.05),
)
_ANCHORS = (BASELINE, "float16", "int8")
_METRICS = {"accuracy": 0.9, "latency_ms": 1.0, "size_bytes": 100_000.0, "memory_bytes": 2_000_000.0}
_RECIPE: Mapping[str, Value] = {"pruning.ratio.stem": 0.25, "quantization.bits.head": "none", "recovery.epochs": 4}


def sample_record(
    number: int,
    metrics: Mapping[str, float] | None = None,
    *,
    kind: str = "",
    state: State = "complete",
    cause: str = "",
    recipe: Mapping[str, Value] = _RECIPE,
    **more: float,
) -> TrialRecord:
    """Return a record such as a search writes.

    Args:
        number: Of the trial; 0 is the baseline, 1 and 2 the other anchors.
        metrics: Measurements by name, added to the usual ones or in their place.
        kind: By default that of the number.
        state: How it ended; only a complete trial has measurements.
        cause: Why it failed or was stopped.
        recipe: Its values by dimension name.
        more: More measurements, as keywords.
    """
    values = {**_METRICS, **(metrics or {}), **more} if state == "complete" else {}
    return TrialRecord(
        number=number,
        kind=kind or (_ANCHORS[number] if number < len(_ANCHORS) else "search"),
        state=state,
        recipe=recipe,
        seed=number,
        measurements=tuple(_measurement(name, value) for name, value in values.items()),
        sha256=_hash(f"packed {number}") if values else "",
        model_sha256=_hash(f"model {number}") if values else "",
        seconds={"recover": 1.5, "lower": 0.5},
        epochs=(Epoch(0.7, 0.8), Epoch(0.5, 0.9)),
        cause=cause,
    )


def sample_summary(
    records: Sequence[TrialRecord], *, job: str = "sample-1", constraints: Sequence[Constraint] = ()
) -> Summary:
    """Return the summary of a search that made these trials.

    Raises:
        ValueError: The complete baseline is not among the records.
    """
    report = build(job, "accuracy", records, OBJECTIVES, constraints, {})
    if report is None:
        raise ValueError("a summary needs the baseline among its records")
    base = baseline_metrics(records)
    meets = frozenset(r.number for r in records if r.complete and feasible(r.metrics, constraints, base))
    figures = {"hypervolume": 0.25, "trials": float(len(records))}
    return Summary(report, records, meets, figures, {"job": job, "state": "finished"})


class TrackerContract(ABC):
    """What a search relies on. A subclass says how to open its tracker, and how to look at what it kept."""

    @abstractmethod
    def open_tracker(self, store: Path) -> Tracker:
        """Return a tracker; called twice with one folder, the second must find what the first one kept."""

    @abstractmethod
    def kept_trials(self, store: Path) -> Sequence[int]:
        """Return the number of every entry of a trial, a number twice where a trial is there twice."""

    @abstractmethod
    def kept_summaries(self, store: Path) -> int:
        """Return how many summaries are there."""

    def test_a_new_search_has_nothing_logged(self, tmp_path: Path) -> None:
        """The first question about a new search is answered with nothing."""
        _equal(self.open_tracker(tmp_path).logged(), set(), "numbers logged in a new search")

    def test_a_logged_trial_is_in_logged(self, tmp_path: Path) -> None:
        """What was logged is known at once."""
        tracker = self.open_tracker(tmp_path)
        tracker.log_trial(sample_record(0))
        _equal(tracker.logged(), {0}, "numbers logged")

    def test_logged_trials_are_found_after_reopening(self, tmp_path: Path) -> None:
        """What was logged outlives the tracker that logged it."""
        self._log(tmp_path, 0, 1)
        _equal(self.open_tracker(tmp_path).logged(), {0, 1}, "numbers logged after reopening")

    def test_a_search_that_goes_on_logs_nothing_twice(self, tmp_path: Path) -> None:
        """A caller that leaves out what is in `logged` finds each trial once."""
        self._log(tmp_path, 0, 1)
        tracker = self.open_tracker(tmp_path)
        done = tracker.logged()
        for number in (n for n in (0, 1, 2, 3) if n not in done):
            tracker.log_trial(sample_record(number))
        _equal(sorted(self.kept_trials(tmp_path)), [0, 1, 2, 3], "entries of trials")

    def test_a_trial_logged_twice_is_kept_once(self, tmp_path: Path) -> None:
        """Two entries of a trial, after a retry for one, are one after the next question for what is logged."""
        self._log(tmp_path, 0, 1, 1)
        _equal(self.open_tracker(tmp_path).logged(), {0, 1}, "numbers logged")
        _equal(sorted(self.kept_trials(tmp_path)), [0, 1], "entries of trials")

    def test_failed_and_stopped_trials_are_kept_too(self, tmp_path: Path) -> None:
        """A trial without measurements is a trial."""
        tracker = self.open_tracker(tmp_path)
        tracker.log_trial(sample_record(3, state="failed", cause="the training loss is nan"))
        tracker.log_trial(sample_record(4, state="stopped", cause="took too long"))
        _equal(self.open_tracker(tmp_path).logged(), {3, 4}, "numbers logged")
        _equal(sorted(self.kept_trials(tmp_path)), [3, 4], "entries of trials")

    def test_a_second_summary_takes_the_place_of_the_first(self, tmp_path: Path) -> None:
        """A search that goes on is summarized again."""
        records = self._log(tmp_path, 0, 1)
        self.open_tracker(tmp_path).log_summary(sample_summary(records[:1]))
        self.open_tracker(tmp_path).log_summary(sample_summary(records))
        _equal(self.kept_summaries(tmp_path), 1, "summaries")

    def test_a_summary_is_not_a_trial(self, tmp_path: Path) -> None:
        """A summary changes nothing in what is logged."""
        records = self._log(tmp_path, 0, 1)
        tracker = self.open_tracker(tmp_path)
        tracker.log_summary(sample_summary(records))
        _equal(tracker.logged(), {0, 1}, "numbers logged beside a summary")
        _equal(sorted(self.kept_trials(tmp_path)), [0, 1], "entries of trials beside a summary")

    def _log(self, store: Path, *numbers: int) -> list[TrialRecord]:
        records = [sample_record(number) for number in numbers]
        tracker = self.open_tracker(store)
        for record in records:
            tracker.log_trial(record)
        return records


def _measurement(name: str, value: float) -> Measurement:
    return Measurement(name, value, value * 0.98, value * 1.02, "made up")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _equal(found: object, wanted: object, what: str) -> None:
    # Not an assert statement: pytest explains those only in the modules of tests.
    if found != wanted:
        raise AssertionError(f"{what}: {found!r}, but {wanted!r} was expected")
