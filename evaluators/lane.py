"""The measuring lane: one measurement at a time on a machine, and no training of ours beside it.

Training enters `working` for each batch; a measurement enters `measuring`, waits for the batches under way, and keeps
new ones out until it is done. The locks are the operating system's, so that a killed process frees its own.
"""

from __future__ import annotations

import fcntl
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from tempfile import gettempdir

_PATIENCE_S = 60.0
_POLL_S = 0.002


class Lane:
    """The lane of one machine, shared by all jobs of a user.

    Args:
        folder: Where the two lock files lie; the default is the same for all processes of a user.
        patience_s: How long a measurement waits for work under way before it goes ahead in a crowd.
        waiting: Entered while something waits here, so that a time limit does not count it.
        yielding: Whether work makes room for measurements; not where they have cores of their own.
    """

    def __init__(
        self,
        folder: Path | None = None,
        patience_s: float = _PATIENCE_S,
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
        *,
        yielding: bool = True,
    ) -> None:
        self._folder = folder or Path(gettempdir()) / f"paretrim-{os.getuid()}"
        self._patience_s = patience_s
        self._waiting = waiting
        self._yielding = yielding
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextmanager
    def working(self, *, on_measuring_cores: bool = False) -> Iterator[None]:
        """Work; waits while a measurement is under way or waiting.

        Args:
            on_measuring_cores: Whether this work has no cores of its own, even where other work has.
        """
        if not self._yielding and not on_measuring_cores:
            yield
            return
        # The gate lets a waiting measurement in before the next batch; without it, training would starve it.
        with self._open("gate") as gate, self._open("room") as room:
            self._lock(gate, fcntl.LOCK_SH)
            self._lock(room, fcntl.LOCK_SH)
            fcntl.flock(gate, fcntl.LOCK_UN)
            yield

    @contextmanager
    def measuring(self) -> Iterator[bool]:
        """Measure alone; yields False when work would not make room, so that the numbers can be flagged."""
        with self._open("gate") as gate, self._open("room") as room:
            deadline = time.monotonic() + self._patience_s
            yield self._lock(gate, fcntl.LOCK_EX, deadline) and self._lock(room, fcntl.LOCK_EX, deadline)

    def _lock(self, descriptor: int, kind: int, deadline: float = math.inf) -> bool:
        if _try(descriptor, kind):
            return True
        with self._waiting():
            while time.monotonic() < deadline:
                if _try(descriptor, kind):
                    return True
                time.sleep(_POLL_S)
        return False

    @contextmanager
    def _open(self, name: str) -> Iterator[int]:
        descriptor = os.open(self._folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _try(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
