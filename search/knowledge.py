"""What a search knows before its first trial: the model's sensitivity, looks at the far end, and an earlier search."""

from __future__ import annotations

import time
from dataclasses import replace

from paretrim.errors import UsageError
from paretrim.search import prepare
from paretrim.search.context import TrialContext
from paretrim.search.job import Job
from paretrim.search.looks import look
from paretrim.search.monitor import Monitor
from paretrim.search.profile import glance
from paretrim.search.profiles import Profiles
from paretrim.search.result import Result, open_result
from paretrim.search.store import Store
from paretrim.search.study import BEFORE, Study
from paretrim.tracking.records import BASELINE, TrialRecord
from paretrim.tracking.sensitivity import Profile


def with_knowledge(
    job: Job, subject: prepare.Subject, context: TrialContext, study: Study, store: Store, monitor: Monitor
) -> TrialContext:
    """Return a context with what is known before any trial, which is taken once and noted with the study.

    Raises:
        UsageError: The earlier search that the job names is of something else.
    """
    earlier = () if job.earlier is None else tuple(_usable(open_result(job.earlier, store), subject, job))
    if not job.search.warm_start:
        return replace(context, earlier=earlier)
    text = study.noted("sensitivity")
    if text is None:
        monitor.say("looking at what each knob does alone")
        since = time.monotonic()
        text = (Profiles(store).kept(job, subject) or glance(context, monitor.say)).to_json()
        study.note("sensitivity", text)
        study.note(BEFORE, float(study.noted(BEFORE, 0.0)) + time.monotonic() - since)
    sensitivity = Profile.from_json(text)
    seen = study.noted("looks")
    if seen is None and sensitivity is not None:
        monitor.say("looking at what the strongest recipes cost, untrained")
        seen = [record.to_json() for record in look(context, sensitivity)]
        study.note("looks", seen)
    looks = tuple(TrialRecord.from_json(each) for each in seen or ())
    return replace(context, sensitivity=sensitivity, earlier=earlier, looks=looks)


def _usable(result: Result, subject: prepare.Subject, job: Job) -> list[TrialRecord]:
    """Return the trials of an earlier search whose recipes this one's space allows.

    Raises:
        UsageError: That search was of another model or data, or had another metric or target.
    """
    before = result.study.noted("fingerprints", {})
    other = [part for part in ("model", "data") if before.get(part) != subject.fingerprints[part]]
    other += ["metric"] if result.job.metric_name != job.metric_name else []
    other += ["target"] if result.job.target.settings != job.target.settings else []
    if other:
        raise UsageError(
            f"from: {result.name} is of another {' and another '.join(other)}, so nothing can be learned from it; name a "
            "search of the same model, data, metric and target, or leave `from` out"
        )
    knobs = {d.name: d for d in subject.space.dimensions}

    def fits(record: TrialRecord) -> bool:
        # Without that search's own baseline nothing is known of bounds relative to it.
        return record.kind == BASELINE or all(
            name in knobs and (knobs[name].allows(value) or value == knobs[name].neutral)
            for name, value in record.recipe.items()
        )

    return [record for record in result.records if record.state != "failed" and fits(record)]
