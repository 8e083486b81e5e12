"""The worker processes of one run: the first ones wait a moment for the last one to have started.

Tune gives a trial that waits for its process to start to whichever process is free first, and ends the starting one.
Where trials are shorter than the start of a process, that would go on and on: no second process ever comes to be, and
starting them in vain costs more than the trials.
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

_POLL_S = 0.05


class Crew:
    """One process's place among the workers of a run.

    Args:
        folder: Where each process of the run leaves a mark.
        run: Names the run.
        workers: How many processes there are going to be.
        patience_s: How long to wait for the others.
    """

    def __init__(self, folder: Path, run: str, workers: int, patience_s: float = 30.0) -> None:
        self._folder, self._pattern, self._workers = folder, f"{run}.*.worker", workers
        self._deadline: float | None = time.monotonic() + patience_s
        (folder / f"{run}.{socket.gethostname()}-{os.getpid()}.worker").touch()

    def wait(self) -> None:
        """Wait until all have started, the first time that it is called."""
        while self._deadline is not None:
            if time.monotonic() > self._deadline or self._started() >= self._workers:
                self._deadline = None
            else:
                time.sleep(_POLL_S)

    def _started(self) -> int:
        return sum(1 for _ in self._folder.glob(self._pattern))
