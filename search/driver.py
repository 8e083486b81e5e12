"""The driver: Ray Tune runs the trials of a study until its budget is used."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

# Set before Ray is imported: no loggers of Tune's own (they cost more than a short trial), no usage report.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("TUNE_FORCE_TRIAL_CLEANUP_S", "2")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "1e9")  # nothing reads its snapshots
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")  # before Ray 2.51 the default is another one
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

from ray import tune
from ray.tune.execution.tune_controller import TuneController

from paretrim.errors import TrialError
from paretrim.evaluators import cores
from paretrim.evaluators.lane import Lane
from paretrim.search import housekeeping, longer, strategy
from paretrim.search.actor import TrialActor
from paretrim.search.ahead import Ahead
from paretrim.search.backlog import Backlog
from paretrim.search.context import TrialContext
from paretrim.search.fleet import Berth, room, share_of
from paretrim.search.head import Head, on_cluster, started
from paretrim.search.job import Job
from paretrim.search.longer import FINAL
from paretrim.search.monitor import Monitor
from paretrim.search.purse import Purse
from paretrim.search.scheduler import HalvingScheduler
from paretrim.search.sealed import sealed
from paretrim.search.searcher import StudySearcher
from paretrim.search.sharing import Allowance
from paretrim.search.staff import staff_of
from paretrim.search.store import JobFolder
from paretrim.search.study import BEFORE, Study
from paretrim.tracking.records import TrialRecord

# The name of a note: the finalists of the last phase, and after how many trials they were chosen.
_FINALISTS = "finalists"
# Ray is started again so many times in a row while no trial ends.
_MOST_DEATHS = 3
_MOST_WAITING, _WAIT_S = 16, 2


@dataclass(frozen=True)
class Outcome:
    """How a run of the driver ended.

    Attributes:
        interrupted: Whether Ctrl-C ended it.
        ended: Why it ended before its trials were used up, empty otherwise.
        fatal: Why it could not go on, empty otherwise.
        unwritten: What could not be written, empty otherwise.
    """

    interrupted: bool
    ended: str = ""
    fatal: str = ""
    unwritten: str = ""


def drive(
    job: Job,
    context: TrialContext,
    study: Study,
    backlog: Backlog,
    folder: JobFolder,
    monitor: Monitor,
    actor: type[tune.Trainable] = TrialActor,
) -> Outcome:
    """Run trials until the budget is used or Ctrl-C is pressed.

    Args:
        job: The job.
        context: What its trials share.
        study: Its study.
        backlog: Logs trials as they end.
        folder: Its folder.
        monitor: Shown what goes on.
        actor: Makes the trials.
    """
    study.use_sampler(job.budget.trials, job.sampler, job.budget.parallel)
    folder.scratch.mkdir(exist_ok=True)
    folder.stop.unlink(missing_ok=True)
    spent_s = float(study.noted(BEFORE, 0.0))
    purse = Purse(job.budget, study.objectives, job.bounds, folder.stop, spent_s, study.records)
    drive = _Drive(job, context, study, backlog, folder, monitor, actor, purse)
    deaths = 0
    while True:
        ended = study.ended
        outcome, died = drive.run()
        if not died or outcome.interrupted or outcome.unwritten:
            return outcome
        deaths = deaths + 1 if study.ended == ended else 1
        if deaths > _MOST_DEATHS:
            raise TrialError(
                f"Ray's {died} died {deaths} times while no trial ended; see what ends processes on this machine (memory, "
                f"limits), then go on with: paretrim resume {folder.name}"
            )
        monitor.say(f"Ray's {died} died; Ray is started again, and so are the trials that were under way")


@dataclass
class _Drive:
    """What all turns of a run have in common; there is a second one where Ray itself dies."""

    job: Job
    context: TrialContext
    study: Study
    backlog: Backlog
    folder: JobFolder
    monitor: Monitor
    actor: type[tune.Trainable]
    purse: Purse

    def __post_init__(self) -> None:
        self._new_bytes = 0.0
        self._wall_s, self._started = float(self.study.noted("wall_seconds", 0.0)), time.monotonic()
        self._guide = strategy.guide(self.job, self.context, self.study)
        self.study.follow(self._guide)

    def run(self) -> tuple[Outcome, str]:
        """Run trials until the budget is used, Ctrl-C is pressed, or Ray dies; return which of its processes did."""
        job, study, monitor = self.job, self.study, self.monitor
        study.put_first(FINAL)
        trials = job.budget.trials + study.count(FINAL)
        with (
            started(job) as head,
            _ahead(job, self.context, study, trials) as ahead,
            _allowed(job, self.folder.name) as allowed,
        ):
            searcher = StudySearcher(
                study,
                ahead,
                trials=trials,
                allowed=allowed,
                limit_s=job.budget.trial_minutes * 60,
                scratch=self.folder.scratch,
                finished=self._account,
                monitor=monitor,
                judge=strategy.judge(job, self.context, study, self._guide),
                adrift=head.died,
                many=on_cluster(),
                last_phase=lambda: _last_phase(job, study, monitor),
            )
            stopper = _Stopper(searcher, self.purse, monitor)
            then = f"paretrim resume {self.folder.name}"
            with _interruptible(stopper), head.watched(then, lambda: stopper.interrupted), searcher.writing():
                self._tune(searcher, stopper, head, allowed)
            died = "" if searcher.closing else head.dead()
            if died:
                searcher.give_back()
            ended = self.purse.why_over() or self.purse.why_enough()
            return Outcome(stopper.interrupted, ended, searcher.fatal, searcher.unwritten), died

    def _tune(self, searcher: StudySearcher, stopper: _Stopper, head: Head, allowed: Callable[[], int]) -> None:
        try:
            _tune(self.job, self.context, searcher, stopper, self.folder, self.actor, allowed)
        except Exception:
            # Whatever Tune says of a Ray that has died, its trials are made again.
            if not head.died():
                raise

    def _account(self, record: TrialRecord) -> None:
        self.backlog.log(record)
        self._bound(record)
        # With every trial, so that a death costs the account no more than the trials under way.
        self.study.note("wall_seconds", self._wall_s + time.monotonic() - self._started)

    def _bound(self, record: TrialRecord) -> None:
        """Let go of artifacts off the front when a share of what may stay has come anew."""
        self._new_bytes += record.metrics.get("size_bytes", 0.0)
        if self._new_bytes > housekeeping.SHARE * self.job.storage.keep_mb * 1e6:
            housekeeping.trim(self.job, self.study.records(), self.study.objectives, self.folder)
            self._new_bytes = 0.0


def _last_phase(job: Job, study: Study, monitor: Monitor) -> None:
    """Queue the finalists' trials that are not in the study yet.

    The finalists are chosen once for all trials that the search has when it comes to its end, and noted; whatever dies
    after that, the trials are the same again, and those that the study lacks are queued.
    """
    records, settings = study.records(), job.search.finals
    searched, known = sum(record.kind != FINAL for record in records), {record.number: record for record in records}
    noted: dict[str, Any] = study.noted(_FINALISTS, {"after": 0, "numbers": []})
    numbers = list(noted["numbers"])
    if noted["after"] != searched:
        best = longer.finalists(records, study.objectives, job.bounds, settings)
        numbers += [record.number for record in best if record.number not in numbers]
        study.note(_FINALISTS, {"after": searched, "numbers": numbers})
    if study.append(FINAL, longer.recipes([known[number] for number in numbers], settings, job.seed)):
        names = ", ".join(str(number) for number in numbers[len(noted["numbers"]) :] or numbers)
        monitor.say(
            f"training the points of trials {names} {settings.longer:g} times as long, from {settings.seeds} seeds each"
        )


def _ahead(job: Job, context: TrialContext, study: Study, trials: int) -> Ahead:
    processes = job.budget.parallel * job.budget.trial_workers
    plan = cores.plan(cores.usable(), processes, context.stations[0].address.settings.threads)
    lane = Lane(yielding=not plan.spare)
    return Ahead(study, context.space, job.budget.parallel, trials, lane.working)


@contextlib.contextmanager
def _allowed(job: Job, name: str) -> Iterator[Callable[[], int]]:
    """Yield what tells how many trials may be under way: all on a Ray of one's own, a share on that of a cluster."""
    budget = job.budget
    if not on_cluster():
        yield lambda: budget.parallel
        return
    allowance = Allowance(name, job.priority, budget.parallel, share_of(budget))
    try:
        yield allowance
    finally:
        allowance.end()


