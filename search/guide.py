"""The guide: asks first for the points of the predicted front, and then for what is predicted to add most to the real one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, cycle, pairwise

import numpy as np
import numpy.typing as npt

from paretrim.search.encoding import Encoding, stack
from paretrim.search.evolution import evolve
from paretrim.search.extremes import ladder
from paretrim.search.judge import SEARCHED, Terms
from paretrim.search.parents import phases
from paretrim.search.prior import Prior
from paretrim.search.space import Space
from paretrim.search.surrogate import Guess, Surrogate
from paretrim.spaces.dimension import Range, Value
from paretrim.spaces.recipe import Recipe
from paretrim.tracking.constraints import misses
from paretrim.tracking.front import baseline_metrics, feasible, normalized, trial_front, volume
from paretrim.tracking.records import TrialRecord
from paretrim.tracking.sensitivity import Profile

Floats = npt.NDArray[np.float64]
Values = dict[str, Value]

# How far above the expected score a recipe is hoped to come, in standard deviations, in one batch and in the next: what is
# expected gains most at once, and hopes find what nobody expected.
_HOPES = (0.0, 1.0)
_ELITE, _SIBLINGS = 20, 60
# What a recipe costs whose parent is trained already, beside one that begins from nothing.
_SIBLING_COST = 0.6
_DEAR = 1.0
_LEAST_GAIN = 1e-7
# So many trials have to end before the guide turns knobs of whose effect the profile knows nothing. Until then every second
# recipe has those that only train and do nothing at one end, such as the teacher's share in the loss, in the middle.
_FEW, _MIDDLE = 6, 0.5
# The first recipes go these shares of the way to the strongest one.
_LADDER = (1.0, 0.5)
# To miss a soft constraint is as bad as this share of breaking a hard one; missed by a tenth of its bound, a point must
# add twice as much to be chosen.
_SOFTLY, _DEARER = 0.05, 10.0
# Thinking may take this share of a worker's time; when even so many batches at once do not make it so, it is not worth it.
_SHARE, _MOST_BATCHES, _RECENT = 0.2, 4, 20


@dataclass(frozen=True)
class Habits:
    """How a guide goes about.

    Attributes:
        first: Recipes that are asked for before any but the anchors has been tried.
        batch: Recipes that are asked for at a time after that.
        turns: Of how many asks one is left to the sampler, so that the predictions' errors come to light.
        seed: Of what is random.
        share: Whether recipes that branch off from a common parent cost less.
        ends: Whether it has done its part when the first recipes are asked for.
        parallel: Trials at the same time.
    """

    first: int
    batch: int
    turns: int = 4
    seed: int = 0
    share: bool = True
    ends: bool = False
    parallel: int = 1


class Pace:
    """How long a guide thinks, beside how long trials take.

    Args:
        parallel: Trials at the same time.
    """

    def __init__(self, parallel: int) -> None:
        self._parallel = parallel
        self._own_s = 0.0

    def batches(self, records: Sequence[TrialRecord]) -> int:
        """Return how many batches to think of at once, so that thinking takes a small share of the trials' time."""
        recent = [sum(r.seconds.values()) for r in records[-_RECENT:] if r.kind == SEARCHED]
        if not recent or not self._own_s:
            return 1
        between_s = float(np.mean(recent)) / self._parallel
        return max(1, math.ceil(self._own_s / (_SHARE * max(between_s, 1e-6))))

    @contextmanager
    def clocked(self) -> Iterator[None]:
        """Take the time of thinking."""
        since = time.perf_counter()
        yield
        self._own_s = time.perf_counter() - since


