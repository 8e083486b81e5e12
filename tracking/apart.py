"""MLflow in a process of its own: what it does for a trial takes no time of the interpreter that runs the search."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from paretrim.evaluators.child import command, ending
from paretrim.tracking.records import TrialRecord
from paretrim.tracking.tracker import Summary, TrackingError
from paretrim.tracking.view import View

_ENDING_S = 5.0


class ApartTracker:
    """A search in MLflow, written by another process. Safe to use from several threads.

    That process starts at once and imports MLflow meanwhile; `ready` waits for it. When it dies, what was asked for fails,
    and the next request starts another one.

    Args:
        uri: Tracking URI.
        name: Name of the search: the experiment's name.
        artifacts: Folder for files, for a database without a server of its own; None leaves it to the server.
        view: What the ready-made charts show; None leaves MLflow's own.
    """

    def __init__(self, uri: str, name: str, artifacts: Path | None, view: View | None = None) -> None:
        self._uri = uri
        self._opening: dict[str, Any] = {"uri": uri, "name": name, "artifacts": artifacts, "view": view}
        self._asking = threading.Lock()
        self._opened = False
        self._process, self._end = _started()

    def ready(self) -> None:
        """Wait until trials can be logged.

        Raises:
            TrackingError: The server or database cannot be reached.
        """
        with self._asking:
            self._open()

    def logged(self) -> set[int]:
        """Return the numbers of the trials that are wholly logged; delete runs that were left unfinished.

        Raises:
            TrackingError: The server or database cannot be reached.
        """
        found: set[int] = self._ask("logged")
        return found

    def log_trial(self, record: TrialRecord) -> None:
        """Log a trial that ended.

        Raises:
            TrackingError: The server or database cannot be reached.
        """
        self._ask("log_trial", record=record)

    def log_summary(self, summary: Summary) -> None:
        """Log the search as a whole, in the place of an earlier summary.

        Raises:
            TrackingError: The server or database cannot be reached.
        """
        self._ask("log_summary", summary=summary)

    def close(self) -> None:
        """End the process."""
        self._over()

    def _ask(self, what: str, **values: Any) -> Any:
        with self._asking:
            self._open()
            return self._told(what, values)

    def _open(self) -> None:
        if self._opened:
            return
        if self._process.poll() is not None:  # the one before died, and nobody knows how much it had written
            self._process, self._end = _started()
            self._opening["unsure"] = True
        self._told("open", self._opening)
        self._opened = True

    def _told(self, what: str, values: dict[str, Any]) -> Any:
        answered = False
        try:
            self._end.send((what, values))
            well, found = self._end.recv()
            answered = True
        except (EOFError, OSError):
            raise TrackingError(f"the process that logs at {self._uri} {ending(self._over())}") from None
        finally:
            if not answered:  # an answer that nobody waited for would be taken for that to the next request
                self._over()
        if not well:
            raise TrackingError(found)
        return found

    def _over(self) -> int:
        """Let the process end, and return its exit code."""
        self._opened = False
        self._end.close()
        try:
            return self._process.wait(_ENDING_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


@contextlib.contextmanager
def apart(uri: str, name: str, artifacts: Path | None, view: View | None = None) -> Iterator[ApartTracker]:
    """Yield a tracker, and end its process."""
    tracker = ApartTracker(uri, name, artifacts, view)
    try:
        yield tracker
    finally:
        tracker.close()


def _started() -> tuple[subprocess.Popen[bytes], Connection]:
    ours, theirs = socket.socketpair()
    with theirs:
        # In a session of its own, so that Ctrl-C ends the search in order, with all that it has logged.
        process = subprocess.Popen(
            [*command("paretrim.tracking.clerk"), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    return process, Connection(ours.detach())
