"""The store: the folder in which the studies, the tracking database and the artifacts of searches lie."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from paretrim.errors import UnknownJobError, UsageError, nearest

ENVIRONMENT = "PARETRIM_STORE"
DEFAULT = "paretrim-runs"


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

    def running(self) -> bool:
        """Tell whether a process drives the search."""
        with (self.path / "driver.lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    @contextmanager
    def driven(self) -> Iterator[None]:
        """Hold the search: one process drives it at a time.

        Raises:
            UsageError: Another process drives it.
        """
        with (self.path / "driver.lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(
                    f"{self.name} is running in another process; wait for it, or stop it with Ctrl-C there"
                ) from None
            yield


class Store:
    """A store at a folder.

    Args:
        root: The folder; by default that of the environment variable ``PARETRIM_STORE``, or ``paretrim-runs`` here.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = (root or Path(os.environ.get(ENVIRONMENT) or DEFAULT)).resolve()

    @property
    def study_url(self) -> str:
        """Database of the studies."""
        return f"sqlite:///{self.root / 'study.db'}"

    @property
    def tracking_uri(self) -> str:
        """Default tracking database."""
        return f"sqlite:///{self.root / 'mlflow.db'}"

    @property
    def tracking_artifacts(self) -> Path:
        """Folder of the default tracking database's files."""
        return self.root / "mlartifacts"

    def create(self, name: str) -> JobFolder:
        """Make the folder of a new search, numbered after the earlier ones of that name.

        Raises:
            UsageError: The store cannot be written.
        """
        jobs = self.root / "jobs"
        try:
            jobs.mkdir(parents=True, exist_ok=True)
            number = 1
            while True:
                path = jobs / f"{name}-{number}"
                try:
                    path.mkdir()
                except FileExistsError:
                    number += 1
                else:
                    break
        except OSError as error:
            raise UsageError(
                f"cannot write the store {self.root}: {error.strerror}; name another folder with --store or {ENVIRONMENT}"
            ) from error
        return JobFolder(path.name, path)

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

    def names(self) -> list[str]:
        """Return the names of the searches in the order in which they were started."""
        folders = [path for path in (self.root / "jobs").glob("*") if (path / "started").exists()]
        return [path.name for path in sorted(folders, key=lambda path: (path / "started").stat().st_mtime_ns)]

    def mark_started(self, folder: JobFolder) -> None:
        """Note that a search's study exists from now on."""
        (folder.path / "started").touch()
