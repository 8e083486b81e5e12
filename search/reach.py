"""Whether the space can meet the hard bounds on costs, told before anything is trained.

Latency, memory and size are known of an untrained artifact. So the recipes that are predicted to cost least are made,
measured and learned from, a few for each bound that neither the baseline nor the plain anchors meet. Whether a bound on a
cost goes together with one on the score, nobody knows before training, and nothing is said of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from paretrim.errors import JobError, ParetrimError, Problem
from paretrim.evaluators.lane import Lane
from paretrim.search import reach_words
from paretrim.search.context import TrialContext
from paretrim.search.encoding import Encoding
from paretrim.search.evolution import evolve
from paretrim.search.extremes import smallest
from paretrim.search.gate import best_case
from paretrim.search.job import Job, impossible
from paretrim.search.judge import SEARCHED, Terms
from paretrim.search.prior import Prior
from paretrim.search.profile import glance
from paretrim.search.station import Station
from paretrim.search.surrogate import Surrogate
from paretrim.search.workshop import Workshop
from paretrim.spaces.dimension import Value
from paretrim.spaces.recipe import Recipe
from paretrim.tracking.constraints import Constraint, hard
from paretrim.tracking.front import Objective, baseline_metrics
from paretrim.tracking.records import BASELINE, Preview, TrialRecord
from paretrim.tracking.sensitivity import Profile

Floats = npt.NDArray[np.float64]
Group = tuple[Constraint, ...]
"""Bounds that are to be met together."""

# Recipes that are made for each bound, beside the anchors.
_TRIES = 3
# A bound is given up only when the nearest artifact breaks it by more than this share of it, even in its best case; and
# when it is predicted that no other recipe meets it, unless the share is so large that predictions of that are not believed.
_CLEARLY, _FAR = 0.25, 1.0


@dataclass(frozen=True)
class Found:
    """What comes nearest to some bounds.

    Attributes:
        bounds: They.
        recipe: That of the nearest artifact.
        values: What was measured of it, untrained.
        floor: What it would come out at in the best case after training.
        limits: The bounds as numbers, by the metric.
        tried: How many recipes were measured.
        hopeless: Whether it is so far off that nothing else will meet them either.
    """

    bounds: Group
    recipe: Recipe
    values: Mapping[str, float]
    floor: Mapping[str, float]
    limits: Mapping[str, float]
    tried: int
    hopeless: bool


def check(job: Job, context: TrialContext, say: Callable[[str], None]) -> None:
    """Check whether the space can meet the job's hard upper bounds on costs, each alone and all together.

    Costs seconds for a bound that the anchors do not meet, and nothing where there is none, or candidates are not measured
    before their training.

    Args:
        job: The job.
        context: What its trials share.
        say: Told of bounds that are only predicted not to be met.

    Raises:
        JobError: A bound is out of reach; says by how much, with which recipe, and what to do.
    """
    limits = [c for c in hard(job.bounds) if c.upper]
    if not job.search.preview or not limits:
        return
    with TemporaryDirectory(prefix="paretrim-") as folder:
        survey = _Survey(job, context, limits, Path(folder))
        wrong = list(impossible(job.bounds, survey.base, ()))
        if wrong:
            raise JobError([Problem(("constraints",), text) for text in wrong], "with what the baseline costs, the job")
        misses = [found for group in survey.groups if (found := survey.look_into(group, say)) is not None]
    absent = reach_words.absent_techniques(context.space)
    hopeless = [found for found in misses if found.hopeless]
    if hopeless:
        problems = [Problem(("constraints",), reach_words.out_of_reach(f, context.space, absent)) for f in hopeless]
        raise JobError(problems, "as measured before any training, the job")
    for found in misses:
        say(reach_words.doubtful(found, context.space))


class _Survey:
    """Makes and measures recipes, untrained, and predicts from them what others cost."""

    def __init__(self, job: Job, context: TrialContext, limits: Sequence[Constraint], folder: Path) -> None:
        self._job, self._context, self._folder = job, context, folder
        lane = Lane()
        self._workshop = Workshop(context, lane)
        validation = context.splits.validation
        self._station = Station(context.stations[0], context.metric, validation, folder, lane)
        self._metrics = {c.metric for c in limits}
        self._records: list[TrialRecord] = []
        self._tried: set[tuple[tuple[str, Value], ...]] = set()
        self._anchors = context.space.anchors(job.seed)
        self._measure(BASELINE, self._anchors.pop(BASELINE))
        self.base = baseline_metrics(self._records)
        known = tuple(c for c in limits if c.metric in self.base)
        objectives = tuple(Objective(name, noise=job.noise(name)) for name in dict.fromkeys(c.metric for c in known))
        self._terms = Terms(job.metric_name, objectives, known)
        self._encoding = Encoding(context.space.searched, context.space.constants)
        self.groups: list[Group] = [(c,) for c in known] + ([known] if len(known) > 1 else [])

    def look_into(self, group: Group, say: Callable[[str], None]) -> Found | None:
        """Return what comes nearest to some bounds, or nothing when an artifact that was measured may meet them."""
        if self._least(group)[1] <= 0:
            return None
        say(f"looking for recipes that meet {' and '.join(repr(c.text) for c in group)}")
        for recipe in self._candidates(group):
            self._measure(SEARCHED, recipe)
            if self._least(group)[1] <= 0:
                return None
        nearest, excess = self._least(group)
        return Found(
            bounds=group,
            recipe=Recipe.of(nearest.recipe, nearest.seed),
            values=nearest.metrics,
            floor=self._floor(nearest),
            limits={c.metric: c.limit(self.base) for c in group},
            tried=len(self._records),
            hopeless=excess > _FAR or (excess > _CLEARLY and self._expected(group) > 0),
        )

    def _candidates(self, group: Group) -> Iterator[Recipe]:
        """Yield recipes that may meet some bounds, each when those before it were measured."""
        yield smallest(self._context.space, self._sensitivity, self._job.seed)
        yield from self._anchors.values()  # from which the predictions begin
        for _ in range(_TRIES - 1):
            found = self._promising(group)
            if found is not None:
                yield found

    def _measure(self, kind: str, recipe: Recipe) -> None:
        number = len(self._tried)
        if recipe.items in self._tried:
            return
        self._tried.add(recipe.items)
        try:
            model = self._workshop.begin(recipe).untrained()
            artifact = self._workshop.lowered(self._station.target, model, recipe, self._folder / str(number))
            preview = self._station.preview(artifact, self._metrics)
        except ParetrimError:
            if kind == BASELINE:
                raise
            return  # what cannot be made meets nothing
        self._records.append(TrialRecord(number, kind, "complete", recipe.values, recipe.seed, preview.measurements))

    def _floor(self, record: TrialRecord) -> dict[str, float]:
        """Return what an artifact costs in the best case, after training; the baseline is not trained."""
        if record.kind == BASELINE:
            return record.metrics
        return best_case(Preview(record.measurements), (), self._terms.objectives)

    def _least(self, group: Group) -> tuple[TrialRecord, float]:
        """Return what was measured that comes nearest, and by how much its best case breaks the bounds."""

        def excess(record: TrialRecord) -> float:
            floor = self._floor(record)
            return max(c.excess(floor, self.base) for c in group)

        nearest = min(self._records, key=excess)
        return nearest, excess(nearest)

    def _promising(self, group: Group) -> Recipe | None:
        """Return the recipe that is expected to break the bounds least, of those that were not made yet."""
        if not self._encoding.dimensions:
            return None
        rows, values = self._evolved(group)
        for at in np.argsort(values, kind="stable"):
            recipe = self._context.space.recipe(self._encoding.decode(rows[at]), self._job.seed)
            if recipe.items not in self._tried:
                return recipe
        return None

    def _expected(self, group: Group) -> float:
        """Return by how much any recipe is expected to break the bounds, as a logarithm."""
        return float(self._evolved(group)[1].min()) if self._encoding.dimensions else math.inf

    @cached_property
    def _sensitivity(self) -> Profile:
        return self._context.sensitivity or glance(self._context)

    def _evolved(self, group: Group) -> tuple[Floats, Floats]:
        """Return recipes that evolved towards the bounds, and the logarithm of how far beyond these they are."""
        prior = Prior(self._sensitivity, self._encoding)
        surrogate = Surrogate(self._terms, self._encoding, prior, self._job.seed)
        surrogate.learn(self._records)

        def beyond(rows: Floats) -> Floats:
            guess = surrogate.predict([self._encoding.decode(row) for row in rows])
            over = [guess.expected[c.metric] - math.log(c.limit(self.base)) for c in group]
            worst: Floats = np.max(over, axis=0)
            return worst[:, None]

        start = np.stack([self._encoding.encode(record.recipe) for record in self._records])
        rows, values = evolve(start, beyond, np.random.default_rng([self._job.seed, len(self._records)]))
        return rows, values[:, 0]
