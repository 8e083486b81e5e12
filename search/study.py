"""The study: the record of all trials of a search, in a database; the only source of truth.

A thin layer over Optuna's ask and tell. All that a search must know after a crash is in here: a trial that was asked
for and not told is handed out again, under its number and with its recipe.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from paretrim.errors import UnknownJobError, UsageError
from paretrim.search.adviser import Advice, Adviser, Ask
from paretrim.search.database import Database, Ended, database_of
from paretrim.search.knobs import distribution, from_sampled, sampled
from paretrim.search.mirror import Ending
from paretrim.search.open_trials import KIND, RECIPE, OpenTrials
from paretrim.search.samplers import AUTO
from paretrim.search.space import Space
from paretrim.spaces.dimension import Value
from paretrim.spaces.recipe import Recipe
from paretrim.tracking.constraints import Constraint, hard, misses
from paretrim.tracking.front import Objective, baseline_metrics
from paretrim.tracking.records import TrialRecord

SCHEMA = 2
BEFORE = "training_seconds_before"
"""The name of a note: the seconds of training before any trial, for the teacher's outputs and the sensitivity."""
STATE = "state"
"""The name of a note: how the search's last turn ended, or that one is under way."""
UNDER_WAY, FINISHED, INTERRUPTED = "running", "finished", "interrupted"
# A recipe that was under way at this many deaths of the driver is taken to be their cause.
_MOST_ATTEMPTS = 3
_RECORD, _ASK = "paretrim:record", "paretrim:ask"
_PREFIX = "paretrim:"
_DIRECTIONS = {True: StudyDirection.MAXIMIZE, False: StudyDirection.MINIMIZE}


class Guide(Protocol):
    """Proposes recipes, from what it knows of the model and of the trials so far."""

    def propose(
        self, records: Sequence[TrialRecord], under_way: Sequence[Recipe], known: Callable[[Recipe], bool]
    ) -> dict[str, Value] | None:
        """Return the searched values of the next recipe; None to leave it to the sampler.

        Args:
            records: All trials that ended.
            under_way: Recipes of trials that did not end yet.
            known: Whether a recipe was tried before.
        """
        ...


@dataclass(frozen=True)
class Asked:
    """A trial to be made.

    Attributes:
        number: Its number in the study.
        kind: ``baseline``, ``float16``, ``int8`` or ``search``.
        recipe: What to make.
    """

    number: int
    kind: str
    recipe: Recipe


def notes_of(url: str, name: str) -> dict[str, Any]:
    """Return what is noted with a study, without opening it to go on.

    Raises:
        UnknownJobError: The database has no study of that name.
    """
    attributes = _load(url, name).user_attrs
    return {key.removeprefix(_PREFIX): json.loads(text) for key, text in attributes.items() if key.startswith(_PREFIX)}


