"""The training workers of a trial's process, each of which takes a share of every batch; it tells them what to do."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from multiprocessing.connection import wait
from typing import Any

from paretrim.errors import LostTrialError, TrialError
from paretrim.evaluators.child import ending
from paretrim.search.parcel import Material, packed
from paretrim.search.wire import Failed, GoOn, Learn, Leave, Over, Trained, Wire, Yielding
from paretrim.spaces.lesson import Lesson

# How long to wait, after one worker tells of an error, for whatever may have caused it in another.
_CAUSE_S = 1.0
_DROP_S = 10.0


class Workers:
    """Trains models in worker processes on this machine.

    They are started with the first lesson and kept for further ones, of later trials too, since a start costs seconds.
    After an error that not all have met alike they are ended, and others are started for the next lesson.

    Args:
        size: How many.
        start: Starts them and returns the connections to them, in the order of their ranks.
        material: What all lessons have in common.
        waiting: Entered while training waits for a measurement, so that a time limit does not count it.
    """

    def __init__(
        self,
        size: int,
        start: Callable[[], list[Wire]],
        material: Material,
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.size, self._start, self._material, self._waiting = size, start, material, waiting
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
            self._wires = self._start()
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
                    raise LostTrialError("its training workers do not answer")
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
        known = [each for each in failures if each.known]
        self._under_way = len(known) < self.size
        if known:
            return (LostTrialError if known[0].lost else TrialError)(known[0].cause)
        if silent:
            how = ending(-signal.SIGKILL)
            return LostTrialError(f"one of its {self.size} training workers {how}, or ended by itself")
        return LostTrialError(f"one of its {self.size} training workers failed:\n{failures[0].cause}")
