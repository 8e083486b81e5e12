"""The driver: Ray Tune runs the trials of a study until its budget is used."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

# Set before Ray is imported: no loggers of Tune's own (they cost more than a short trial), no usage report.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", "1")
os.environ.setdefault("TUNE_FORCE_TRIAL_CLEANUP_S", "2")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray import tune

from paretrim.errors import ParetrimError
from paretrim.evaluators import cores
from paretrim.evaluators.lane import Lane
from paretrim.search import longer, strategy
from paretrim.search.actor import TrialActor
from paretrim.search.ahead import Ahead
from paretrim.search.context import TrialContext
from paretrim.search.job import Job
from paretrim.search.longer import FINAL
from paretrim.search.monitor import Monitor
from paretrim.search.purse import Purse
from paretrim.search.scheduler import HalvingScheduler
from paretrim.search.searcher import StudySearcher
from paretrim.search.store import JobFolder
from paretrim.search.study import BEFORE, Study
from paretrim.tracking.records import TrialRecord
from paretrim.tracking.tracker import Tracker

# The name of a note: the finalists of the last phase, and after how many trials they were chosen.
_FINALISTS = "finalists"


@dataclass
class Backlog:
    """Logs trials as they end, and again later those that could not be logged then."""

    tracker: Tracker
    monitor: Monitor
    waiting: list[TrialRecord] = field(default_factory=list)

    def log(self, record: TrialRecord) -> None:
        """Log a trial and all that wait; a server that is away costs nothing but a line."""
        self.waiting.append(record)
        self.flush()

    def flush(self) -> None:
        """Log what waits, until the first failure."""
        while self.waiting:
            try:
                self.tracker.log_trial(self.waiting[0])
            except ParetrimError as error:
                if len(self.waiting) == 1:
                    self.monitor.say(f"{error}; it is kept in the study and logged later")
                return
            self.waiting.pop(0)


@dataclass(frozen=True)
class Outcome:
    """How a run of the driver ended.

    Attributes:
        interrupted: Whether Ctrl-C ended it.
        ended: Why it ended before its trials were used up, empty otherwise.
        fatal: Why it could not go on, empty otherwise.
    """

    interrupted: bool
    ended: str = ""
    fatal: str = ""


def drive(
    job: Job,
    context: TrialContext,
    study: Study,
    backlog: Backlog,
    folder: JobFolder,
    monitor: Monitor,
    actor: type[TrialActor] = TrialActor,
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
    guide = strategy.guide(job, context, study)
    study.follow(guide)
    folder.scratch.mkdir(exist_ok=True)
    before, started = float(study.noted("wall_seconds", 0.0)), time.monotonic()
    folder.stop.unlink(missing_ok=True)
    spent_s = float(study.noted(BEFORE, 0.0))
    purse = Purse(job.budget, study.objectives, job.bounds, folder.stop, spent_s, study.records)
    study.put_first(FINAL)
    trials = job.budget.trials + study.count(FINAL)
    with _ray(job), _ahead(job, context, study, trials) as ahead:
        searcher = StudySearcher(
            study,
            ahead,
            trials=trials,
            parallel=job.budget.parallel,
            limit_s=job.budget.trial_minutes * 60,
            scratch=folder.scratch,
            finished=lambda record: _account(record, study, backlog, before + time.monotonic() - started),
            monitor=monitor,
            judge=strategy.judge(job, context, study, guide),
            last_phase=lambda: _last_phase(job, study, monitor),
        )
        stopper = _Stopper(searcher, purse, monitor)
        with _interruptible(stopper):
            _tune(job, context, searcher, stopper, folder, actor)
        return Outcome(stopper.interrupted, purse.why_over() or purse.why_enough(), searcher.fatal)


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


def _account(record: TrialRecord, study: Study, backlog: Backlog, wall_seconds: float) -> None:
    backlog.log(record)
    # With every trial, so that a death costs the account no more than the trials under way.
    study.note("wall_seconds", wall_seconds)


def _ahead(job: Job, context: TrialContext, study: Study, trials: int) -> Ahead:
    plan = cores.plan(cores.usable(), job.budget.parallel, context.stations[0].address.settings.threads)
    lane = Lane(yielding=not plan.spare)
    return Ahead(study, context.space, job.budget.parallel, trials, lane.working)


def _tune(
    job: Job,
    context: TrialContext,
    searcher: StudySearcher,
    stopper: _Stopper,
    folder: JobFolder,
    actor: type[TrialActor],
) -> None:
    trainable = tune.with_parameters(
        actor,
        context=context,
        scratch=folder.scratch,
        limit_s=job.budget.trial_minutes * 60,
        workers=job.budget.parallel,
    )
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=HalvingScheduler(searcher.judge, job.budget.parallel),
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
    with contextlib.suppress(tune.TuneError):
        # Trials that failed are in the study with their causes; Tune's own account of them says no more.
        tuner.fit()


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
        if self.interrupted:
            self._tell("stopping; press Ctrl-C again to end at once")
        return self.interrupted

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
    """Let the first Ctrl-C end the run in order, and a second one at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_interrupt(signum: int, frame: Any) -> None:  # noqa: ARG001 - the signal module's protocol
        if stopper.interrupted:
            raise KeyboardInterrupt
        stopper.interrupt()

    before = {number: signal.signal(number, on_interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _ray(job: Job) -> Iterator[None]:
    """Start Ray on this machine for the time of a run, unless the caller has started it."""
    if ray.is_initialized():
        yield
        return
    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    with _import_path_of_workers(job):
        ray.init(
            address="local",
            num_cpus=job.budget.parallel,
            num_gpus=0,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
        )
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _import_path_of_workers(job: Job) -> Iterator[None]:
    """Let workers find the user's modules before anything is unpickled in them."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(job.folder), *([before] if before else [])])
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
