"""Starting and going on with a search, from a job to its result."""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import gettempdir

from paretrim.errors import NothingFoundError, ResumeError, TrialError
from paretrim.evaluators.accuracy import AccuracyEvaluator
from paretrim.evaluators.served import served
from paretrim.search import finals, housekeeping, prepare, reach, searched
from paretrim.search.backlog import Backlog
from paretrim.search.choice import choose
from paretrim.search.context import TrialContext
from paretrim.search.costs import with_costs
from paretrim.search.driver import drive
from paretrim.search.job import Job
from paretrim.search.knowledge import with_knowledge
from paretrim.search.longer import FINAL
from paretrim.search.monitor import Monitor, Outline
from paretrim.search.ownership import with_own_code
from paretrim.search.places import Places, chosen
from paretrim.search.profiles import Profiles
from paretrim.search.result import Result, artifact_of, has_artifact, objectives_of, open_result
from paretrim.search.room import unwritable, writable
from paretrim.search.space import Space
from paretrim.search.staff import check_room
from paretrim.search.station import StationPlan
from paretrim.search.store import JobFolder, Store
from paretrim.search.study import BEFORE, FINISHED, INTERRUPTED, SCHEMA, STATE, UNDER_WAY, Study
from paretrim.tracking.apart import ApartTracker, apart
from paretrim.tracking.front import feasible
from paretrim.tracking.tracker import Chosen, Summary, Tracker
from paretrim.tracking.view import View

# Ours among the temporary folders, whose names end in eight random letters; nothing needs one for a day.
_TEMPORARY, _OLD_S = "paretrim-????????", 86_400.0


@dataclass(frozen=True)
class Search:
    """All the parts of a search that is about to run."""

    job: Job
    subject: prepare.Subject
    context: TrialContext
    study: Study
    tracker: Tracker
    store: Store
    folder: JobFolder


def start(job: Job, store: Store, monitor: Monitor, name: str | None = None) -> Result:
    """Run a new search.

    Args:
        job: What to search.
        store: Where it shall lie.
        monitor: Shown what goes on.
        name: What the search is called, where that was decided before; its code is kept with it then. By default the
            job's name with a number.

    Raises:
        UsageError: The job's model, data or constraints do not do, or its space cannot meet these.
        LoweringError: The model does not export.
        StoreError: The store cannot be written.
    """
    with writable(store.root, "start the search again"):
        return _start(job, store, monitor, name)


def _start(job: Job, store: Store, monitor: Monitor, name: str | None) -> Result:
    where = chosen(store.root, job.storage.study, job.storage.tracking)
    check_room(job)
    monitor.say("loading the model and the data")
    subject = prepare.load(job)
    folder = store.create(job.name) if name is None else store.named(name)
    with folder.driven():
        try:
            own = job if name is None else with_own_code(job, folder)
            return _begin(own, subject, store, folder, where, monitor)
        finally:
            if not folder.started.exists():
                shutil.rmtree(folder.path, ignore_errors=True)


def _begin(
    job: Job, subject: prepare.Subject, store: Store, folder: JobFolder, where: Places, monitor: Monitor
) -> Result:
    with _tracker(job, subject.space, folder, where) as tracker:
        monitor.say(f"{folder.name}: lowering the baseline")
        context = with_costs(prepare.prepare(job, subject, folder, {}, monitor.say))
        tracker.ready()
        study = _new_study(job, subject, folder, where)
        study.note("channel_ms", context.channel_ms)
        study.note("references", {each.name: each.reference_ms for each in context.stations})
        study.note(BEFORE, context.teaching_seconds)
        context = with_knowledge(job, subject, context, study, store, monitor)
        reach.check(job, context, monitor.say)
        store.mark_started(folder, where)
        return _run(Search(job, subject, context, study, tracker, store, folder), monitor)


def go_on(name: str | None, store: Store, monitor: Monitor, budget: Mapping[str, object] | None = None) -> Result:
    """Go on with a search that was interrupted, or whose budget is now larger.

    Args:
        name: Name of the search; None for the latest.
        store: Where it lies.
        monitor: Shown what goes on.
        budget: Fields of the budget to change, such as ``{"trials": 100}``.

    Raises:
        UnknownJobError: There is no such search.
        ResumeError: The model, the data or the space has changed since.
        StoreError: The store cannot be written.
    """
    with writable(store.root, f"go on with: paretrim resume {name or ''}".rstrip()):
        return _go_on(name, store, monitor, budget or {})