def _tune(
    job: Job,
    context: TrialContext,
    searcher: StudySearcher,
    stopper: _Stopper,
    folder: JobFolder,
    actor: type[tune.Trainable],
    allowed: Callable[[], int],
) -> None:
    budget = job.budget
    share = share_of(budget)
    trainable = tune.with_parameters(
        actor,
        sealed=sealed(context),
        scratch=folder.scratch,
        limit_s=job.budget.trial_minutes * 60,
        berth=Berth(share, budget.parallel, not on_cluster(), folder.code if folder.code.exists() else None),
        crew=max(1, min(allowed(), searcher.left(), room(share))),
        staff=staff_of(job, context),
    )
    tuner = tune.Tuner(
        # Those of its training workers too: a trial that has begun never waits for them.
        tune.with_resources(trainable, {"cpu": share.cpus, **({"gpu": share.gpus} if share.gpus else {})}),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=HalvingScheduler(searcher.judge, allowed, searcher.failed),
            num_samples=-1,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(folder.scratch),
            verbose=0,
            stop=stopper,
            failure_config=tune.FailureConfig(max_failures=0),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
        ),
    )
    # Trials that wait for their processes were asked for before others could tell anything; but of many workers, one after
    # the other would take long to start.
    if on_cluster():
        # While others have all of the cluster, Tune would wait ten minutes for a trial, and look at nothing else meanwhile.
        TuneController._update_trial_queue.__defaults__ = (False, _WAIT_S)
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(min(_MOST_WAITING, max(1, budget.parallel // 4)))
    try:
        tuner.fit()
    except tune.TuneError as error:
        # Not of a trial that failed: of the search's own code, in whose error Tune has stumbled.
        raise _first(error) from None


def _first(error: BaseException) -> BaseException:
    """Return the error that was being handled when others came up."""
    while error.__context__ is not None and not error.__suppress_context__:
        error = error.__context__
    return error


class _Stopper(tune.Stopper):  # type: ignore[misc]
    """Ends a run at once on Ctrl-C; when enough is spent, lets the trials under way end and starts no more."""

    def __init__(self, searcher: StudySearcher, purse: Purse, monitor: Monitor) -> None:
        self._searcher, self._purse, self._monitor = searcher, purse, monitor
        self._told: set[str] = set()
        self.interrupted = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:  # noqa: ARG002 - Tune's protocol
        return False

    def stop_all(self) -> bool:
        over, enough = self._purse.why_over(), self._purse.why_enough()
        if over:
            self._searcher.closing = True
            self._tell(f"no more trials are started: {over}")
        elif enough and enough not in self._told:
            self._searcher.stop_searching()
            self._tell(enough)
        self._searcher.look_round()
        if self.interrupted:
            self._tell("stopping; press Ctrl-C again to end at once")
        return self._searcher.stopping

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._monitor.say(text)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # for Tune's snapshots, which nothing reads

    def interrupt(self) -> None:
        """End the run at the next turn of Tune's loop."""
        self.interrupted = self._searcher.stopping = True


@contextlib.contextmanager
def _interruptible(stopper: _Stopper) -> Iterator[None]:
    """Let the first Ctrl-C end the run in order, and a second one at once.

    So does SIGTERM, and no second one ends it at once: whoever ends a whole group of processes often sends two in a row.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_interrupt(signum: int, frame: Any) -> None:  # noqa: ARG001 - as the signal module asks
        if stopper.interrupted and signum == signal.SIGINT:
            raise KeyboardInterrupt
        stopper.interrupt()

    before = {number: signal.signal(number, on_interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
