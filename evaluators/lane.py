"""The measuring lane: one measurement at a time on a machine, and no training of ours beside it.

Training enters `working` for each batch; a measurement enters `measuring`, waits for the batches under way, and keeps
new ones out until it is done. The locks are the operating system's, so that a killed process frees its own.

Each GPU has a lane as well: training enters those of the GPUs that it computes on, and a measurement on a GPU takes that
GPU's beside the machine's. All take the machine's first and then the GPUs' by name, so that no two wait for each other.
"""

from __future__ import annotations

import copy
import fcntl
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from tempfile import gettempdir

_PATIENCE_S = 60.0
_POLL_S = 0.002
_MACHINE = ""


class Lane:
    """The lane of one machine, shared by all jobs of a user.

    Args:
        folder: Where the two lock files lie; the default is the same for all processes of a user.
        patience_s: How long a measurement waits for work under way before it goes ahead in a crowd.
        waiting: Entered while something waits here, so that a time limit does not count it.
        yielding: Whether work makes room for measurements; not where they have cores of their own.
        gpus: Names of the GPUs that work here is done on, the same in all processes of the machine.
    """

    def __init__(
        self,
        folder: Path | None = None,
        patience_s: float = _PATIENCE_S,
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
        *,
        yielding: bool = True,
        gpus: Sequence[str] = (),
    ) -> None:
        self._folder = folder or Path(gettempdir()) / f"paretrim-{os.getuid()}"
        self._worked_on = tuple(sorted(f"gpu-{name}-" for name in gpus))
        self._measured: tuple[str, ...] = ()
        self._patience_s = patience_s
        self._waiting = waiting
        self._yielding = yielding
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def measuring_on(self, gpus: Sequence[str]) -> Lane:
        """Return this lane for measurements on some GPUs, which are then taken too."""
        lane = copy.copy(self)
        lane._measured = tuple(sorted(f"gpu-{name}-" for name in gpus))
        return lane

    @contextmanager
    def working(self, *, on_measuring_cores: bool = False) -> Iterator[None]:
        """Work; waits while a measurement is under way or waiting.

        Args:
            on_measuring_cores: Whether this work has no cores of its own, even where other work has.
        """
        machine = (_MACHINE,) if self._yielding or on_measuring_cores else ()
        with ExitStack() as held:
            for name in (*machine, *self._worked_on):
                held.enter_context(self._shared(name))
            yield

    @contextmanager
    def measuring(self) -> Iterator[bool]:
        """Measure alone; yields False when work would not make room, so that the numbers can be flagged."""
        deadline = time.monotonic() + self._patience_s
        with ExitStack() as held:
            # All of them, also when the first does not make room: the others may.
            alone = [held.enter_context(self._alone(name, deadline)) for name in (_MACHINE, *self._measured)]
            yield all(alone)

    @contextmanager
    def _shared(self, name: str) -> Iterator[None]:
        # The gate lets a waiting measurement in before the next batch; without it, training would starve it.
        with self._open(f"{name}gate") as gate, self._open(f"{name}room") as room:
            self._lock(gate, fcntl.LOCK_SH)
            self._lock(room, fcntl.LOCK_SH)
            fcntl.flock(gate, fcntl.LOCK_UN)
            yield

    @contextmanager
    def _alone(self, name: str, deadline: float) -> Iterator[bool]:
        with self._open(f"{name}gate") as gate, self._open(f"{name}room") as room:
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
