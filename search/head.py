"""Ray: started on this machine for the time of a run, and watched; or that of a cluster, where there is one."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import gettempdir
from typing import Any, NoReturn

import ray

from paretrim.errors import INTERRUPTED, ClusterError, TrialError
from paretrim.search.fleet import share_of
from paretrim.search.job import Job

ADDRESS = "RAY_ADDRESS"
"""The environment variable of Ray's that names a cluster; in a job that Ray runs, it is set."""
# Tune notices by itself, and comes back, unless it waits for an answer of the one that died.
_LOOK_S, _PATIENCE_S = 0.05, 40.0


def on_cluster() -> bool:
    """Tell whether trials run on a cluster that this process has not started."""
    # One of http is Ray's job server, which takes jobs and no workers.
    return bool(_address())


def _address() -> str:
    address = os.environ.get(ADDRESS, "")
    return "" if address.startswith(("http://", "https://")) else address


class Head:
    """Ray's own processes on this machine, where this process has started them."""

    def __init__(self, node: Any = None) -> None:
        self._node = node

    def dead(self) -> str:
        """Return the name of one that died, or nothing."""
        names = [] if self._node is None else [name for name, _ in self._node.dead_processes()]
        return next((name for name in names if name in ("gcs_server", "raylet")), "")

    def died(self) -> bool:
        """Tell whether one died."""
        return bool(self.dead())

    @contextlib.contextmanager
    def watched(self, then: str, stopping: Callable[[], bool]) -> Iterator[None]:
        """End this process in order when it waits for one of Ray's that died, which can be for ever.

        Args:
            then: The command that goes on after that.
            stopping: Whether the run is to end anyway.
        """
        over = threading.Event()

        def watch() -> None:
            while not over.wait(_LOOK_S):
                name = self.dead()
                # All processes were told to end: Tune will not come back, and Ray ends this one soon, without a word.
                if name and stopping():
                    _leave(f"\nstopped; what is done is kept. Go on with: {then}", INTERRUPTED)
                if name and not over.wait(_PATIENCE_S):
                    _leave(
                        f"Error: Ray's {name} died, and what waits for it cannot go on; nothing that ended is lost: go on "
                        f"with: {then}",
                        1,
                    )

        thread = threading.Thread(target=watch, name="paretrim-head", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()


def _leave(words: str, code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.write(f"{words}\n")
    sys.stderr.flush()
    # Ray itself would abort the process after a minute, without a word of what to do.
    os._exit(code)


@contextlib.contextmanager
def started(job: Job) -> Iterator[Head]:
    """Start Ray on this machine for the time of a run, unless the caller has, or the environment names a cluster."""
    if ray.is_initialized():
        yield Head()
        return
    logging.getLogger("ray").setLevel(logging.ERROR)
    # How trials fail is in their records; Tune would print a traceback of its own for each.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    if on_cluster():
        _join(_address(), job)
    else:
        with _import_path_of_workers(job):
            _start_ray(job)
    try:
        yield Head(None if on_cluster() else ray._private.worker._global_node)
    finally:
        ray.shutdown()


def _join(address: str, job: Job) -> None:
    """Connect to a cluster, whose workers of this search find the user's modules."""
    path = os.pathsep.join(_import_path(job))
    try:
        ray.init(
            address=address,
            runtime_env={"env_vars": {"PYTHONPATH": path}},
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
        )
    except Exception as error:
        ray.shutdown()
        raise ClusterError(f"the Ray cluster at {address}, which {ADDRESS} names, cannot be joined: {error}") from error


def _start_ray(job: Job) -> None:
    """Start Ray, and once more where one of its processes died meanwhile."""
    for left in (1, 0):
        try:
            ray.init(
                address="local",
                # What trials reserve is there once for each; how they share the real cores is theirs to see to.
                num_cpus=int(job.budget.parallel * share_of(job.budget).cpus),
                num_gpus=None if job.budget.trial_gpus else 0,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=False,
            )
        except Exception as error:
            ray.shutdown()
            if not left:
                raise TrialError(
                    f"Ray does not start on this machine: {error}\nits own words are in {Path(gettempdir()) / 'ray'}"
                ) from error
        else:
            return


@contextlib.contextmanager
def _import_path_of_workers(job: Job) -> Iterator[None]:
    """Let workers find the user's modules before anything is unpickled in them."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(_import_path(job))
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _import_path(job: Job) -> list[str]:
    before = os.environ.get("PYTHONPATH")
    return [str(job.folder), *([before] if before else [])]
