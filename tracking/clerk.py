"""The process in which a search is logged to MLflow; see `paretrim.tracking.apart`.

It hears requests on a socket whose number is its only argument, and answers each with what came of it or with the message
of an error. It ends when nobody is at the other end any more, in the middle of a request if need be: whoever asked is dead
then, and a search that goes on must not find it still writing.
"""

from __future__ import annotations

import os
import sys
import threading
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from paretrim.tracking.mlflow_tracker import MlflowTracker
from paretrim.tracking.tracker import TrackingError


def main() -> None:
    """Open the tracker that the first request names, and do what the others ask for."""
    os.dup2(2, 1)  # what MLflow prints is no output of the search
    end = Connection(int(sys.argv[1]))
    requests: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_hear, args=(end, requests), daemon=True).start()
    tracker: MlflowTracker | None = None
    while True:
        name, values = requests.get()
        try:
            if tracker is None:
                tracker, found = MlflowTracker(**values), None
            else:
                found = getattr(tracker, name)(**values)
            end.send((True, found))
        except TrackingError as error:
            end.send((False, str(error)))


def _hear(end: Connection, requests: SimpleQueue[Any]) -> None:
    try:
        while True:
            requests.put(end.recv())
    except (EOFError, OSError):
        os._exit(0)


if __name__ == "__main__":
    main()