class Study:
    """The study of one search. Opening one changes nothing; the first `ask` takes over what an earlier run left open.

    Safe to use from several threads: one may ask a slow sampler while others tell. Everything is kept in memory too,
    so that nothing is read again from the database, where reading takes the longer the more trials there are.

    Args:
        url: Database of the studies.
        name: Name of the search.
        objectives: What is optimized.
        constraints: What a point must meet, or should where they are soft.
        seed: Of the sampler.
        create: Whether the study is new.

    Raises:
        UnknownJobError: The database has no study of that name.
    """

    def __init__(
        self,
        url: str,
        name: str,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        seed: int,
        *,
        create: bool = False,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._objectives = tuple(objectives)
        self._constraints = tuple(constraints)
        self._seed = seed
        directions = [_DIRECTIONS[o.maximize] for o in objectives]
        if create:
            self._study = _create(Database(url), name, directions)
        else:
            self._study = _load(url, name)
        self._lock, self._asking = threading.RLock(), threading.Lock()
        self._adviser = Adviser(directions, seed)
        self._guide: Guide | None = None
        self._open = OpenTrials(self._study)
        self._read()

    def _read(self) -> None:
        found = self._study.get_trials(deepcopy=False)
        self._trials = len(found)
        written = [TrialRecord.from_json(t.user_attrs[_RECORD]) for t in found if _RECORD in t.user_attrs]
        self._done: dict[int, TrialRecord] = {record.number: record for record in written}
        self._ordered: list[TrialRecord] | None = None
        self._base = baseline_metrics(written)
        for trial in found:
            if _ASK in trial.user_attrs:
                self._adviser.remember(Ask(**trial.user_attrs[_ASK]))

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What is optimized."""
        return self._objectives

    def note(self, key: str, value: Any) -> None:
        """Keep a JSON-ready value with the study."""
        with self._lock:
            self._study.set_user_attr(_PREFIX + key, json.dumps(value))

    def noted(self, key: str, default: Any = None) -> Any:
        """Return a value kept by `note`."""
        text = self._study.user_attrs.get(_PREFIX + key)
        return default if text is None else json.loads(text)

    def begin(self, anchors: dict[str, Recipe]) -> None:
        """Queue the anchors of a new study, in order: the baseline comes first."""
        for kind, recipe in anchors.items():
            self._queue_up({KIND: kind, RECIPE: recipe.to_json()})

    def append(self, kind: str, recipes: Sequence[Recipe]) -> int:
        """Queue recipes as they are, with their seeds, before all else, as trials of a kind of their own.

        Those that the study has already are not queued again, so that a queue that was cut short can be completed.

        Returns:
            How many were queued.
        """
        with self._lock:
            self._adopt()
            had = self._of_kind(kind)
            fresh = [text for text in (recipe.to_json() for recipe in recipes) if text not in had]
            for text in fresh:
                self._queue_up({KIND: kind, RECIPE: text})
            self.put_first(kind)
            return len(fresh)

    def put_first(self, kind: str) -> None:
        """Hand out those trials of a kind that wait before all others."""
        with self._lock:
            self._adopt()
            self._open.put_first(kind)

    def left(self, kind: str) -> int:
        """Return how many trials of a kind did not end yet."""
        with self._lock:
            self._adopt()
            return self._open.kinds().count(kind)

    def _of_kind(self, kind: str) -> set[str]:
        """Return the recipes of all trials of a kind."""
        ended = {Recipe.of(r.recipe, r.seed).to_json() for r in self._done.values() if r.kind == kind}
        return ended | self._open.recipes(kind)

    def count(self, kind: str) -> int:
        """Return how many trials of a kind there are, those that did not end yet included."""
        with self._lock:
            self._adopt()
            return [*(record.kind for record in self._done.values()), *self._open.kinds()].count(kind)

    def enqueue(self, space: Space, recipes: Sequence[Mapping[str, Value]]) -> int:
        """Queue recipes to be made before the sampler is asked again, without those that are in the study already.

        Args:
            space: What is searched.
            recipes: Their values; constants may be left out, and what does not exist with the rest is.

        Returns:
            How many were queued.
        """
        queued = 0
        with self._lock:
            self._adopt()
            for values in recipes:
                recipe = space.recipe(dict(values), self._seed_of(self._trials))
                if not self._adviser.knows(recipe):
                    self._adviser.count(recipe)
                    self._queue_up({RECIPE: recipe.to_json()}, *_stored(space, recipe))
                    queued += 1
        return queued

    @property
    def ended(self) -> int:
        """How many trials ended."""
        return len(self._done)

    @property
    def known(self) -> int:
        """How many trials ended, were handed out, or wait ready to be."""
        with self._lock:
            return len(self._done) + self._open.count_under_way

    def records(self) -> list[TrialRecord]:
        """Return the records of all trials that ended, by number."""
        with self._lock:
            if self._ordered is None:
                self._ordered = [self._done[number] for number in sorted(self._done)]
            return list(self._ordered)

    def ask(self, space: Space) -> Asked:
        """Return the next trial to make: one that was interrupted, an anchor, or a new one from the sampler."""
        asked = self.prepare(space)
        self.hand_out(asked.number)
        return asked

    def prepare(self, space: Space) -> Asked:
        """Return the next trial to make before anybody makes it.

        It is open in the study from now on, and `hand_out` or `put_back` follows. Other threads can tell meanwhile.
        """
        with self._asking:
            with self._lock:
                self._adopt()
                self._adviser.look_at(space, self._done.values(), self._ending, self._open.under_way())
                waiting = self._open.take()
                if waiting is not None:
                    return self._taken(space, waiting)
                known, under_way = self.records(), [*self._open.under_way().values()]
            proposed = self._guide.propose(known, under_way, self._adviser.knows) if self._guide is not None else None
            advice = self._adviser.advise(space) if proposed is None else None
            with self._lock:
                return self._created(space, proposed or {}, advice)

    def hand_out(self, number: int) -> None:
        """Count an attempt at a trial, before it begins."""
        with self._lock:
            self._open.attempted(number, 1)

    def put_back(self, number: int, *, last: bool = False) -> None:
        """Give a trial back: it is the next one, or the last of those that wait."""
        with self._lock:
            self._open.put_back(number, last=last)

    def use_sampler(self, trials: int, name: str = AUTO, parallel: int = 1) -> None:
        """Choose the sampler; it is seeded so that a resumed search does not repeat its random start.

        Args:
            trials: The budget; the random start takes a third of it, at most 10 trials.
            name: Of an installed sampler, or ``auto``.
            parallel: Trials at the same time.

        Raises:
            UsageError: No sampler has that name.
        """
        with self._lock:
            self._adopt()
            self._adviser.use(name, trials, parallel, seed=self._seed + 7919 * self._trials)

    def follow(self, guide: Guide | None) -> None:
        """Ask a guide before the sampler from now on."""
        self._guide = guide

    def depth(self) -> int:
        """Return how many trials to ask for ahead of time, as asking and trials were measured."""
        with self._lock:
            return self._adviser.depth()

    def asking_s(self) -> float:
        """Return how many seconds the next ask is going to take, as far as that is known."""
        with self._lock:
            return self._adviser.asking_s()

    def asks(self) -> dict[str, int]:
        """Return how often each sampler was asked, the random start left out."""
        with self._lock:
            return self._adviser.counts()

    def tell(self, record: TrialRecord) -> None:
        """Write how a trial ended. Telling a trial twice keeps the first."""
        with self._lock:
            identifier = self._open.identifier(record.number)
            if identifier is not None and record.number not in self._done:
                self._finish(identifier, record)

    def release(self, number: int, *, last: bool = False) -> None:
        """Give a trial back that was stopped in order: it is handed out again, at once or after all others that wait."""
        with self._lock:
            self._open.attempted(number, -1)
            self._open.put_back(number, last=last)

    def cause_of_too_many_attempts(self, number: int) -> str:
        """Return why a trial is not tried again, or nothing when it may be."""
        attempts = self._open.attempts(number)
        if attempts <= _MOST_ATTEMPTS:
            return ""
        return f"the search died {attempts - 1} times while this trial was under way; it is not tried again"

    def _seed_of(self, number: int) -> int:
        return self._seed * 1_000_003 + number

    def _queue_up(self, attributes: dict[str, Any], params: dict[str, Any] | None = None, kinds: Any = None) -> None:
        with self._lock:
            self._count(self._open.queue_up(attributes, params, kinds))

    def _count(self, number: int) -> None:
        self._trials = max(self._trials, number + 1)

    def _created(self, space: Space, proposed: dict[str, Value], advice: Advice | None) -> Asked:
        number = self._trials
        recipe = space.recipe(proposed if advice is None else advice.values, self._seed_of(number))
        attributes: dict[str, Any] = {RECIPE: recipe.to_json()}
        if advice is not None and advice.ask is not None:
            attributes[_ASK] = advice.ask.to_plain()
        number = self._open.begin(attributes, *_stored(space, recipe))
        self._count(number)
        self._adviser.began(number, recipe, advice)
        return Asked(number, "search", recipe)

    def _taken(self, space: Space, number: int) -> Asked:
        recipe = self._open.recipe(number) or self._completed(space, number)
        self._adviser.began(number, recipe, None)
        return Asked(number, self._open.kind(number, "search"), recipe)

    def _completed(self, space: Space, number: int) -> Recipe:
        """Return a recipe for a trial that another program asked for, or that was interrupted before it had one."""
        params = self._open.params(number)
        has = {d.name: from_sampled(d, params[d.name]) for d in space.searched if d.name in params}
        recipe = space.recipe({**self._adviser.advise(space).values, **has}, self._seed_of(number))
        self._open.complete(number, recipe)
        return recipe

    def _ending(self, record: TrialRecord) -> Ending | None:
        metrics = record.metrics
        values = tuple(metrics.get(o.name, math.nan) for o in self._objectives) if record.complete else None
        lost = record.state == "failed" and not record.unfit
        if lost or (values is not None and any(map(math.isnan, values))):
            return None
        limits, base = hard(self._constraints), self._base or metrics
        if values is None:
            return Ending(None, (0.0,) * len(limits), unfit=record.unfit)
        missed = sum(misses(self._constraints, metrics, base).values())
        return Ending(values, tuple(c.excess(metrics, base) for c in limits), missed)

    def _finish(self, identifier: int, record: TrialRecord) -> None:
        ending = self._ending(record)
        written = {_RECORD: record.to_json()}
        if ending is not None and ending.values is not None:
            constraints = {f"constraints:c{at}": excess for at, excess in enumerate(ending.excesses)}
            ended = Ended(TrialState.COMPLETE, ending.values, written, constraints)
        else:
            ended = Ended(TrialState.PRUNED if record.state == "stopped" else TrialState.FAIL, user=written)
        database_of(self._study).finish(identifier, ended)
        self._done[record.number] = record
        self._ordered = None
        self._open.drop(record.number)
        if record.complete and not self._base:
            self._base = baseline_metrics([record])
        self._adviser.ended(record, ending)

    def _adopt(self) -> None:
        """Take over what an earlier run left open: set the state of what is written, and queue the rest."""
        self._open.adopt(self._settled)

    def _settled(self, trial: FrozenTrial) -> bool:
        written = self._done.get(trial.number)
        if written is not None:
            self._finish(trial._trial_id, written)
        return written is not None


def _stored(space: Space, recipe: Recipe) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a recipe's knobs as Optuna keeps them, with what they were sampled from."""
    params = sampled(space, recipe.values)
    return params, {d.name: distribution(d) for d in space.searched if d.name in params}


def _create(database: Database, name: str, directions: Sequence[StudyDirection]) -> optuna.Study:
    """Create a study, in the place of one that was left by a search that died before it began.

    Raises:
        UsageError: There is one of that name with trials.
    """
    try:
        return optuna.create_study(storage=database, study_name=name, directions=directions)
    except optuna.exceptions.DuplicatedStudyError:
        left = optuna.load_study(storage=database, study_name=name)
        if any(_RECORD in trial.user_attrs for trial in left.get_trials(deepcopy=False)):
            raise UsageError(
                f"the study database has trials of a search '{name}', whose folder is gone; give the job another name"
            ) from None
        optuna.delete_study(storage=database, study_name=name)
        return optuna.create_study(storage=database, study_name=name, directions=directions)


def _load(url: str, name: str) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        return optuna.load_study(storage=Database(url), study_name=name)
    except KeyError:
        raise UnknownJobError(f"the study database has no search '{name}'") from None
