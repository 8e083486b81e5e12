"""paretrim from Python."""

from __future__ import annotations

from pathlib import Path

from paretrim.search import engine
from paretrim.search.job import Job
from paretrim.search.jobfile import EXAMPLE, load
from paretrim.search.monitor import Monitor, Silence
from paretrim.search.result import Result, open_result
from paretrim.search.store import Store


def search(
    job: Job | str | Path | None = None, *, store: str | Path | None = None, monitor: Monitor | None = None
) -> Result:
    """Run a search to its end.

    Args:
        job: A job, or the path of a job file; by default the bundled example.
        store: Folder of the store; by default that of ``PARETRIM_STORE``, or ``paretrim-runs`` here.
        monitor: Shown what goes on; by default nothing is shown.

    Raises:
        JobError: The job file has mistakes.
        UsageError: The model or the data do not do.
        LoweringError: The model does not export.
    """
    loaded = job if isinstance(job, Job) else load(EXAMPLE if job is None else Path(job))
    folder = store or loaded.storage_folder
    return engine.start(loaded, _store(folder), monitor or Silence())


def resume(
    name: str | None = None,
    *,
    trials: int | None = None,
    store: str | Path | None = None,
    monitor: Monitor | None = None,
) -> Result:
    """Go on with a search that was interrupted, or give it a larger budget.

    Args:
        name: Name of the search; by default the latest.
        trials: A new budget of trials, those that ended included.
        store: Folder of the store.
        monitor: Shown what goes on.

    Raises:
        UnknownJobError: There is no such search.
        ResumeError: The model, the data or the space has changed.
    """
    budget = {} if trials is None else {"trials": trials}
    return engine.go_on(name, _store(store), monitor or Silence(), budget)


def load_result(name: str | None = None, *, store: str | Path | None = None) -> Result:
    """Open a search that was run before.

    Args:
        name: Name of the search; by default the latest.
        store: Folder of the store.

    Raises:
        UnknownJobError: There is no such search.
    """
    return open_result(name, _store(store))


def _store(folder: str | Path | None) -> Store:
    return Store(None if folder is None else Path(folder))
