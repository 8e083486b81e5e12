"""A cache on disk: what several trials, workers and jobs have in common is made once."""

from __future__ import annotations

import fcntl
import hashlib
import os
import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

LIMIT_BYTES = 2 << 30
_SUFFIX = ".kept"
_DIGEST = 32


def key(*parts: str) -> str:
    """Return the name under which something is kept that depends on all these."""
    # Names of files may hold bytes that are no text (PEP 383): they have a hash too.
    return hashlib.sha256("\0".join(parts).encode(errors="surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Cache:
    """Files by the hash of all that goes into them; the ones used longest ago go first when it is full.

    A file appears whole or not at all, also when a process is killed, so that any number of processes may share a folder.
    Each begins with the hash of its content: one that was cut or changed is as good as none. Nothing depends on it: what
    cannot be kept, for want of space or rights, is made again.

    Attributes:
        root: The folder.
        limit_bytes: Most bytes of all files.
    """

    root: Path
    limit_bytes: int = LIMIT_BYTES

    def get(self, name: str) -> bytes | None:
        """Return what is kept under a name, or None."""
        path = self._path(name)
        try:
            kept = path.read_bytes()
        except OSError:
            return None
        digest, data = kept[:_DIGEST], kept[_DIGEST:]
        if hashlib.sha256(data).digest() != digest:
            return None
        with suppress(OSError):  # a folder that may only be read is of use too
            os.utime(path)  # it was used just now
        return data

    def put(self, name: str, data: bytes) -> None:
        """Keep something; in the place of what was kept under that name."""
        if len(data) + _DIGEST > self.limit_bytes:
            return
        path = self._path(name)
        # No number of a process: several machines may share the folder.
        partial = path.with_suffix(f".{uuid.uuid4().hex}.partial")
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(hashlib.sha256(data).digest() + data)
            partial.replace(path)
            self._shrink()
        except OSError:
            with suppress(OSError):
                partial.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self.root / f"{name}{_SUFFIX}"

    def _shrink(self) -> None:
        """Delete what was used longest ago until the rest fits; one process at a time."""
        with (self.root / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            files = sorted(_stated(self.root.iterdir()), reverse=True)
            total = 0
            for _, size, path in files:
                total += size
                if total > self.limit_bytes:
                    path.unlink(missing_ok=True)


def _stated(paths: Iterable[Path]) -> Iterable[tuple[int, int, Path]]:
    for path in paths:
        if path.suffix in (_SUFFIX, ".partial"):
            with suppress(FileNotFoundError):  # another process has just deleted or renamed it
                found = path.stat()
                yield found.st_mtime_ns, found.st_size, path
