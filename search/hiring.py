"""Starting the training workers of a trial's process by Ray Train."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import mkdtemp

import ray
import ray.train
import torch
from ray.train.torch import TorchConfig, TorchTrainer

from paretrim.errors import LostTrialError
from paretrim.evaluators.cores import Plan
from paretrim.search.context import TrialContext
from paretrim.search.staff import Staff, material_of
from paretrim.search.wire import Hello, Wire
from paretrim.search.worker import Place, work
from paretrim.search.workers import Workers

# A worker must import torch first, which on a busy machine takes long.
_START_S, _POLL_S = 180.0, 0.2
_VISIBLE = "CUDA_VISIBLE_DEVICES"


def hired(
    staff: Staff,
    context: TrialContext,
    scratch: Path,
    waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
    plan: Plan | None = None,
) -> Workers:
    """Return the workers of the trials that this process makes, which share its threads.

    Args:
        staff: How many, and what they work with.
        context: What all trials of the search share.
        scratch: A folder for Ray Train's own files.
        waiting: Entered while training waits for a measurement.
        plan: Which cores train; by default any, while all training waits for measurements.
    """
    spare = plan is not None and plan.spare
    threads = max(1, torch.get_num_threads() // staff.size)
    training = plan.training if plan is not None and spare else ()
    place = Place(Path(), staff.material, threads, training, not spare, context.gpus)
    return Workers(staff.size, partial(start, staff.size, place, scratch), material_of(context), waiting)


def start(size: int, place: Place, scratch: Path) -> list[Wire]:
    """Start workers and return the connections to them, in the order of their ranks.

    Args:
        size: How many.
        place: What each has of this machine, but for where it is told what to do.
        scratch: A folder for Ray Train's own files.

    Raises:
        LostTrialError: They do not start.
    """
    folder = Path(mkdtemp(prefix="paretrim-"))
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(folder / "wire"))
            listener.listen(size)
            run = _Run(_trainer(size, replace(place, socket=folder / "wire"), scratch))
            run.start()
            return _connected(listener, run, size)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Run(threading.Thread):
    """Ray Train at work, until all workers are gone."""

    def __init__(self, trainer: TorchTrainer) -> None:
        super().__init__(name="paretrim-train", daemon=True)
        self._trainer = trainer
        self.error: BaseException | None = None

    def run(self) -> None:
        """Wait for the end."""
        try:
            self._trainer.fit()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - Ray's, which may have ended; `_connected` tells it
            self.error = error


def _trainer(size: int, place: Place, scratch: Path) -> TorchTrainer:
    node = ray.get_runtime_context().get_node_id()
    alive = next(each for each in ray.nodes() if each["NodeID"] == node)
    # The trial has reserved the cores. A trifle of what only this machine has keeps the workers here.
    name = next(each for each in alive["Resources"] if each.startswith("node:") and not each.startswith("node:__"))
    return TorchTrainer(
        work,
        train_loop_config={"place": place},
        torch_config=TorchConfig(backend=_backend(size, place)),
        scaling_config=ray.train.ScalingConfig(num_workers=size, resources_per_worker={name: 0.001}),
        run_config=ray.train.RunConfig(
            name=place.socket.parent.name,
            storage_path=str(scratch / "train"),
            failure_config=ray.train.FailureConfig(max_failures=0, controller_failure_limit=0),
            worker_runtime_env=_seeing_the_same(),
        ),
    )


def _backend(size: int, place: Place) -> str:
    """Return the means of exchange: NCCL wants a device for each worker."""
    return "cpu:gloo,cuda:nccl" if place.gpus and torch.cuda.device_count() >= size else "gloo"


def _seeing_the_same() -> dict[str, dict[str, str]] | None:
    """Return the environment of workers that see the GPUs that the trial has reserved, and no others.

    Ray leaves the choice to whoever reserves none, as the workers do.
    """
    seen = os.environ.get(_VISIBLE)
    return None if seen is None else {"env_vars": {_VISIBLE: seen}}


def _connected(listener: socket.socket, run: _Run, size: int) -> list[Wire]:
    listener.settimeout(_POLL_S)
    found: dict[int, Wire] = {}
    deadline = time.monotonic() + _START_S
    while len(found) < size:
        if run.error is not None or time.monotonic() > deadline:
            why = run.error or f"they were not there after {_START_S:.0f} s"
            raise LostTrialError(f"its {size} training workers could not be started: {why}")
        with suppress(TimeoutError):
            wire = Wire(listener.accept()[0])
            hello: Hello = wire.receive()
            found[hello.rank] = wire
    return [found[rank] for rank in range(size)]
