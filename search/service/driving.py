"""What runs on a cluster for a job: its search, begun or gone on with, whichever it is time for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from paretrim.errors import JobError, Problem, UnknownJobError, UsageError
from paretrim.search import engine, preflight
from paretrim.search.job import Job
from paretrim.search.jobfile import load
from paretrim.search.monitor import Monitor
from paretrim.search.result import Result
from paretrim.search.store import ENVIRONMENT, Store


def drive(
    path: Path | None, name: str, budget: Mapping[str, object], monitor: Monitor, *, check: bool
) -> Result:  # fmt: skip
    """Begin a search under a name that is decided, or go on with it where it was begun.

    Args:
        path: The job file; None where the search was begun.
        name: The search's name.
        budget: Fields of the budget to change.
        monitor: Shown what goes on.
        check: Whether the whole path is tried before the search begins.

    Raises:
        UnknownJobError: It was not begun, and there is no job file.
        JobError: The check found what would make the search fail.
    """
    job = None if path is None else load(path).with_budget(budget)
    store = _store()
    if store.has(name):
        code = store.job(name).code
        if code.exists():
            os.chdir(code)  # as the first time: a user's code may read files beside it
        return engine.go_on(name, store, monitor, budget)
    if job is None:
        raise UnknownJobError(f"{name} was not begun in the store {store.root} of the cluster; submit it again")
    if check:
        _check(job, store, monitor)
    return engine.start(job, store, monitor, name)


def _store() -> Store:
    """Return the store of the cluster; by default it would be a folder that Ray deletes."""
    if not os.environ.get(ENVIRONMENT):
        raise UsageError(
            f"the cluster names no store; start its processes with {ENVIRONMENT} in their environment (see docs/cluster.md)"
        )
    return Store()


def _check(job: Job, store: Store, monitor: Monitor) -> None:
    found = preflight.check(job, store, monitor.say)
    for warning in found.warnings:
        monitor.say(f"warning: {warning}")
    if found.problems:
        raise JobError([Problem((), text) for text in found.problems], "the job was not accepted: what was tried")
