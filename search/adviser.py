"""What to try next: a study's sampler, or the one that suits it as it goes, and no recipe twice."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean
from typing import TYPE_CHECKING, Any

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from paretrim.search import samplers
from paretrim.search.mirror import Ending, Mirror
from paretrim.search.samplers import AUTO, GP, Pace, SamplerRequest
from paretrim.search.space import Space
from paretrim.spaces.dimension import Value
from paretrim.spaces.recipe import Recipe
from paretrim.tracking.records import TrialRecord

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

_RECENT = 20
# A recipe that is known is asked for again so many times, at the end at random; then it is made once more.
_RETRIES, _RANDOM_RETRIES = 3, 20
_DEFAULT_BUDGET = 30


@dataclass(frozen=True)
class Ask:
    """What an ask of a sampler cost.

    Attributes:
        sampler: Its name.
        seconds: Wall time.
    """

    sampler: str
    seconds: float

    def to_plain(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return asdict(self)


@dataclass(frozen=True)
class Advice:
    """What to try.

    Attributes:
        values: Of all searched knobs, those that do not exist with the others too.
        ask: What it cost; None while the sampler draws at random.
        made: What the sampler keeps with the trial.
    """

    values: dict[str, Value]
    ask: Ask | None
    made: FrozenTrial


class Adviser:
    """Asks the sampler of a study. All but `advise` is called under the study's lock.

    Args:
        directions: Of the objectives.
        seed: Of the samplers.
    """

    def __init__(self, directions: Sequence[StudyDirection], seed: int) -> None:
        self._directions = list(directions)
        self._asks: dict[str, deque[float]] = {}
        self._counts: Counter[str] = Counter()
        self._trial_s: deque[float] = deque(maxlen=_RECENT)
        self._completed = 0
        self._recipes: set[tuple[tuple[str, Value], ...]] = set()
        self._mirror: Mirror | None = None
        self.use(AUTO, _DEFAULT_BUDGET, 1, seed)

    def use(self, name: str, trials: int, parallel: int, seed: int) -> None:
        """Choose a sampler by its name.

        Raises:
            UsageError: No sampler has that name.
        """
        self._name, self._trials, self._parallel, self._seed = name, trials, parallel, seed
        self._startup = max(3, min(10, trials // 3))
        self._made: dict[str, BaseSampler] = {}
        if name != AUTO:
            self._sampler(name)

    def look_at(
        self,
        space: Space,
        done: Iterable[TrialRecord],
        ending: Callable[[TrialRecord], Ending | None],
        under_way: Mapping[int, Recipe],
    ) -> None:
        """See all trials there are, the first time that it is called."""
        if self._mirror is not None:
            return
        self._mirror = Mirror(space, self._directions, None)
        for number, recipe in under_way.items():
            self.began(number, recipe, None)
        for record in sorted(done, key=lambda r: r.number):
            self.began(record.number, Recipe.of(record.recipe, record.seed), None)
            self.ended(record, ending(record))

    def remember(self, ask: Ask) -> None:
        """Take account of what an ask cost."""
        self._asks.setdefault(ask.sampler, deque(maxlen=_RECENT)).append(ask.seconds)
        self._counts[ask.sampler] += 1

    def counts(self) -> dict[str, int]:
        """Return how often each sampler was asked."""
        return dict(self._counts)

    def knows(self, recipe: Recipe) -> bool:
        """Tell whether a recipe was made, is under way or is queued, whatever its seed."""
        return recipe.items in self._recipes

    def count(self, recipe: Recipe) -> None:
        """Take a recipe as known."""
        self._recipes.add(recipe.items)

    def began(self, number: int, recipe: Recipe, advice: Advice | None) -> None:
        """Count a trial as under way."""
        self.count(recipe)
        if self._mirror is not None:
            self._mirror.begin(number, recipe.values, advice.made if advice is not None else None)
        if advice is not None and advice.ask is not None:
            self.remember(advice.ask)

    def ended(self, record: TrialRecord, ending: Ending | None) -> None:
        """Learn from a trial that ended."""
        if self._mirror is None:
            return  # it is seen when the first trial is asked for
        self._completed += record.complete
        if record.kind == "search":
            self._trial_s.append(sum(record.seconds.values()))
        self._mirror.end(record.number, ending)

    def depth(self) -> int:
        """Return how many trials to ask for ahead."""
        return self._pace().depth(self._chosen())

    def asking_s(self) -> float:
        """Return how many seconds the next ask is going to take."""
        return self._pace().asking_s(self._chosen())

    def advise(self, space: Space) -> Advice:
        """Return what to try next, and not what was tried already if there is anything else.

        Not under the study's lock, since it may take long; one at a time.
        """
        mirror = self._mirror
        if mirror is None:
            raise RuntimeError("look_at was not called")
        name, random = self._chosen(), self._completed < self._startup
        mirror.history = samplers.history(name)
        since = time.perf_counter()
        made, values = mirror.sample(self._sampler(name))
        seconds = time.perf_counter() - since
        for attempt in range(_RETRIES + _RANDOM_RETRIES):
            if not self.knows(space.recipe(values, 0)):
                break
            slow = attempt >= _RETRIES or name == GP  # which would say the same again
            made, values = mirror.sample(self._sampler("random" if slow else name))
        return Advice(values, None if random else Ask(name, seconds), made)

    def _chosen(self) -> str:
        return self._pace().chosen() if self._name == AUTO else self._name

    def _pace(self) -> Pace:
        cost = mean(self._trial_s) if self._trial_s else None
        return Pace(self._completed, cost, {name: tuple(found) for name, found in self._asks.items()}, self._parallel)

    def _sampler(self, name: str) -> BaseSampler:
        if name not in self._made:
            request = SamplerRequest(self._seed, len(self._directions), self._startup, self._trials)
            self._made[name] = samplers.make(name, request)
        return self._made[name]
