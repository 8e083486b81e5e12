"""SHA256SUMS: the hash of each file of a bundle, in the form that `sha256sum --check` reads."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from paretrim.errors import ArtifactError

FILE = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9][A-Za-z0-9._-]*)")


def write(folder: Path) -> None:
    """Write it for all files that lie in a folder."""
    files = sorted(path for path in folder.iterdir() if path.name != FILE)
    (folder / FILE).write_text("".join(f"{_digest(path)}  {path.name}\n" for path in files), encoding="utf-8")


def check(folder: Path) -> int:
    """Check that a folder holds those files and no others, and return how many.

    Args:
        folder: The folder, which is one's own.

    Raises:
        ArtifactError: A file is missing, changed, or not listed.
    """
    listed = _read(folder / FILE)
    others = sorted(path.name for path in folder.iterdir() if path.name not in (*listed, FILE))
    if others:
        raise ArtifactError(f"{others[0]!a} is not in {FILE}, so it does not belong to this bundle")
    for name, digest in listed.items():
        path = folder / name
        if not path.exists():
            raise ArtifactError(f"'{name}' is missing")
        if _digest(path) != digest:
            raise ArtifactError(
                f"'{name}' does not have the SHA-256 that {FILE} has: it was changed, or did not come whole"
            )
    return len(listed)


def _read(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise ArtifactError(f"{FILE} is missing, so nothing tells whether the files are whole")
    found: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            raise ArtifactError(f"{FILE} has a line that is no hash and name: {line[:100]!a}")
        found[match[2]] = match[1]
    return found


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
