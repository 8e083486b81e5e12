from __future__ import annotations

import time

from paretrim.errors import ParetrimError
from paretrim.search.backlog import Backlog
from paretrim.search.monitor import Silence
from paretrim.tracking.records import TrialRecord
from paretrim.tracking.testing import sample_record
from paretrim.tracking.tracker import MemoryTracker


class Slow(MemoryTracker):
    """Takes its time, and is away now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False

    def log_trial(self, record: TrialRecord) -> None:
        if self.away:
            raise ParetrimError("nobody there")
        time.sleep(0.05)
        super().log_trial(record)


class Ears(Silence):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def say(self, text: str) -> None:
        self.heard.append(text)


def test_logging_holds_nobody_up_and_flush_waits_for_it() -> None:
    tracker = Slow()
    backlog = Backlog(tracker, Silence(), [sample_record(0)])
    since = time.monotonic()
    for number in range(1, 8):
        backlog.log(sample_record(number))
    assert time.monotonic() - since < 0.2
    backlog.flush()
    assert list(tracker.trials) == list(range(8))


def test_what_could_not_be_logged_is_logged_later_and_told_of_once() -> None:
    tracker, ears = Slow(), Ears()
    backlog = Backlog(tracker, ears)
    tracker.away = True
    for number in range(3):
        backlog.log(sample_record(number))
        backlog.flush()
    assert ears.heard == ["nobody there; it is kept in the study and logged later"]
    tracker.away = False
    backlog.log(sample_record(3))
    backlog.flush()
    assert list(tracker.trials) == [0, 1, 2, 3]
