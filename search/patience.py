"""Waiting for a database server that is away for a while: what was asked of it is asked again."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from sqlalchemy.exc import DBAPIError

from paretrim.errors import StoreError

P = ParamSpec("P")
T = TypeVar("T")

_PATIENCE_S, _FIRST_S, _LONGEST_S = 300.0, 0.2, 5.0
# What a driver says of a server that is not there; of its errors only some say so by their kind.
_WORDS = (
    "connection refused", "connection is bad", "connection failed", "server closed the connection", "connection is lost",
    "connection timeout", "could not connect", "the connection is closed",
    "consuming input failed", "connection timed out",
)  # fmt: skip
_COMING_OR_GOING = ("starting up", "shutting down", "terminating connection", "recovery mode")


def patient(method: Callable[P, T]) -> Callable[P, T]:
    """Let a method that asks a database server wait for one that is away, for five minutes.

    What it asked for may have been done when the connection broke, so that it must not matter whether it is done twice.

    Raises:
        StoreError: It is away for longer.
    """

    @wraps(method)
    def asking(*arguments: P.args, **named: P.kwargs) -> T:
        since, pause_s = time.monotonic(), _FIRST_S
        while True:
            try:
                return method(*arguments, **named)
            except Exception as error:
                if not lost(error):
                    raise
                if time.monotonic() - since > _PATIENCE_S:
                    raise StoreError(
                        f"the studies' database is away for {_PATIENCE_S / 60:.0f} minutes: {brief(error)}; nothing that was "
                        "written is lost; go on with `paretrim resume` when it is back"
                    ) from error
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_S)

    return asking


def lost(error: BaseException) -> bool:
    """Tell whether an error says that the server is away, and not that it refuses what was asked."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, DBAPIError):
            return seen.connection_invalidated or _away(str(seen))
        seen = seen.__cause__ or seen.__context__
    return False


def _away(told: str) -> bool:
    # What a server says itself, of a wrong password for one, is no matter of time, unless it is coming or going.
    if "FATAL:" in told:
        return any(words in told for words in _COMING_OR_GOING)
    return any(words in told.lower() for words in _WORDS)


def brief(error: BaseException) -> str:
    """Return the first line of what is behind an error."""
    seen = error
    while seen.__cause__ is not None:
        seen = seen.__cause__
    return (str(seen).strip().splitlines() or [type(seen).__name__])[0]
