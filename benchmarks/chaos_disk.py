"""A disk for one store that can be filled up, and has room again at the end."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SIZE_MB = 96
_BLOCK = bytes(1 << 16)


class Disk:
    """Where a store lies.

    Attributes:
        folder: The folder.
        how: How it is filled up.
        mounted: Whether it is a file system of its own.
    """

    def __init__(self, folder: Path, how: str, *, mounted: bool) -> None:
        self.folder, self.how, self.mounted = folder, how, mounted

    @contextmanager
    def full(self, pids: list[int]) -> Iterator[None]:
        """Have no room for a while.

        Args:
            pids: The driver and its workers, whose files are limited where the disk cannot be.
        """
        if not self.mounted:
            for pid in pids:
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
            yield
            return
        ballast = self.folder / "ballast"
        try:
            _fill(ballast)
            yield
        finally:
            ballast.unlink(missing_ok=True)


@contextmanager
def small_disk(folder: Path) -> Iterator[Disk]:
    """Mount a small file system in memory, where that is allowed; else an ordinary folder, whose writers are limited."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE_MB}m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        why = done.stderr.strip() or f"mount ended with code {done.returncode}"
        yield Disk(folder, f"files of the driver are limited to 0 bytes ({why})", mounted=False)
        return
    try:
        yield Disk(folder, f"a file system of {_SIZE_MB} MB in memory is filled up", mounted=True)
    finally:
        # Lazily: whatever still has a file open there does not keep the mount.
        subprocess.run(["umount", "-l", str(folder)], check=False)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(_BLOCK):
                pass
        except OSError:
            pass
        # What is left of a page.
        try:
            while file.write(b"\0"):
                pass
        except OSError:
            pass
