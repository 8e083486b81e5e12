"""Asking ahead: trials are made ready in a thread of their own while others run, so that workers need not wait."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType

import torch

from paretrim.search.space import Space
from paretrim.search.study import Asked, Study

_CLOSING_S = 60.0
_QUICK_S = 0.5


class Ahead:
    """Keeps some trials of a study ready.

    What is ready is open in the study without an attempt: when the process dies, or this is closed, it is the next that
    is handed out, and until then it counts for nothing. What is asked ahead knows less, so no more is kept ready than
    asking takes long; where it is quick nothing is, and `next` asks itself.

    Args:
        study: The study.
        space: What is searched.
        depth: Most trials to keep ready; 0 never asks ahead.
        trials: Trials to end in all: no more are asked for.
        working: Entered while the thread asks for long, which then makes room for measurements on its cores.
    """

    def __init__(
        self,
        study: Study,
        space: Space,
        depth: int,
        trials: int,
        working: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._study = study
        self._space = space
        self._most = depth
        self._trials = trials
        self._working = working
        self._ready: deque[Asked] = deque()
        self._error: BaseException | None = None
        self._closing = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._wish()

    def next(self, wait_s: float | None = 0.0) -> Asked | None:
        """Return a trial and count an attempt at it; None when none is ready in time.

        Args:
            wait_s: How long to wait for one; None for as long as it takes.

        Raises:
            Exception: What asking raised, in whichever thread.
        """
        if self._wish():
            with self._changed:
                self._changed.wait_for(self._settled, wait_s)
        with self._changed:
            if self._error is not None:
                raise self._error
            if not self._ready and self._thread is not None:
                return None
            found = self._ready.popleft() if self._ready else None
        if found is None:
            found = self._study.prepare(self._space)
        self._study.hand_out(found.number)
        self._wish()
        return found

    def recall(self) -> None:
        """Give back to the study what is ready, and ask for no more until `expect` says how many."""
        with self._changed:
            self._trials = 0
            self._changed.wait_for(lambda: self._thread is None)
            while self._ready:
                self._study.put_back(self._ready.pop().number)

    def expect(self, trials: int) -> None:
        """Ask until so many trials end in all."""
        with self._changed:
            self._trials = trials

    def close(self) -> None:
        """Ask for no more, and give back to the study what is ready."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(_CLOSING_S)
        with self._changed:
            while self._ready:
                self._study.put_back(self._ready.pop().number)

    def __enter__(self) -> Ahead:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _depth(self) -> int:
        return min(self._most, self._study.depth()) if self._most else 0

    def _wish(self) -> bool:
        """Let the thread ask if trials are wanted, and tell whether it does; it ends when no more are."""
        with self._changed:
            if self._thread is None and self._wanted():
                self._thread = threading.Thread(target=self._ask, name="paretrim-ahead", daemon=True)
                self._thread.start()
            return self._thread is not None

    def _room(self) -> AbstractContextManager[None]:
        """Return what to enter for an ask: a quick one disturbs a measurement less than waiting for it costs."""
        return self._working() if self._study.asking_s() > _QUICK_S else nullcontext()

    def _settled(self) -> bool:
        return bool(self._ready) or self._thread is None

    def _wanted(self) -> bool:
        return not self._closing and len(self._ready) < self._depth() and self._study.known < self._trials

    def _ask(self) -> None:
        # The workers compute on all cores already, and matrices as small as a sampler's gain nothing from several.
        torch.set_num_threads(1)
        while True:
            try:
                with self._room():
                    asked = self._study.prepare(self._space)
            except BaseException as error:  # noqa: BLE001 - it is raised where the next trial is asked for
                with self._changed:
                    self._error, self._thread = error, None
                    self._changed.notify_all()
                return
            with self._changed:
                self._ready.append(asked)
                self._changed.notify_all()
                if not self._wanted():
                    self._thread = None
                    return
