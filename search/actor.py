"""The process that makes trials for Ray Tune, one after the other."""

from __future__ import annotations

import faulthandler
import os
import socket
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TextIO

import ray
import torch
from ray import tune

from paretrim.errors import ArtifactError, ClusterError, LostTrialError, LoweringError, ParetrimError, TrialError
from paretrim.evaluators import cores, torch_cuda
from paretrim.search.context import TrialContext
from paretrim.search.crew import Crew
from paretrim.search.fleet import Berth, beside
from paretrim.search.news import News
from paretrim.search.room import await_room, why_unwritten
from paretrim.search.sealed import Sealed
from paretrim.search.staff import Staff
from paretrim.search.study import Asked
from paretrim.search.trial import TrialRunner
from paretrim.spaces.recipe import Recipe
from paretrim.tracking.records import Epoch, Preview, TrialRecord

if TYPE_CHECKING:
    from paretrim.search.workers import Workers

NEWS, RECORD = "news", "record"
_TRACE_LINES = 30
_OF_THE_RECIPE = (LoweringError, ArtifactError, TrialError)


def hang_file(scratch: Path, number: int) -> Path:
    """Return where the process of a trial writes what it was doing when its time was up."""
    return scratch / f"{number}.hang"


class TrialActor(tune.Trainable):  # type: ignore[misc]
    """Makes trials; kept from one trial to the next, since a fresh process costs over a second.

    A step is what comes before training, one epoch of it, or the rest of the trial.
    """

    Runner: ClassVar[type[TrialRunner]] = TrialRunner

    def setup(
        self,
        config: dict[str, Any],
        sealed: Sealed,
        scratch: Path,
        limit_s: float,
        berth: Berth,
        crew: int = 1,
        staff: Staff | None = None,
    ) -> None:
        """Take the search's context and begin the first trial.

        Raises:
            ClusterError: This machine does not see the search's folder.
        """
        with _unhurried(guest=not berth.alone):
            self._set_up(sealed, scratch, limit_s, berth, crew, staff)
        self._begin(config)

    def _set_up(
        self,
        sealed: Sealed,
        scratch: Path,
        limit_s: float,
        berth: Berth,
        crew: int,
        staff: Staff | None,
    ) -> None:
        if not scratch.is_dir():
            raise ClusterError(
                f"the machine {socket.gethostname()} does not see {scratch}; a cluster needs its store on storage that all "
                "machines share (see docs/cluster.md)"
            )
        if berth.code is not None:
            os.chdir(berth.code)
        context = sealed.opened()
        if context.device == "cuda" and (why := torch_cuda.missing()):
            raise ClusterError(
                f"budget.device is cuda, and the machine {socket.gethostname()} cannot train there: {why}"
            )
        workers = beside(berth.share, berth.parallel)
        processes = workers * (1 if staff is None else staff.size)
        plan = cores.plan(cores.usable(), processes, context.stations[0].address.settings.threads)
        if plan.spare:
            os.sched_setaffinity(0, plan.training)
        all_here = max(1, (len(plan.training) or os.cpu_count() or 1) // workers)
        torch.set_num_threads(all_here if berth.alone else min(all_here, int(berth.share.cpus)))
        self._scratch = scratch
        self._limit_s = limit_s
        self._guest = not berth.alone
        self._trainers = None if staff is None else self._hired(staff, context, plan)
        self._runner = self.Runner(context, scratch, self._off_the_clock, plan, self._trainers)
        self._hang_note: TextIO | None = None
        self._crew = Crew(scratch, ray.get_runtime_context().get_job_id(), crew)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin the next trial in this process."""
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Go on with the trial until its next epoch or its end."""
        try:
            self._watch()
            event = next(self._events)
        except Exception as error:  # noqa: BLE001 - a user's code may raise anything, and that fails one trial only
            event = self._failed(error)
        finally:
            faulthandler.cancel_dump_traceback_later()
        self._crew.wait()
        if isinstance(event, TrialRecord):
            self._close_note()
            return {"done": True, RECORD: event.to_json()}
        return {"done": False, NEWS: News(event, dict(self._seconds)).to_json()}

    def cleanup(self) -> None:
        """Let go of the note, and of the training workers."""
        self._close_note()
        if self._trainers is not None:
            self._trainers.close()

    def _hired(self, staff: Staff, context: TrialContext, plan: cores.Plan) -> Workers:
        from paretrim.search.hiring import hired  # noqa: PLC0415 - most searches need no Ray Train

        return hired(staff, context, self._scratch, self._off_the_clock, plan)

    def _begin(self, config: dict[str, Any]) -> None:
        self._asked = Asked(config["number"], config["kind"], Recipe.from_json(config["recipe"]))
        self._deadline = time.monotonic() + self._limit_s
        self._started = time.monotonic()
        self._seconds: dict[str, float] = {}
        self._events: Iterator[Preview | Epoch | TrialRecord] = self._runner.run(self._asked, self._seconds)
        self._close_note()
        self._hang_note = hang_file(self._scratch, self._asked.number).open("w")

    def _watch(self) -> None:
        # The interpreter's own watchdog works also while a hanging call holds the interpreter: it writes where each
        # thread is and ends the process, which fails this trial and no other.
        remaining = max(0.1, self._deadline - time.monotonic())
        if self._hang_note is not None:
            faulthandler.dump_traceback_later(remaining, exit=True, file=self._hang_note)

    @contextmanager
    def _off_the_clock(self) -> Iterator[None]:
        # A neighbour that hangs while it holds the machine is stopped at its own limit, and must not use up this one's.
        faulthandler.cancel_dump_traceback_later()
        since = time.monotonic()
        try:
            yield
        finally:
            self._deadline += time.monotonic() - since
            self._watch()

    def _close_note(self) -> None:
        if self._hang_note is not None:
            self._hang_note.close()
            self._hang_note = None

    def _failed(self, error: Exception) -> TrialRecord:
        known = isinstance(error, ParetrimError)
        cause = str(error) if known else "".join(traceback.format_exception(error)[-_TRACE_LINES:])
        if self._guest and why_unwritten(error):
            with self._off_the_clock():
                await_room()
            cause = f"{cause.rstrip()}\non {socket.gethostname()}: {why_unwritten(error)}"
        return TrialRecord(
            number=self._asked.number,
            kind=self._asked.kind,
            state="failed",
            recipe=self._asked.recipe.values,
            seed=self._asked.recipe.seed,
            seconds={"total": time.monotonic() - self._started},
            cause=cause,
            unfit=isinstance(error, _OF_THE_RECIPE) and not isinstance(error, LostTrialError),
        )


@contextmanager
def _unhurried(*, guest: bool) -> Iterator[None]:
    """Let a machine of a cluster that cannot begin wait before it says so."""
    try:
        yield
    except Exception as error:
        if guest and (isinstance(error, ClusterError) or why_unwritten(error)):
            await_room()
        raise
