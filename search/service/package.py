"""The folder of a user's code, on its way to a cluster: what goes along, and how much that may be."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pathspec import GitIgnoreSpec

from paretrim.errors import UsageError

IGNORE_FILE = ".paretrimignore"
# Nobody's model or data; .gitignore is not asked, since weights often stand there.
IGNORED = (
    ".git/", ".hg/", ".svn/", ".venv/", "venv/", "node_modules/", "__pycache__/", "*.pyc", "*.egg-info/", ".*_cache/",
    ".idea/", ".vscode/", "paretrim-runs/", "mlruns/", "mlartifacts/", "mlflow.db", ".env", ".env.*",
    ".gitignore", ".rayignore",
)  # fmt: skip
# Ray's job server takes no more than 100 MB at a time.
LIMIT_BYTES = 90 * 1000 * 1000
_MOST_NAMED = 5


@dataclass(frozen=True)
class Package:
    """Files of a folder.

    Attributes:
        root: The folder.
        files: The files that go along, by their paths in it.
        bytes: What they weigh together.
    """

    root: Path
    files: tuple[str, ...]
    bytes: int

    def digest(self) -> str:
        """Return a hash of all names and contents."""
        found = hashlib.sha256()
        for name in self.files:
            with (self.root / name).open("rb") as file:
                found.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
        return found.hexdigest()

    def copy(self, to: Path) -> None:
        """Copy the files into another folder."""
        for name in self.files:
            path = to / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(self.root / name, path)


def gather(root: Path, limit: int = LIMIT_BYTES) -> Package:
    """Return what goes along of a folder.

    Args:
        root: The folder.
        limit: How many bytes it may weigh.

    Raises:
        UsageError: It weighs more; names the largest files.
    """
    own = root / IGNORE_FILE
    lines = [*IGNORED, *(own.read_text(encoding="utf-8").splitlines() if own.exists() else [])]
    sizes = {name: (root / name).stat().st_size for name in _files(root, GitIgnoreSpec.from_lines(lines))}
    total = sum(sizes.values())
    if total > limit:
        largest = sorted(sizes, key=lambda name: -sizes[name])[:_MOST_NAMED]
        named = ", ".join(f"{name} ({_megabytes(sizes[name])})" for name in largest)
        raise UsageError(
            f"the folder {root} has {_megabytes(total)} to send, and {_megabytes(limit)} may be; the largest: {named}. Name "
            f"in {IGNORE_FILE} there what the cluster does not need (as in a .gitignore), and put large data and weights on "
            "storage that the cluster reads"
        )
    return Package(root, tuple(sorted(sizes)), total)


def _files(root: Path, ignored: GitIgnoreSpec) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        here = Path(folder).relative_to(root)
        folders[:] = [name for name in folders if not ignored.match_file(f"{(here / name).as_posix()}/")]
        yield from _kept(here, files, root, ignored)


def _kept(here: Path, files: Sequence[str], root: Path, ignored: GitIgnoreSpec) -> Iterator[str]:
    for name in files:
        path = (here / name).as_posix()
        # Neither sockets nor pipes, nor links that lead nowhere.
        if not ignored.match_file(path) and (root / path).is_file():
            yield path


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
