"""The trials of a study that did not end yet: those that are under way, and the queue of those that wait."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from paretrim.spaces.recipe import Recipe

KIND, RECIPE = "paretrim:kind", "paretrim:recipe"
"""Attributes of a trial: its kind, where it is none of the sampler's, and its recipe as JSON."""
_ATTEMPTS = "paretrim:attempts"


class OpenTrials:
    """The trials of a study that did not end yet, in its database, and from `adopt` on in memory too.

    Not safe to use from several threads: a study holds its lock.
    """

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self._open: dict[int, _Open] = {}
        self._queue: list[int] | None = None

    def adopt(self, settled: Callable[[FrozenTrial], bool]) -> None:
        """Take over what an earlier run left open, the first time that it is called: all of it waits.

        Args:
            settled: Told of each trial; whether it has ended after all.
        """
        if self._queue is not None:
            return
        self._queue = []
        for state in (TrialState.RUNNING, TrialState.WAITING):
            for frozen in self._study.get_trials(deepcopy=False, states=(state,)):
                if not settled(frozen):
                    self._open[frozen.number] = _Open(
                        frozen._trial_id, frozen.user_attrs, waiting=state == TrialState.WAITING
                    )
                    self._queue.append(frozen.number)

    def queue_up(self, attributes: dict[str, Any], params: dict[str, Any] | None = None, kinds: Any = None) -> int:
        """Create a trial that waits, the last of all, and return its number.

        Args:
            attributes: Of the trial.
            params: Its knobs as Optuna keeps them.
            kinds: What these were sampled from.
        """
        template = create_trial(
            state=TrialState.WAITING, user_attrs=attributes, params=params or {}, distributions=kinds or {}
        )
        number = self._create(template)
        if self._queue is not None:
            self._queue.append(number)
        return number

    def begin(self, attributes: dict[str, Any], params: dict[str, Any], kinds: Any) -> int:
        """Create a trial that is under way, and return its number."""
        return self._create(
            create_trial(
                state=TrialState.RUNNING, user_attrs=attributes, params=params, distributions=kinds, values=None
            )
        )

    def _create(self, template: FrozenTrial) -> int:
        identifier = self._storage.create_new_trial(self._study._study_id, template)
        number = self._storage.get_trial_number_from_id(identifier)
        # What is created before is adopted with the rest.
        if self._queue is not None:
            waiting = template.state == TrialState.WAITING
            self._open[number] = _Open(identifier, template.user_attrs, waiting=waiting)
        return number

    def take(self) -> int | None:
        """Return the number of the first trial that waits, which waits no longer; None where none does."""
        return self._queue.pop(0) if self._queue else None

    def put_back(self, number: int, *, last: bool = False) -> None:
        """Let a trial wait again: it is the next one, or the last."""
        waiting = self._waiting
        waiting.insert(len(waiting) if last else 0, number)

    def put_first(self, kind: str) -> None:
        """Let those that wait and are of a kind come before all others."""
        self._waiting.sort(key=lambda number: self.kind(number) != kind)

    def attempted(self, number: int, change: int) -> None:
        """Count attempts at a trial; with the first it is no longer one that waits, in the database too."""
        trial = self._open[number]
        if trial.waiting and change > 0:
            self._storage.set_trial_state_values(trial.identifier, TrialState.RUNNING)
            trial.waiting = False
        trial.attempts += change
        self._storage.set_trial_user_attr(trial.identifier, _ATTEMPTS, trial.attempts)

    def attempts(self, number: int) -> int:
        """Return how often a trial was begun and not stopped in order."""
        return self._open[number].attempts

    def identifier(self, number: int) -> int | None:
        """Return a trial's key in the database; None where it is not open."""
        trial = self._open.get(number)
        return None if trial is None else trial.identifier

    def kind(self, number: int, default: str = "") -> str:
        """Return a trial's kind."""
        return str(self._open[number].attributes.get(KIND, default))

    def kinds(self) -> list[str]:
        """Return the kinds of all."""
        return [self.kind(number) for number in self._open]

    def recipe(self, number: int) -> Recipe | None:
        """Return a trial's recipe; None where it has none yet."""
        written = self._open[number].attributes.get(RECIPE)
        return None if written is None else Recipe.from_json(written)

    def params(self, number: int) -> dict[str, Any]:
        """Return a trial's knobs as Optuna keeps them."""
        return self._storage.get_trial(self._open[number].identifier).params

    def complete(self, number: int, recipe: Recipe) -> None:
        """Give a trial without a recipe one."""
        trial = self._open[number]
        trial.attributes = {**trial.attributes, RECIPE: recipe.to_json()}
        self._storage.set_trial_user_attr(trial.identifier, RECIPE, recipe.to_json())

    def recipes(self, kind: str) -> set[str]:
        """Return the recipes of all trials of a kind, as JSON."""
        return {trial.attributes[RECIPE] for number, trial in self._open.items() if self.kind(number) == kind}

    def under_way(self) -> dict[int, Recipe]:
        """Return the recipes of those that do not wait, by number."""
        waiting = set(self._queue or ())
        found = {number: self.recipe(number) for number in self._open if number not in waiting}
        return {number: recipe for number, recipe in found.items() if recipe is not None}

    @property
    def count_under_way(self) -> int:
        """How many do not wait."""
        return len(self._open.keys() - set(self._queue or ()))

    def drop(self, number: int) -> None:
        """Forget a trial that ended."""
        self._open.pop(number, None)

    @property
    def _waiting(self) -> list[int]:
        if self._queue is None:
            raise RuntimeError("adopt was not called")
        return self._queue

    @property
    def _storage(self) -> optuna.storages.BaseStorage:
        # Trials are written through the storage, all of one in one transaction; Optuna's own way takes one for each
        # knob, and reads all trials for each.
        return self._study._storage


class _Open:
    """A trial that has not ended."""

    def __init__(self, identifier: int, attributes: Mapping[str, Any], *, waiting: bool) -> None:
        self.identifier = identifier
        self.attributes = attributes
        self.attempts = int(attributes.get(_ATTEMPTS, 0))
        self.waiting = waiting
