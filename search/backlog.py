"""Logging trials as they end, beside the search: a tracker takes tens of milliseconds, and one that is away much longer."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable

from paretrim.errors import ParetrimError
from paretrim.search.monitor import Monitor
from paretrim.tracking.records import TrialRecord
from paretrim.tracking.tracker import Tracker


class Backlog:
    """Logs trials in the order in which they end, in a thread of its own, and again later what could not be logged.

    What waits when the process dies is in the study, and logged when the search goes on.

    Args:
        tracker: Where to log.
        monitor: Told when that fails.
        waiting: Trials that are not logged yet.
    """

    def __init__(self, tracker: Tracker, monitor: Monitor, waiting: Iterable[TrialRecord] = ()) -> None:
        self._tracker, self._monitor = tracker, monitor
        self._waiting = deque(waiting)
        self._writing, self._changing = threading.Lock(), threading.Lock()
        self._thread: threading.Thread | None = None
        self._told = False

    def log(self, record: TrialRecord) -> None:
        """Log a trial, and all that wait, soon."""
        with self._changing:
            self._waiting.append(record)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="paretrim-backlog", daemon=True)
                self._thread.start()

    def flush(self) -> None:
        """Log what waits, until the first failure, and return when that is done."""
        with self._writing:
            while self._log_next():
                pass

    def _work(self) -> None:
        while True:
            with self._writing:
                logged = self._log_next()
            with self._changing:
                if not logged or not self._waiting:
                    self._thread = None
                    return

    def _log_next(self) -> bool:
        """Log the first that waits; a server that is away costs nothing but a line."""
        if not self._waiting:
            return False
        try:
            self._tracker.log_trial(self._waiting[0])
        except ParetrimError as error:
            if not self._told:
                self._monitor.say(f"{error}; it is kept in the study and logged later")
            self._told = True
            return False
        self._waiting.popleft()
        self._told = False
        return True
