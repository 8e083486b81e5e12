"""What searches hold on disk, and letting go of what nobody is likely to ask for."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from paretrim.errors import UsageError
from paretrim.search.job import Job
from paretrim.search.result import Result
from paretrim.search.station import samples_path
from paretrim.search.store import JobFolder
from paretrim.tracking.front import Objective, baseline_metrics, contenders, trial_front
from paretrim.tracking.records import BASELINE, TrialRecord
from paretrim.tracking.settled import at_its_best

# How much of the limit may come anew before a search that runs looks what it can let go of.
SHARE = 0.25


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
    return _shrink(_others(result), keep_bytes)


def trim(job: Job, records: Sequence[TrialRecord], objectives: Sequence[Objective], folder: JobFolder) -> int:
    """Delete artifacts off the front of a search that runs, past the job's limit; return what was freed.

    Those stay that would be on the front if their latency were the lower end of its interval, since all of that are timed
    again when the search ends.

    Args:
        job: The job.
        records: Of the trials that ended.
        objectives: What is compared.
        folder: The search's folder.
    """
    hopeful = trial_front([at_its_best(each) for each in records], objectives, job.bounds, disturbed=True)
    now = (*contenders(records, objectives, job.bounds), *hopeful, *_baseline(records))
    others = _apart(folder, records, {each.sha256 for each in now})
    # A trial that is under way may have made the same file just now, and reads it until it ends.
    recent = time.time() - 60 * job.budget.trial_minutes
    settled = [group for group in others if max(map(_changed, group)) < recent]
    held = sum(_bytes(path) for group in others for path in group if group not in settled)
    return _shrink(settled, max(0, int(job.storage.keep_mb * 1e6) - held))


def _shrink(groups: Sequence[Sequence[Path]], keep_bytes: int) -> int:
    sizes = [sum(_bytes(path) for path in group) for group in groups]
    left, freed = sum(sizes), 0
    for group, size in zip(groups, sizes, strict=True):
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
    return _apart(result.folder, result.study.records(), set(_needed(result)))


def _apart(folder: JobFolder, records: Sequence[TrialRecord], needed: set[str]) -> list[list[Path]]:
    """Return the files of each artifact that is not needed, in the order of the trials."""
    # Those of further targets stay: they cannot be made again.
    needed = needed.union(there.sha256 for record in records for there in record.elsewhere.values())
    found = dict[str, list[Path]]()
    for sha in dict.fromkeys(record.sha256 for record in records):
        if sha and sha not in needed:
            files = list(folder.artifacts.glob(f"{sha}.*.xz"))
            files += [path for each in files if (path := samples_path(each)).exists()]
            if files:
                found[sha] = files
    return list(found.values())


def _needed(result: Result) -> Iterator[str]:
    for target in result.job.targets:
        seen = result.on(target)
        # What is disturbed among those that contend is timed again when the search is resumed.
        known = baseline_metrics(seen.records)
        now = contenders(seen.records, seen.objectives, seen.job.bounds) if known else ()
        yield from (record.sha256 for record in (*now, *_baseline(seen.records)))


def _baseline(records: Sequence[TrialRecord]) -> Iterator[TrialRecord]:
    return (record for record in records if record.kind == BASELINE)


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files in a folder; others may write and delete there meanwhile."""
    return sum(_bytes(Path(place) / name) for place, _, names in os.walk(folder) for name in names)


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # gone by now
        return 0.0


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # gone by now
        return 0
