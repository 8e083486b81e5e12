"""Writing the files that a user starts from: the bundled example itself."""

from __future__ import annotations

import shutil
from pathlib import Path

from paretrim.errors import OutputExistsError
from paretrim.search.jobfile import EXAMPLE


def write(folder: Path) -> list[Path]:
    """Copy the example's job file and module into a folder, and return what was written.

    Raises:
        OutputExistsError: One of the files exists; nothing was written.
    """
    sources = [EXAMPLE, EXAMPLE.with_name("digits.py")]
    targets = [folder / source.name for source in sources]
    taken = [str(path) for path in targets if path.exists()]
    if taken or (folder.exists() and not folder.is_dir()):
        raise OutputExistsError(f"{' and '.join(taken) or folder} exists; name another folder, or move it away first")
    folder.mkdir(parents=True, exist_ok=True)
    for source, path in zip(sources, targets, strict=True):
        shutil.copyfile(source, path)
    return targets
