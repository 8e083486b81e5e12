"""What each training worker of a trial does: it runs in a process of Ray Train's."""

from __future__ import annotations

import os
import queue
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import torch

from paretrim.errors import LostTrialError, ParetrimError
from paretrim.evaluators.lane import Lane
from paretrim.search.parcel import Material, unpacked
from paretrim.search.wire import Failed, GoOn, Hello, Learn, Leave, Over, Trained, Wire, Yielding, connect
from paretrim.spaces.lesson import InProcess, Lesson
from paretrim.spaces.processes import Processes
from paretrim.spaces.snapshot import Snapshot


@dataclass(frozen=True)
class Place:
    """What a training worker has of its machine, and where it is told what to do.

    Attributes:
        socket: Where the trial's process listens.
        material: Object reference of the search's `Material`.
        threads: That it computes with.
        cores: That it computes on; empty for any.
        yielding: Whether training makes room for measurements.
        gpus: Names of the GPUs' lanes that it makes room in.
    """

    socket: Path
    material: Any
    threads: int
    cores: tuple[int, ...]
    yielding: bool
    gpus: tuple[str, ...] = ()


def work(config: dict[str, Any]) -> None:
    """Train one lesson after the other, until the trial's process hangs up."""
    place: Place = config["place"]
    if place.cores:
        os.sched_setaffinity(0, place.cores)
    torch.set_num_threads(place.threads)
    wire = connect(place.socket)
    material: Material = ray.get(place.material)
    Worker(wire, Processes(), material, yielding=place.yielding, gpus=place.gpus).serve()


class Worker:
    """One worker of a trial's.

    Args:
        wire: To the trial's process.
        team: The workers, this one among them.
        material: What the search's lessons have in common.
        yielding: Whether training makes room for measurements.
        gpus: Names of the GPUs' lanes that it makes room in.
    """

    def __init__(
        self, wire: Wire, team: Processes, material: Material, *, yielding: bool, gpus: tuple[str, ...] = ()
    ) -> None:  # fmt: skip
        self._wire, self._team, self._material = wire, team, material
        self._lane = Lane(waiting=self._waiting, yielding=yielding, gpus=gpus) if team.rank == 0 else None
        self._orders: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._listen, name="paretrim-wire", daemon=True).start()

    def serve(self) -> None:
        """Train each lesson that comes, until there are no more; without the trial's process, this one ends too."""
        self._wire.send(Hello(self._team.rank))
        while isinstance(order := self._orders.get(), Learn):
            self._wire.send(self._end_of(order))

    def _end_of(self, order: Learn) -> Over | Failed:
        try:
            self._train(unpacked(order.parcel, self._material))
        except ParetrimError as error:
            return Failed(str(error), known=True, lost=isinstance(error, LostTrialError))
        except Exception:  # noqa: BLE001 - a user's code may raise anything
            return Failed(traceback.format_exc(), known=False)
        return Over()

    def _train(self, lesson: Lesson) -> None:
        lesson = self._settled(lesson)
        with InProcess().learn(lesson) as losses:
            for loss in losses:
                if self._team.rank == 0:
                    self._wire.send(Trained(loss, Snapshot.of(lesson.model)))
                answer: GoOn = self._orders.get()
                if not answer.on:
                    return

    def _settled(self, lesson: Lesson) -> Lesson:
        """Return a lesson on this worker's device, in this team."""
        device = lesson.schooling.device
        if device.type == "cuda":
            device = torch.device("cuda", self._team.rank % torch.cuda.device_count())
            torch.cuda.set_device(device)
        # One lock for all: with one each, a measurement could come between two members that wait for each other.
        working = nullcontext if self._lane is None else self._lane.working
        return replace(lesson, schooling=replace(lesson.schooling, working=working, team=self._team, device=device))

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        self._wire.send(Yielding(begins=True))
        try:
            yield
        finally:
            self._wire.send(Yielding(begins=False))

    def _listen(self) -> None:
        # Whatever this process is doing: without the trial's process, nobody needs it.
        try:
            while True:
                order = self._wire.receive()
                self._orders.put(order)
                if isinstance(order, Leave):
                    return
        except (EOFError, OSError):
            os._exit(0)
