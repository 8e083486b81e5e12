"""Taking a bundle that may be anybody's: its files are copied one by one, as far as each is an ordinary file of a usual size."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from paretrim.errors import ArtifactError

MARK = "FAILED.txt"
"""What a bundle that does not verify is marked with; it is no part of it."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_MOST_FILES, _MOST_BYTES, _BLOCK = 100, 8 << 30, 1 << 20
# Of what is read as a whole.
_MOST_TEXT = 64 << 20
_LARGE = (".onnx", ".pt2", ".safetensors", ".tar", ".xz", ".npz")


def taken(folder: Path, copy: Path) -> None:
    """Copy a bundle into a new folder, but for its mark.

    Raises:
        ArtifactError: It holds what is no ordinary file, has a strange name, or is too large; or it cannot be read.
    """
    copy.mkdir()
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise ArtifactError(f"the bundle cannot be read: {error.strerror}") from None
    if len(names) > _MOST_FILES:
        raise ArtifactError(f"it holds {len(names)} files; a bundle has a dozen")
    left = _MOST_BYTES
    for name in names:
        if name == MARK:
            continue
        if not _NAME.fullmatch(name):
            raise ArtifactError(f"{name!a} is no name that a bundle's file has")
        left -= _copied(folder / name, copy / name, left)


def _copied(source: Path, place: Path, most: int) -> int:
    """Copy an ordinary file and return its size."""
    most = most if source.name.endswith(_LARGE) else min(most, _MOST_TEXT)
    try:
        # A link is not followed, and a pipe not waited for.
        number = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if source.is_symlink():
            raise ArtifactError(f"'{source.name}' is no ordinary file; a bundle holds nothing else") from None
        raise ArtifactError(f"'{source.name}' cannot be read: {error.strerror}") from None
    with os.fdopen(number, "rb") as file, place.open("wb") as made:
        found = os.fstat(number)
        if not stat.S_ISREG(found.st_mode):
            raise ArtifactError(f"'{source.name}' is no ordinary file; a bundle holds nothing else")
        if found.st_size > most:
            raise ArtifactError(f"'{source.name}' has {found.st_size} bytes, and {most} is the most that is read")
        size = 0
        while block := file.read(min(_BLOCK, most - size + 1)):
            size += len(block)
            if size > most:
                raise ArtifactError(f"'{source.name}' grows while it is read")
            made.write(block)
    return size
