"""A store that cannot be written, above all for want of space: told from faults of trials, so that a search ends in order."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import gettempdir

from paretrim.errors import StoreError, UsageError

# A disk that has not even this much is full for any trial.
_LEAST_BYTES = 1 << 20
_LEAST_S, _PATIENCE_S, _POLL_S = 10.0, 60.0, 1.0
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# As the system, SQLite and the libraries that wrap them say it.
_WORDS = (
    "No space left on device",
    "Disk quota exceeded",
    "File too large",
    "disk is full",
    "disk I/O error",
    "unable to open database file",
    "attempt to write a readonly database",
    "No usable temporary directory",
)


def why_unwritten(error: BaseException) -> str:
    """Return what could not be written where that is behind an error, or nothing."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _FULL:
            return f"{seen.strerror}{f': {seen.filename}' if seen.filename else ''}"
        words = why_in(str(seen))
        if words:
            return words
        seen = seen.__cause__ or seen.__context__
    return ""


def why_in(text: str) -> str:
    """Return the line of a text that says that something could not be written, or nothing."""
    return next((line.strip() for line in text.splitlines() if any(words in line for words in _WORDS)), "")


def why_full(folder: Path) -> str:
    """Return why nothing can be written into a folder, or nothing when it can."""
    probe = folder / f"room-{os.getpid()}"
    try:
        probe.write_bytes(bytes(_LEAST_BYTES))
    except OSError as error:
        return why_unwritten(error)
    finally:
        with suppress(OSError):
            probe.unlink()
    return ""


def await_room() -> None:
    """Wait until there is room for temporary files, for a minute at most.

    At once, a machine of a cluster that cannot work would only be given the next trial, and the next.
    """
    deadline = time.monotonic() + _PATIENCE_S
    time.sleep(_LEAST_S)
    while _without_room() and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def _without_room() -> bool:
    try:
        return bool(why_full(Path(gettempdir())))
    except FileNotFoundError:  # none of the usual folders can be written
        return True


@contextmanager
def writable(root: Path, then: str) -> Iterator[None]:
    """Say what to do where a store cannot be written.

    Args:
        root: The store.
        then: What the user does when there is room again.

    Raises:
        StoreError: It cannot be written.
    """
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        # What stumbles over a file that was cut short does not say so.
        why = why_unwritten(error) or ("" if isinstance(error, UsageError) else why_full(root))
        if not why:
            raise
        raise unwritable(root, why, then) from error


def unwritable(root: Path, why: str, then: str) -> StoreError:
    """Return the error that says why a store cannot be written, and what to do."""
    return StoreError(
        f"the store {root} cannot be written: {why}\nall trials that ended are kept; make room on its disk (and on that of "
        f"temporary files), then {then}"
    )