class Guide:
    """Proposes recipes.

    Args:
        space: What is searched.
        terms: What recipes are compared by.
        profile: The model's sensitivity, or None.
        habits: How it goes about.
        earlier: Trials of an earlier search of the same model that are learned from.
    """

    def __init__(
        self, space: Space, terms: Terms, profile: Profile | None, habits: Habits, earlier: Sequence[TrialRecord] = ()
    ) -> None:
        self._space, self._terms, self._habits, self._earlier = space, terms, habits, tuple(earlier)
        self._encoding = Encoding(space.searched, space.constants)
        self._profile = profile
        self._prior = Prior(profile, self._encoding)
        self._surrogate = Surrogate(terms, self._encoding, self._prior, habits.seed)
        self._waiting: list[Values] = []
        self._daring = _HOPES[0]
        self._pace = Pace(habits.parallel)

    def propose(
        self, records: Sequence[TrialRecord], under_way: Sequence[Recipe], known: Callable[[Recipe], bool]
    ) -> Values | None:
        """Return the next recipe's searched values; None to leave it to the sampler, or while the baseline is not done.

        Args:
            records: All trials that ended.
            under_way: Recipes of trials that did not end yet.
            known: Whether a recipe was tried before.
        """
        if not self._encoding.dimensions or not baseline_metrics(records):
            return None
        begun = sum(r.kind == SEARCHED for r in records) + len(under_way)
        if not self._waiting and self._has_turn(begun, records):
            first = begun < self._habits.first
            count = self._habits.first - begun if first else self._habits.batch * self._pace.batches(records)
            with self._pace.clocked():
                self._waiting = self._batch(records, under_way, known, count)
        while self._waiting:
            values = self._waiting.pop(0)
            if not known(self._space.recipe(values, 0)):  # the sampler may have come upon it in the meantime
                return values
        return None

    def hope(self, records: Sequence[TrialRecord], recipe: Recipe, errors: float = 2.0) -> float | None:
        """Return the score that a recipe reaches at best, by what is predicted; None while that is not known."""
        if sum(r.kind == SEARCHED and r.complete for r in records) < 2 * len(self._terms.objectives):
            return None
        metric = next((o for o in self._terms.objectives if o.name == self._terms.metric), None)
        if metric is None or not self._surrogate.ready:
            return None
        guess = self._surrogate.predict([recipe.values])
        sign = 1.0 if metric.maximize else -1.0
        # Of what will be measured, as the scores are that it is held against.
        error = math.hypot(float(guess.error[metric.name][0]), self._surrogate.noise(metric.name))
        return float(guess.expected[metric.name][0]) + sign * errors * error

    def _has_turn(self, begun: int, records: Sequence[TrialRecord]) -> bool:
        if begun < self._habits.first:
            return True
        worth = self._pace.batches(records) <= _MOST_BATCHES
        return worth and not self._habits.ends and begun % self._habits.turns != 0

    def _all(self, records: Sequence[TrialRecord]) -> list[TrialRecord]:
        return [*self._earlier, *records]

    def _batch(
        self, records: Sequence[TrialRecord], under_way: Sequence[Recipe], known: Callable[[Recipe], bool], count: int
    ) -> list[Values]:
        self._surrogate.learn(self._all(records))
        self._daring = _HOPES[(len(records) + len(under_way)) // self._habits.batch % len(_HOPES)]
        base = baseline_metrics(records)
        generator = np.random.default_rng([self._habits.seed, len(records), len(under_way)])
        rows, _ = evolve(self._start(records, generator), lambda some: self._aims(some, base), generator)
        begun = sum(r.kind == SEARCHED for r in records) + len(under_way)
        settings = self._settings(records)
        bold = self._bold(records, known, _turned(settings, begun))[:count]
        pools = [self._fresh(_set(rows, each), known) for each in _turned(settings, begun + len(bold))]
        return bold + self._greedy(pools, records, under_way, count - len(bold))

    def _fresh(self, rows: Floats, known: Callable[[Recipe], bool]) -> list[Values]:
        """Return the different recipes of some rows that were not tried."""
        found: dict[tuple[tuple[str, Value], ...], Values] = {}
        for row in rows:
            values = self._encoding.decode(row)
            recipe = self._space.recipe(values, 0)
            if not known(recipe):
                found[recipe.items] = values
        return [*found.values()]

    def _bold(
        self, records: Sequence[TrialRecord], known: Callable[[Recipe], bool], turns: Sequence[Floats]
    ) -> list[Values]:
        """Return the recipes that tell how far recovery reaches, before anything else is known of that.

        The harshest trains fastest. Where the model recovers from it, it is worth more than any number of careful ones; where
        it does not, that was the cheapest way to learn so.
        """
        done = sum(r.kind == SEARCHED for r in self._all(records))
        if self._profile is None or done >= self._habits.first:
            return []
        steps = ladder(self._space, self._encoding, self._profile, _LADDER)
        rows = [_set(self._encoding.encode(values), turn) for values, turn in zip(steps, cycle(turns), strict=False)]
        return self._fresh(stack(rows), known)

    def _settings(self, records: Sequence[TrialRecord]) -> list[Floats]:
        """Return the values that knobs have by turns while nothing is known of them, NaN for all others; each ``(D,)``.

        One that always stands still tells nothing, and a teacher is worth much to some models and harms others.
        """
        dimensions = self._encoding.dimensions
        usual = np.full(len(dimensions), np.nan)
        if sum(r.kind == SEARCHED and r.complete for r in self._all(records)) >= _FEW:
            return [usual]
        for place, value in enumerate(self._encoding.encode({})):
            if place not in self._prior.places:
                usual[place] = value
        middle = usual.copy()
        for place, each in enumerate(dimensions):
            trains = self._prior.known and not self._prior.measures(each.name.partition(".")[0])
            if trains and isinstance(each, Range) and usual[place] in (0.0, 1.0):
                middle[place] = _MIDDLE
        return [usual] if np.array_equal(usual, middle, equal_nan=True) else [middle, usual]

    def _start(self, records: Sequence[TrialRecord], generator: np.random.Generator) -> Floats:
        """Return the recipes of the front, and others that would branch off from the parents of these."""
        objectives, constraints = self._terms.objectives, self._terms.constraints
        names = {o.name for o in objectives}
        # An earlier search may have had other objectives.
        earlier = [r for r in self._earlier if names <= r.metrics.keys()]
        fronts = (trial_front(each, objectives, constraints)[:_ELITE] for each in (records, earlier))
        elite = [self._encoding.encode(r.recipe) for front in fronts for r in front]
        branching = {part.name for part in self._space.techniques if part.branches}
        late = np.array([d.name.partition(".")[0] in branching for d in self._encoding.dimensions])
        siblings = [
            np.where(late, generator.random(len(late)), elite[i % len(elite)]) for i in range(_SIBLINGS) if elite
        ]
        return stack([*elite, *siblings]) if elite else np.zeros((0, len(self._encoding.dimensions)))

    def _aims(self, rows: Floats, base: Mapping[str, float]) -> Floats:
        """Return what evolution drives down: hoped-for objectives, and what breaks constraints worse than all else."""
        recipes = [self._encoding.decode(row) for row in rows]
        found = self._hoped(self._surrogate.predict(recipes), base)
        values = np.stack([found[o.name] * (-1.0 if o.maximize else 1.0) for o in self._terms.objectives], axis=1)
        broken = 1.0 - self._surrogate.fitness(recipes)
        for each in self._terms.constraints:
            if each.metric in found:
                over = [max(0.0, each.excess({each.metric: float(v)}, base)) for v in found[each.metric]]
                broken += np.array(over) * (_SOFTLY if each.soft else 1.0)
        spans = np.maximum(values.max(axis=0) - values.min(axis=0), 1e-12)
        aims: Floats = values + 10.0 * spans * broken[:, None]
        return aims

    def _hoped(self, guess: Guess, base: Mapping[str, float]) -> dict[str, Floats]:
        found = {}
        for o in self._terms.objectives:
            expected, error = guess.expected[o.name], guess.error[o.name]
            if o.name == self._terms.metric:
                hoped = expected + (self._daring if o.maximize else -self._daring) * error
                # A compressed model hardly beats the whole one: what a trend promises beyond that leads to large ones.
                found[o.name] = np.minimum(hoped, base[o.name]) if o.maximize else np.maximum(hoped, base[o.name])
            else:
                found[o.name] = np.exp(expected)
        return found

    def _greedy(
        self, pools: Sequence[list[Values]], records: Sequence[TrialRecord], under_way: Sequence[Recipe], count: int
    ) -> list[Values]:
        """Choose from each pool by turns what is predicted to add most to the hypervolume, on top of those before it."""
        recipes = [values for pool in pools for values in pool]
        if not recipes:
            return []
        base = baseline_metrics(records)
        taken = [
            self._point(r.metrics, base) for r in trial_front(records, self._terms.objectives, self._terms.constraints)
        ]
        taken += self._points(self._foreseen([dict(r.items) for r in under_way], base), base)
        foreseen = self._foreseen(recipes, base)
        points = self._points(foreseen, base)
        missed = [sum(misses(self._terms.constraints, each, base).values()) for each in foreseen]
        costs = [cost * (1.0 + _DEARER * m) for cost, m in zip(self._costs(recipes, records), missed, strict=True)]
        chosen: list[Values] = []
        ends = [*accumulate((len(pool) for pool in pools), initial=0)]
        left = [list(range(*each)) for each in pairwise(ends)]
        for turn in range(count):
            whole = _volume(taken)
            gains = {i: (_volume([*taken, points[i]]) - whole) / costs[i] for i in left[turn % len(left)]}
            best = max(gains, key=lambda i: gains[i], default=-1)
            if best < 0 or gains[best] <= _LEAST_GAIN:
                break
            chosen.append(recipes[best])
            taken.append(points[best])
            left[turn % len(left)].remove(best)
        return chosen

    def _foreseen(self, recipes: Sequence[Mapping[str, Value]], base: Mapping[str, float]) -> list[Mapping[str, float]]:
        if not recipes:
            return []
        found = self._hoped(self._surrogate.predict(recipes), base)
        return [{name: float(values[i]) for name, values in found.items()} for i in range(len(recipes))]

    def _points(self, metrics: Sequence[Mapping[str, float]], base: Mapping[str, float]) -> list[Floats]:
        names = {o.name for o in self._terms.objectives}
        limits = [c for c in self._terms.constraints if c.metric in names]
        # What is expected to break a constraint adds nothing.
        return [
            self._point(each, base) if feasible(each, limits, base) else np.full(len(self._terms.objectives), 2.0)
            for each in metrics
        ]

    def _point(self, metrics: Mapping[str, float], base: Mapping[str, float]) -> Floats:
        return np.array([normalized(o, metrics[o.name], base[o.name]) for o in self._terms.objectives])

    def _costs(self, recipes: Sequence[Values], records: Sequence[TrialRecord]) -> list[float]:
        """Return what recipes cost: how long they train, about 1 in the middle, a branch of a parent that is there less.

        Where only some come out, as many are paid for as it takes until one does.
        """
        times, fitness = self._surrogate.training(recipes), self._surrogate.fitness(recipes)
        whole = [float(time) ** _DEAR / float(fit) for time, fit in zip(times, fitness, strict=True)]
        if not self._habits.share:
            return whole
        grown = {self._parent(Recipe.of(r.recipe, r.seed)) for r in records if r.complete and r.kind == SEARCHED}
        parents = [self._parent(self._space.recipe(each, 0)) for each in recipes]
        return [cost * (_SIBLING_COST if p in grown else 1.0) for cost, p in zip(whole, parents, strict=True)]

    def _parent(self, recipe: Recipe) -> str:
        found = phases(recipe, self._space.techniques, 0)
        return found.parent.to_json() if found is not None else recipe.to_json()


def _set(rows: Floats, setting: Floats) -> Floats:
    """Return rows with the values of a setting where it has any."""
    return np.where(np.isnan(setting), rows, setting)


def _turned(settings: Sequence[Floats], turn: int) -> list[Floats]:
    """Return settings in order, the one first whose turn it is."""
    return [settings[(turn + i) % len(settings)] for i in range(len(settings))]


def _volume(points: Collection[Floats]) -> float:
    inside = [np.clip(p, 0.0, 1.0) for p in points if bool((p < 1.0).all())]
    return volume([list(p) for p in inside])