def _go_on(name: str | None, store: Store, monitor: Monitor, budget: Mapping[str, object]) -> Result:
    result = open_result(name, store)
    job = result.job.with_budget(budget)
    check_room(job)
    with result.folder.driven():
        monitor.say(f"{result.name}: loading the model and the data")
        subject = prepare.load(job)
        study = result.reopen()
        check_unchanged(study.noted("fingerprints", {}), subject.fingerprints, result.name)
        references = study.noted("references", {})
        with _tracker(job, subject.space, result.folder, result.folder.places) as tracker:
            context = prepare.prepare(job, subject, result.folder, references, monitor.say)
            context = replace(context, channel_ms=study.noted("channel_ms", {}))
            tracker.ready()
            study.note("job", job.model_dump(mode="json"))
            context = with_knowledge(job, subject, context, study, store, monitor)
            return _run(Search(job, subject, context, study, tracker, store, result.folder), monitor)


def _new_study(job: Job, subject: prepare.Subject, folder: JobFolder, where: Places) -> Study:
    objectives = objectives_of(job, subject.metric.maximize)
    study = Study(where.study_url, folder.name, objectives, job.bounds, job.seed, create=True)
    study.note("schema", SCHEMA)
    study.note("job", job.model_dump(mode="json"))
    study.note("fingerprints", subject.fingerprints)
    study.note("maximize", subject.metric.maximize)
    study.begin(subject.space.anchors(job.seed))
    return study


def _run(search: Search, monitor: Monitor) -> Result:
    with writable(search.store.root, _then(search.folder)):
        _tidy(search.folder)
        return _run_to_its_end(search, monitor)


def _then(folder: JobFolder) -> str:
    return f"go on with: paretrim resume {folder.name}"


def _tidy(folder: JobFolder) -> None:
    """Delete what processes left that were killed."""
    shutil.rmtree(folder.scratch, ignore_errors=True)
    for path in Path(gettempdir()).glob(_TEMPORARY):
        with suppress(FileNotFoundError):  # another search has just deleted it
            found = path.lstat()
            old = time.time() - found.st_mtime > _OLD_S
            ours = found.st_uid == os.getuid() and path.name != f"paretrim-{os.getuid()}"  # the lane's
            if old and ours and stat.S_ISDIR(found.st_mode):
                shutil.rmtree(path, ignore_errors=True)
    for path in (*folder.artifacts.glob("*.partial"), *folder.artifacts.glob("*.partial.npz")):
        path.unlink(missing_ok=True)


def _run_to_its_end(search: Search, monitor: Monitor) -> Result:
    job, study = search.job, search.study
    backlog = _what_is_not_logged(search, monitor)
    objectives = objectives_of(job, search.subject.metric.maximize)
    outline = Outline(
        search.folder.name,
        job.metric_name,
        objectives,
        job.bounds,
        job.budget.trials + study.count(FINAL),
        job.budget.minutes,
    )
    monitor.begin(outline, study.records())
    if study.noted("tested_after") is not None and len(study.records()) < job.budget.trials:
        monitor.say("this search goes on after its test data was seen once; that is noted in its summary")
    study.note(STATE, UNDER_WAY)
    study.note(searched.NOTE, searched.to_plain(search.context.space.searched))
    outcome = drive(job, search.context, study, backlog, search.folder, monitor)
    shutil.rmtree(search.folder.scratch, ignore_errors=True)
    if outcome.unwritten:
        raise unwritable(search.store.root, outcome.unwritten, _then(search.folder))
    if outcome.fatal:
        raise TrialError(
            f"the baseline failed, so nothing can be compared with it: {outcome.fatal}\n"
            f"mend the cause and try again with: paretrim resume {search.folder.name}"
        )
    result = Result(search.folder.name, job, search.store, search.folder, study, outcome)
    if not outcome.interrupted:
        for name in job.targets:
            _finish(search, result.on(name), monitor)
    backlog.flush()
    _summarize(search, result, monitor)
    if not outcome.interrupted:
        _let_go(result, monitor)
    study.note(STATE, INTERRUPTED if outcome.interrupted else FINISHED)
    return result


def _what_is_not_logged(search: Search, monitor: Monitor) -> Backlog:
    logged = search.tracker.logged()
    backlog = Backlog(search.tracker, monitor, [r for r in search.study.records() if r.number not in logged])
    backlog.flush()
    return backlog


