"""The study: the record of all trials of a search, in a database; the only source of truth.

A thin layer over Optuna's ask and tell. All that a search must know after a crash is in here: a trial that was asked
for and not told is handed out again, under its number and with its recipe.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from paretrim.errors import UnknownJobError
from paretrim.search.space import Space
from paretrim.spaces.dimension import Choice, Dimension, Range, Value, exists
from paretrim.spaces.recipe import Recipe
from paretrim.tracking.constraints import Constraint
from paretrim.tracking.front import Objective, baseline_metrics
from paretrim.tracking.records import TrialRecord

SCHEMA = 2
# A recipe that was under way at this many deaths of the driver is taken to be their cause.
_MOST_ATTEMPTS = 3
_KIND, _RECIPE, _RECORD, _ATTEMPTS = "paretrim:kind", "paretrim:recipe", "paretrim:record", "paretrim:attempts"
_PREFIX = "paretrim:"
_DECIMALS = 9
_DIRECTIONS = {True: StudyDirection.MAXIMIZE, False: StudyDirection.MINIMIZE}


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

    Args:
        url: Database of the studies.
        name: Name of the search.
        objectives: What is optimized.
        constraints: What a point must meet.
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
            self._study = optuna.create_study(storage=_storage(url), study_name=name, directions=directions)
        else:
            self._study = _load(url, name)
        self._given_out: dict[int, optuna.Trial] = {}
        self._orphans: list[optuna.Trial] | None = None
        found = self._study.get_trials(deepcopy=False)
        written = [TrialRecord.from_json(t.user_attrs[_RECORD]) for t in found if _RECORD in t.user_attrs]
        self._done: dict[int, TrialRecord] = {record.number: record for record in written}

    def note(self, key: str, value: Any) -> None:
        """Keep a JSON-ready value with the study."""
        self._study.set_user_attr(_PREFIX + key, json.dumps(value))

    def noted(self, key: str, default: Any = None) -> Any:
        """Return a value kept by `note`."""
        text = self._study.user_attrs.get(_PREFIX + key)
        return default if text is None else json.loads(text)

    def begin(self, anchors: dict[str, Recipe]) -> None:
        """Queue the anchors of a new study, in order: the baseline comes first."""
        for kind, recipe in anchors.items():
            self._study.enqueue_trial({}, user_attrs={_KIND: kind, _RECIPE: recipe.to_json()})

    def records(self) -> list[TrialRecord]:
        """Return the records of all trials that ended, by number."""
        return [self._done[number] for number in sorted(self._done)]

    def ask(self, space: Space) -> Asked:
        """Return the next trial to make: one that was interrupted, an anchor, or a new one from the sampler."""
        orphans = self._adopt()
        trial = orphans.pop(0) if orphans else self._study.ask()
        self._given_out[trial.number] = trial
        trial.set_user_attr(_ATTEMPTS, trial.user_attrs.get(_ATTEMPTS, 0) + 1)
        written = trial.user_attrs.get(_RECIPE)
        if written is not None:
            return Asked(trial.number, trial.user_attrs.get(_KIND, "search"), Recipe.from_json(written))
        values = _suggested(trial, space)
        recipe = space.recipe(values, self._seed * 1_000_003 + trial.number)
        trial.set_user_attr(_RECIPE, recipe.to_json())
        return Asked(trial.number, "search", recipe)

    def use_sampler(self, trials: int) -> None:
        """Sample by multi-objective TPE, seeded so that a resumed search does not repeat its random start.

        Args:
            trials: The budget; the random start takes a third of it, at most 10 trials.
        """
        self._adopt()
        self._study.sampler = optuna.samplers.TPESampler(
            n_startup_trials=max(3, min(10, trials // 3)), seed=self._seed + 7919 * len(self._study.trials)
        )

    def tell(self, record: TrialRecord) -> None:
        """Write how a trial ended. Telling a trial twice keeps the first."""
        trial = self._given_out.pop(record.number, None)
        if trial is None or record.number in self._done:
            return
        # First the record, then the state: whatever dies in between, the record is found and the state set again.
        trial.set_user_attr(_RECORD, record.to_json())
        self._finish(trial, record)

    def release(self, number: int) -> None:
        """Give a trial back that was stopped in order: it is handed out again when the search goes on."""
        trial = self._given_out.pop(number)
        trial.set_user_attr(_ATTEMPTS, trial.user_attrs.get(_ATTEMPTS, 1) - 1)

    def cause_of_too_many_attempts(self, number: int) -> str:
        """Return why a trial is not tried again, or nothing when it may be."""
        attempts = self._given_out[number].user_attrs.get(_ATTEMPTS, 1)
        if attempts <= _MOST_ATTEMPTS:
            return ""
        return f"the search died {attempts - 1} times while this trial was under way; it is not tried again"

    def _finish(self, trial: optuna.Trial, record: TrialRecord) -> None:
        self._done[record.number] = record
        if record.state == "complete":
            metrics = record.metrics
            base = baseline_metrics([*self._done.values()]) or metrics
            for position, constraint in enumerate(self._constraints):
                trial.set_constraint(f"c{position}", constraint.excess(metrics, base))
            values = [metrics[o.name] for o in self._objectives]
            self._study.tell(record.number, values, skip_if_finished=True)
        else:
            state = TrialState.PRUNED if record.state == "stopped" else TrialState.FAIL
            self._study.tell(record.number, state=state, skip_if_finished=True)

    def _adopt(self) -> list[optuna.Trial]:
        """Take over what an earlier run left open: set the state of what is written, and return the rest."""
        if self._orphans is None:
            self._orphans = []
            for frozen in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                trial = self._reopened(frozen)
                if frozen.number in self._done:
                    self._finish(trial, self._done[frozen.number])
                else:
                    self._orphans.append(trial)
        return self._orphans

    def _reopened(self, frozen: FrozenTrial) -> optuna.Trial:
        # Optuna has no public way to go on with a trial of another process.
        return optuna.Trial(self._study, frozen._trial_id)


def _load(url: str, name: str) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        return optuna.load_study(storage=_storage(url), study_name=name)
    except KeyError:
        raise UnknownJobError(f"the study database has no search '{name}'") from None


def _suggested(trial: optuna.Trial, space: Space) -> dict[str, Value]:
    """Return a value for each knob that exists with the values of those before it."""
    values: dict[str, Value] = {}
    constants = space.constants
    for dimension in space.dimensions:
        if exists(dimension, values):
            known = dimension.name in constants
            values[dimension.name] = constants[dimension.name] if known else _suggest(trial, dimension)
    return values


def _suggest(trial: optuna.Trial, dimension: Dimension) -> Value:
    if isinstance(dimension, Choice):
        value: Value = trial.suggest_categorical(dimension.name, dimension.values)
        return value
    return _suggest_number(trial, dimension)


def _suggest_number(trial: optuna.Trial, dimension: Range) -> float:
    name, low, step = dimension.name, dimension.low, dimension.step
    if step is None:
        return trial.suggest_float(name, low, dimension.high, log=dimension.log)
    # Optuna reckons steps in decimals, in which four times 0.16666666666666666 is more than 4 / 6, and would end such a
    # range a step too early: so it gets a step that has few decimals.
    steps, short = math.floor((dimension.high - low) / step + 1e-6), round(step, _DECIMALS)
    top = round(low + steps * short, _DECIMALS)
    value = trial.suggest_float(name, low, top, step=short, log=dimension.log)
    return value if short == step else min(dimension.high, low + round((value - low) / short) * step)


def _storage(url: str) -> optuna.storages.RDBStorage:
    if not url.startswith("sqlite:///"):
        return optuna.storages.RDBStorage(url)
    path = Path(url.removeprefix("sqlite:///"))
    path.parent.mkdir(parents=True, exist_ok=True)
    return optuna.storages.RDBStorage(url, engine_kwargs={"creator": _connector(path)})


def _connector(path: Path) -> Callable[[], sqlite3.Connection]:
    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=60, check_same_thread=False)
        # A write-ahead log survives the death of any process; an fsync at each commit, which only the machine's own
        # death would need, costs a third of a second on a busy disk.
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        return connection

    return connect
