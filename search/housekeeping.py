"""What searches hold on disk, and letting go of what nobody is likely to ask for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from paretrim.errors import UsageError
from paretrim.search.result import Result
from paretrim.search.station import samples_path
from paretrim.tracking.records import BASELINE
from paretrim.tracking.settled import crowded


@dataclass(frozen=True)
class Holding:
    """What a search holds in the store, MLflow's files and the studies' database left out.

    Attributes:
        job: Its name.
        running: Whether a process drives it; then nothing of it is freed.
        kept_bytes: Artifacts of the front, of the baseline, and of trials that may come onto the front yet.
        other_bytes: All other artifacts of the target that the search is for; `paretrim replay` makes one again.
        others: How many these are.
        scratch_bytes: What trials under way have written, or left behind.
    """

    job: str
    running: bool
    kept_bytes: int
    other_bytes: int
    others: int
    scratch_bytes: int


def holding(result: Result) -> Holding:
    """Return what a search holds."""
    others = _others(result)
    files = [path for group in others for path in group]
    everything = folder_bytes(result.folder.artifacts)
    other_bytes = sum(_bytes(path) for path in files)
    return Holding(
        job=result.name,
        running=result.folder.running(),
        kept_bytes=everything - other_bytes,
        other_bytes=other_bytes,
        others=len(others),
        scratch_bytes=folder_bytes(result.folder.scratch),
    )


def free(result: Result, keep_bytes: int = 0) -> int:
    """Delete artifacts off the front, the earliest first, until so many bytes of them are left; return what was freed.

    Args:
        result: The search; whoever calls has seen to it that nobody drives it.
        keep_bytes: How much of them may stay.
    """
    others = _others(result)
    sizes = [sum(_bytes(path) for path in group) for group in others]
    left, freed = sum(sizes), 0
    for group, size in zip(others, sizes, strict=True):
        if left <= keep_bytes:
            break
        for path in group:
            path.unlink(missing_ok=True)
        left, freed = left - size, freed + size
    return freed


def let_go(result: Result, keep_bytes: int = 0) -> int | None:
    """Free what a search holds in vain, and what killed processes left; return the bytes, or None where it is running."""
    try:
        with result.folder.driven():
            return free(result, keep_bytes) + clear_scratch(result)
    except UsageError:
        return None


def clear_scratch(result: Result) -> int:
    """Delete what processes that were killed left in a search's folder; return the bytes."""
    size = folder_bytes(result.folder.scratch)
    shutil.rmtree(result.folder.scratch, ignore_errors=True)
    return size


def _others(result: Result) -> list[list[Path]]:
    """Return the files of each artifact that is not needed, in the order of the trials."""
    needed, found = set(_needed(result)), dict[str, list[Path]]()
    for record in result.study.records():
        # Those of further targets stay: they cannot be made again.
        needed |= {there.sha256 for there in record.elsewhere.values()}
    for sha in dict.fromkeys(record.sha256 for record in result.study.records()):
        if sha and sha not in needed:
            files = list(result.folder.artifacts.glob(f"{sha}.*.xz"))
            files += [path for each in files if (path := samples_path(each)).exists()]
            if files:
                found[sha] = files
    return list(found.values())


def _needed(result: Result) -> Iterator[str]:
    for target in result.job.targets:
        seen = result.on(target)
        report = seen.report
        yield from (row.sha256 for row in (report.front if report is not None else ()))
        # A disturbed trial counts when it was timed again.
        yield from (r.sha256 for r in seen.records if r.kind == BASELINE or (r.complete and crowded(r)))


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files in a folder; others may write and delete there meanwhile."""
    return sum(_bytes(Path(place) / name) for place, _, names in os.walk(folder) for name in names)


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # gone by now
        return 0
