"""What a job's strategy comes to: who proposes recipes, and who stops trials early."""

from __future__ import annotations

from paretrim.search.context import TrialContext
from paretrim.search.guide import Guide, Habits
from paretrim.search.halving import Halving
from paretrim.search.job import Job
from paretrim.search.judge import Judge, Lenient, Terms, Thrift
from paretrim.search.samplers import AUTO
from paretrim.search.study import Study
from paretrim.spaces.dimension import Choice

# Recipes that are asked for from the sensitivity alone; more would only repeat its errors.
_FIRST = 3


def guide(job: Job, context: TrialContext, study: Study) -> Guide | None:
    """Return who proposes recipes before the sampler does, if anybody."""
    if not job.search.warm_start:
        return None
    habits = Habits(
        first=max(_FIRST, job.budget.parallel),
        batch=job.budget.parallel,
        seed=job.seed,
        share=job.search.share,
        ends=job.sampler != AUTO,
        parallel=job.budget.parallel,
    )
    return Guide(context.space, _terms(job, study), context.sensitivity, habits, (*context.earlier, *context.looks))


def judge(job: Job, context: TrialContext, study: Study, guide: Guide | None) -> Judge:
    """Return who stops trials early."""
    if not job.search.preview:
        return Lenient()
    counts = next(d for d in context.space.dimensions if d.name == "recovery.epochs")
    longest = max((v for v in counts.values if isinstance(v, int)), default=0) if isinstance(counts, Choice) else 0
    halving = None if job.search.halving == "off" else Halving(longest, job.search.halving)
    return Thrift(_terms(job, study), halving, study.records(), guide.hope if guide is not None else None)


def _terms(job: Job, study: Study) -> Terms:
    return Terms(job.metric_name, study.objectives, job.bounds)