def _finish(search: Search, result: Result, monitor: Monitor) -> None:
    """Time the front again, now that nothing trains, and score it on the test split."""
    plan = next(each for each in search.context.stations if each.name == result.target)
    monitor.say(f"timing the front again on {plan.name}, point against point")
    finals.settle(result, plan, search.subject.splits.search.validation, monitor.say)
    finals.compare(result, plan, search.subject.metric, search.subject.splits.search.validation)
    monitor.say("scoring the front on the held-out test data")
    _score_test(search.subject, plan, result)


def _let_go(result: Result, monitor: Monitor) -> None:
    """Delete artifacts off the front past the job's limit."""
    limit = result.job.storage.keep_mb
    freed = housekeeping.free(result, int(limit * 1e6))
    if freed:
        monitor.say(
            f"deleted {freed / 1e6:,.0f} MB of artifacts off the front, since storage.keep_mb is {limit:g}; make one again with: "
            f"paretrim replay {result.name} TRIAL"
        )


def _score_test(subject: prepare.Subject, plan: StationPlan, result: Result) -> None:
    """Score the front, and the baseline beside it, on the test split; scores are kept by artifact."""
    report, study = result.report, result.study
    if report is None:
        return
    scores = dict(result.test_scores)
    evaluator = AccuracyEvaluator(subject.metric, subject.splits.test.unseal(), plan.output_shape)
    for row in (report.baseline, *report.front):
        if row.sha256 not in scores and has_artifact(result, row.trial):
            with artifact_of(result, row.trial).unpacked() as path, served(plan.address, path) as session:
                scores[row.sha256] = evaluator.score(session).value
    result.keep_test_scores(scores)
    if study.noted("tested_after") is None:
        study.note("tested_after", len(study.records()))


def _summarize(search: Search, result: Result, monitor: Monitor) -> None:
    report = result.report
    if report is None:
        return
    records, base = result.records, report.baseline
    reference = {**base.validation, **base.metrics}
    meets = frozenset(r.number for r in records if r.complete and feasible(r.metrics, result.job.bounds, reference))
    tested = result.study.noted("tested_after")
    notes = {"job": result.name, "state": "interrupted" if result.interrupted else "finished"}
    if tested is not None and tested < len(records):
        notes["test"] = f"the test data was first seen after {tested} trials; the search went on to {len(records)}"
    # Of a search that was interrupted nothing was timed for good, so nobody's champion is replaced.
    picked, models = (None, ()) if result.interrupted else _chosen(result, monitor)
    summary = Summary(
        report,
        records,
        meets,
        result.figures(),
        notes,
        Profiles(search.store).kept(search.job, search.subject) or search.context.sensitivity,
        result.progress,
        result.importance,
        result.job.bounds,
        picked,
        models,
        result.job.name,
    )
    try:
        search.tracker.log_summary(summary)
    except Exception as error:  # noqa: BLE001 - the result stands without its summary, which `resume` writes again
        monitor.say(f"{error}; `paretrim resume {result.name}` logs it again")


def _chosen(result: Result, monitor: Monitor) -> tuple[int | None, tuple[Chosen, ...]]:
    """Return the trial that is exported by default, and the models that are registered."""
    try:
        return choose(result)
    except NothingFoundError:
        return None, ()
    except Exception as error:  # noqa: BLE001 - the summary stands without them
        monitor.say(f"no models are registered: {type(error).__name__}: {error}")
        return None, ()


def _tracker(job: Job, space: Space, folder: JobFolder, where: Places) -> AbstractContextManager[ApartTracker]:
    costs = [name for name in job.objectives if name != job.metric_name]
    view = View(job.metric_name, costs, [dimension.name for dimension in space.searched])
    return apart(where.tracking_uri, folder.name, where.tracking_artifacts, view)


def check_unchanged(before: Mapping[str, str], now: Mapping[str, str], name: str) -> None:
    """Check that a search's model, data and space are what they were.

    Raises:
        ResumeError: One of them has changed; says which.
    """
    changed = [part for part, value in now.items() if before.get(part) != value]
    if changed:
        raise ResumeError(
            f"{name} cannot go on: its {' and '.join(changed)} changed since it was started, so new trials could not be "
            "compared with the old ones; restore what changed, or start a new search (a larger budget is fine)"
        )
