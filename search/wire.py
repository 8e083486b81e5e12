"""What a trial's process and its training workers say to each other, and the sockets that carry it.

The sockets lie in a folder that only the user may enter. They also tell each side at once that the other one died.
"""

from __future__ import annotations

import pickle
import socket
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from paretrim.spaces.snapshot import Snapshot


@dataclass(frozen=True)
class Learn:
    """To all workers: train this lesson, as `paretrim.search.parcel` packs it."""

    parcel: bytes


@dataclass(frozen=True)
class GoOn:
    """To all workers, after an epoch: train the next one, or drop the lesson."""

    on: bool


@dataclass(frozen=True)
class Leave:
    """To all workers, between two lessons: there will be no more."""


@dataclass(frozen=True)
class Hello:
    """From each worker, first."""

    rank: int


@dataclass(frozen=True)
class Trained:
    """From the first worker, after each epoch."""

    loss: float
    state: Snapshot


@dataclass(frozen=True)
class Yielding:
    """From the first worker: it waits for a measurement, or does so no more."""

    begins: bool


@dataclass(frozen=True)
class Over:
    """From each worker: the lesson has ended, or was dropped."""


@dataclass(frozen=True)
class Failed:
    """From a worker: the lesson has ended by an error.

    Attributes:
        cause: The message of an error of ours; else a traceback.
        known: Whether it is one of ours.
        lost: Whether it is one of which the recipe is innocent.
    """

    cause: str
    known: bool
    lost: bool = False


class Wire:
    """One end of a connection.

    Args:
        end: A connected socket, which is taken over.
    """

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(True)
        self.connection = Connection(end.detach())

    def send(self, message: Any) -> None:
        """Send a message.

        Raises:
            OSError: The other side is gone.
        """
        self.connection.send_bytes(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))

    def receive(self) -> Any:
        """Return the next message.

        Raises:
            EOFError: The other side is gone.
            OSError: It went while it wrote.
        """
        return pickle.loads(self.connection.recv_bytes())  # noqa: S301 - from a process of this user's own

    def close(self) -> None:
        """Hang up."""
        self.connection.close()


def connect(path: Path) -> Wire:
    """Return a connection to whoever listens at a path."""
    end = socket.socket(socket.AF_UNIX)
    end.connect(str(path))
    return Wire(end)
