"""A search's own copy of its user's code: what came from another machine is gone from this one some day."""

from __future__ import annotations

import shutil

from paretrim.search.job import Job
from paretrim.search.store import JobFolder


def with_own_code(job: Job, folder: JobFolder) -> Job:
    """Copy a job's folder into that of its search, unless an earlier attempt has, and return the job as it is from there."""
    if not folder.code.exists():
        partial = folder.path / "code.partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(job.folder, partial, symlinks=True)
        partial.replace(folder.code)
    return Job(**{**job.model_dump(), "folder": folder.code})
