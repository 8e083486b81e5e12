"""The store: the folder in which the studies, the tracking database and the artifacts of searches lie."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from paretrim.errors import UnknownJobError, UsageError, nearest
from paretrim.search.places import Places, own_places

ENVIRONMENT = "PARETRIM_STORE"
DEFAULT = "paretrim-runs"
_PATIENCE_S = 0.5


@dataclass(frozen=True)
class JobFolder:
    """What one search keeps beside its study.

    Attributes:
        name: The search's name, such as ``digits-1``.
        path: Its folder.
    """

    name: str
    path: Path

    @property
    def artifacts(self) -> Path:
        """Folder of the artifacts, named by their hashes."""
        return self.path / "artifacts"

    @property
    def cache(self) -> Path:
        """Folder of what all searches of the store share."""
        return self.path.parent.parent / "cache"

    @property
    def scratch(self) -> Path:
        """Folder of what running trials write and nobody needs later."""
        return self.path / "scratch"

    @property
    def stop(self) -> Path:
        """A file that asks whoever drives the search to end it."""
        return self.path / "stop"

    @property
    def code(self) -> Path:
        """Folder of the user's code, where the search came from another machine."""
        return self.path / "code"

    @property
    def started(self) -> Path:
        """A file that is there when the search's study is; it holds where the search's databases are."""
        return self.path / "started"

    @property
    def places(self) -> Places:
        """Where the search's databases are."""
        written = self.started.read_text(encoding="utf-8")
        # Of the store's own nothing is written, so that it can be moved.
        others = json.loads(written) if written else {}
        return Places.from_plain({**own_places(self.path.parent.parent).to_plain(), **others})

    def running(self) -> bool:
        """Tell whether a process drives the search."""
        with self._lock.open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    @contextmanager
    def driven(self) -> Iterator[None]:
        """Hold the search: one process drives it at a time.

        Raises:
            UsageError: Another process drives it; says which.
        """
        with self._lock.open("a+", encoding="utf-8") as lock:
            if not _held(lock, _PATIENCE_S):
                lock.seek(0)
                who = lock.read().strip() or "another process"
                raise UsageError(
                    f"{self.name} is driven by {who} already; wait for it, or end it with: paretrim stop {self.name}"
                )
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {socket.gethostname()}")
            lock.flush()
            yield

    @property
    def _lock(self) -> Path:
        return self.path / "driver.lock"


def _held(lock: IO[str], patience_s: float) -> bool:
    """Lock a file; whoever only looks whether it is locked holds it for a moment."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        else:
            return True


class Store:
    """A store at a folder.

    Args:
        root: The folder; by default that of the environment variable ``PARETRIM_STORE``, or ``paretrim-runs`` here.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = (root or Path(os.environ.get(ENVIRONMENT) or DEFAULT)).resolve()

    @property
    def own(self) -> Places:
        """The store's own databases, for searches that name no others."""
        return own_places(self.root)

    def create(self, name: str) -> JobFolder:
        """Make the folder of a new search, numbered after the earlier ones of that name.

        Raises:
            UsageError: The store cannot be written.
        """
        with self._writable():
            jobs = self.root / "jobs"
            jobs.mkdir(parents=True, exist_ok=True)
            number = 1
            while True:
                path = jobs / f"{name}-{number}"
                try:
                    path.mkdir()
                except FileExistsError:
                    number += 1
                else:
                    return JobFolder(path.name, path)

    def named(self, name: str) -> JobFolder:
        """Make the folder of a search whose name is decided, or take up the one that an attempt has left.

        Raises:
            UsageError: The store cannot be written.
        """
        path = self.root / "jobs" / name
        with self._writable():
            path.mkdir(parents=True, exist_ok=True)
        return JobFolder(name, path)

    @contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UsageError(
                f"cannot write the store {self.root}: {error.strerror}; name another folder with --store or {ENVIRONMENT}"
            ) from error

    def open(self, name: str | None) -> JobFolder:
        """Return the folder of a search; without a name, of the one that was started last.

        Raises:
            UnknownJobError: There is no such search, or none at all.
        """
        names = self.names()
        if not names:
            raise UnknownJobError(
                f"no search in the store {self.root}; start one with `paretrim search`, or name its store with --store"
            )
        if name is None:
            name = names[-1]
        if name not in names:
            raise UnknownJobError(
                f"no search '{name}' in the store {self.root}; there are: {', '.join(names)}{nearest(name, names)}"
            )
        return JobFolder(name, self.root / "jobs" / name)

    def has(self, name: str) -> bool:
        """Tell whether a search was started."""
        return self.job(name).started.exists()

    def job(self, name: str) -> JobFolder:
        """Return the folder that a search of a name has, or would have."""
        return JobFolder(name, self.root / "jobs" / name)

    def names(self) -> list[str]:
        """Return the names of the searches in the order in which they were started."""
        folders = [path for path in (self.root / "jobs").glob("*") if (path / "started").exists()]
        return [path.name for path in sorted(folders, key=lambda path: (path / "started").stat().st_mtime_ns)]

    def mark_started(self, folder: JobFolder, where: Places | None = None) -> None:
        """Note that a search's study exists from now on, and where; by default in the store's own database."""
        partial = folder.path / "started.partial"
        own = self.own.to_plain()
        others = {name: value for name, value in (where or self.own).to_plain().items() if value != own[name]}
        partial.write_text(json.dumps(others), encoding="utf-8")
        partial.replace(folder.started)
