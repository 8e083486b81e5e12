"""The training workers of a trial's process: Ray Train starts them, and each takes a share of every batch."""

from __future__ import annotations

import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import ray
import ray.train
import torch
from ray.train.torch import TorchConfig, TorchTrainer

from paretrim.errors import TrialError
from paretrim.evaluators.child import ending
from paretrim.evaluators.cores import Plan
from paretrim.search.context import TrialContext
from paretrim.search.parcel import Material, packed
from paretrim.search.staff import Staff, material_of
from paretrim.search.wire import Failed, GoOn, Hello, Learn, Leave, Over, Trained, Wire, Yielding
from paretrim.search.worker import Place, work
from paretrim.spaces.lesson import Lesson

# A worker must import torch first, which on a busy machine takes long.
_START_S, _POLL_S = 180.0, 0.2
# How long to wait, after one worker tells of an error, for whatever may have caused it in another.
_CAUSE_S = 1.0
_DROP_S = 10.0


class Workers:
    """Trains models in worker processes on this machine.

    They are started with the first lesson and kept for further ones, of later trials too, since a start costs seconds.
    After an error that not all have met alike they are ended, and others are started for the next lesson.

    Args:
        size: How many.
        place: What each has of this machine, but for where it is told what to do.
        material: What all lessons have in common.
        scratch: A folder for Ray Train's own files.
        waiting: Entered while training waits for a measurement, so that a time limit does not count it.
    """

    def __init__(
        self,
        size: int,
        place: Place,
        material: Material,
        scratch: Path,
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.size, self._place, self._material = size, place, material
        self._scratch, self._waiting = scratch, waiting
        self._wires: list[Wire] = []
        self._under_way = self._between = False

    @contextmanager
    def learn(self, lesson: Lesson) -> Iterator[Iterator[float]]:
        """Train the lesson's model in place: within the context, each turn is an epoch and gives its mean loss.

        Raises:
            TrialError: A worker failed or died, or they could not be started.
        """
        try:
            yield self._losses(lesson)
        finally:
            # Where the trial has stopped, or failed by itself, between two epochs, the workers can go on.
            if self._under_way and self._between:
                self._drop()
            elif self._under_way:
                self.close()

    def close(self) -> None:
        """End the workers, whatever they are doing."""
        for wire in self._wires:
            if not self._under_way:
                with suppress(OSError):
                    wire.send(Leave())  # Ray would tell the user of processes that end by themselves
            wire.close()
        self._wires, self._under_way = [], False

    def _losses(self, lesson: Lesson) -> Iterator[float]:
        if lesson.idle:
            return
        if not self._wires:
            self._wires = _start(self.size, self._place, self._scratch)
        order = Learn(packed(lesson, self._material))
        self._under_way = True
        self._tell(order)
        while True:
            told = self._hear()
            if not isinstance(told, Trained):
                self._dismiss(1)
                return
            told.state.give(lesson.model)
            self._between = True
            yield told.loss
            self._between = False
            self._tell(GoOn(on=True))

    def _drop(self) -> None:
        """Let the workers drop the lesson, as they can at the end of an epoch."""
        self._between = False
        try:
            self._tell(GoOn(on=False))
            self._dismiss(0, time.monotonic() + _DROP_S)
        except TrialError:
            self.close()

    def _dismiss(self, over: int, deadline: float | None = None) -> None:
        """Wait until all workers are done with the lesson, of which some have said so already."""
        while over < self.size:
            over += isinstance(self._hear(deadline), Over)
        self._under_way = False

    def _tell(self, order: Learn | GoOn) -> None:
        try:
            for wire in self._wires:
                wire.send(order)
        except OSError:
            raise self._trouble(None) from None

    def _hear(self, deadline: float | None = None) -> Trained | Over:
        """Return what a worker tells next, except that it waits for a measurement."""
        with ExitStack() as waiting:
            while True:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                ready = wait([wire.connection for wire in self._wires], left)
                if not ready:
                    raise TrialError("its training workers do not answer")
                told = self._receive(next(wire for wire in self._wires if wire.connection in ready))
                if isinstance(told, Yielding):
                    if told.begins:
                        waiting.enter_context(self._waiting())
                    else:
                        waiting.close()
                elif isinstance(told, Trained | Over):
                    return told
                else:
                    raise self._trouble(told)

    def _receive(self, wire: Wire) -> Any:
        try:
            return wire.receive()
        except (EOFError, OSError):
            return None

    def _trouble(self, told: Failed | None) -> TrialError:
        """Return why a lesson failed, by what workers have said, and by which of them fell silent.

        When one is gone, the others often tell that they miss it. Where all have come to the same end, they can go on.
        """
        failures, silent = [told] if told else [], told is None
        deadline = time.monotonic() + _CAUSE_S
        while len(failures) < self.size and not silent and (time_left := deadline - time.monotonic()) > 0:
            ready = wait([wire.connection for wire in self._wires], time_left)
            for wire in [each for each in self._wires if each.connection in ready]:
                answer = self._receive(wire)
                silent = silent or answer is None
                failures += [answer] if isinstance(answer, Failed) else []
        known = [each.cause for each in failures if each.known]
        self._under_way = len(known) < self.size
        if known:
            return TrialError(known[0])
        if silent:
            return TrialError(f"one of its {self.size} training workers {ending(-signal.SIGKILL)}, or ended by itself")
        return TrialError(f"one of its {self.size} training workers failed:\n{failures[0].cause}")


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
        except (Exception, SystemExit) as error:  # Ray's, where it ends; told where somebody waits for the workers
            self.error = error


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
    place = Place(Path(), staff.material, threads, plan.training if plan is not None and spare else (), not spare)
    return Workers(staff.size, place, material_of(context), scratch, waiting)


def _start(size: int, place: Place, scratch: Path) -> list[Wire]:
    """Start workers and return the connections to them, in the order of their ranks."""
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


def _trainer(size: int, place: Place, scratch: Path) -> TorchTrainer:
    node = ray.get_runtime_context().get_node_id()
    alive = next(each for each in ray.nodes() if each["NodeID"] == node)
    # The trial has reserved the cores. A trifle of what only this machine has keeps the workers here.
    name = next(each for each in alive["Resources"] if each.startswith("node:") and not each.startswith("node:__"))
    return TorchTrainer(
        work,
        train_loop_config={"place": place},
        torch_config=TorchConfig(backend=_backend(size)),
        scaling_config=ray.train.ScalingConfig(num_workers=size, resources_per_worker={name: 0.001}),
        run_config=ray.train.RunConfig(
            name=place.socket.parent.name,
            storage_path=str(scratch / "train"),
            failure_config=ray.train.FailureConfig(max_failures=0, controller_failure_limit=0),
        ),
    )


def _backend(size: int) -> str:
    """Return the means of exchange: NCCL wants a device for each worker."""
    return "cpu:gloo,cuda:nccl" if torch.cuda.device_count() >= size else "gloo"


def _connected(listener: socket.socket, run: _Run, size: int) -> list[Wire]:
    listener.settimeout(_POLL_S)
    found: dict[int, Wire] = {}
    deadline = time.monotonic() + _START_S
    while len(found) < size:
        if run.error is not None or time.monotonic() > deadline:
            why = run.error or f"they were not there after {_START_S:.0f} s"
            raise TrialError(f"its {size} training workers could not be started: {why}")
        with suppress(TimeoutError):
            wire = Wire(listener.accept()[0])
            hello: Hello = wire.receive()
            found[hello.rank] = wire
    return [found[rank] for rank in range(size)]
