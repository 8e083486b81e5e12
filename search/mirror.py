"""What samplers see of a study: a study of Optuna's in memory, with a value for every knob in every trial.

Asking a sampler reads all trials, which is slow from a database, and samplers that model all knobs together see only
those that all trials have. So the database keeps what is true, and this is made from it whenever a search goes on.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from paretrim.search.knobs import distribution, flat, from_sampled
from paretrim.search.space import Space
from paretrim.spaces.dimension import Value

# Above any share by which a constraint may be broken: a trial that was stopped is worse than one that only breaks them.
_STOPPED = 1e9
# Evolutionary samplers count trials by generations; those that they did not sample are parents of the first.
_FIRST_GENERATION = {"NSGAIISampler:generation": 0, "NSGAIIISampler:generation": 0}
# A trial that misses a soft constraint by a tenth of its bound looks a fiftieth worse in all objectives.
_PREFERENCE = 0.2
# The history may grow by this share before it is cut back to its length.
_SLACK = 0.25


@dataclass(frozen=True)
class Ending:
    """How a trial ended, as a sampler is told.

    Attributes:
        values: Of the objectives; None for a trial that has none.
        excesses: By how much each hard constraint is broken, as a share of its bound.
        missed: By how much soft constraints are missed in sum, as shares of their bounds.
        unfit: Whether it failed for what its recipe makes. Without values and not unfit, it was stopped early.
    """

    values: tuple[float, ...] | None
    excesses: tuple[float, ...] = ()
    missed: float = 0.0
    unfit: bool = False


class Mirror:
    """Trials in memory, for samplers. Safe to use from several threads.

    Args:
        space: What is searched.
        directions: Of the objectives.
        history: Most trials that ended to show, or None for all; the best ones and the latest stay.
    """

    def __init__(self, space: Space, directions: Sequence[StudyDirection], history: int | None) -> None:
        self.history = history
        self._space = space
        self._directions = list(directions)
        self._distributions: dict[str, BaseDistribution] = {d.name: distribution(d) for d in space.searched}
        self._lock = threading.RLock()
        self._open: dict[int, FrozenTrial] = {}
        self._ended: list[FrozenTrial] = []
        self._begin()

    @property
    def shown(self) -> list[FrozenTrial]:
        """The trials that ended, as samplers see them."""
        with self._lock:
            return list(self._ended)

    def sample(self, sampler: BaseSampler) -> tuple[FrozenTrial, dict[str, Value]]:
        """Let a sampler choose a value for each knob; `begin` or `discard` takes the trial that it made."""
        study = self._study_for(sampler)
        trial = study.ask(fixed_distributions=self._distributions)
        values = {d.name: from_sampled(d, trial.params[d.name]) for d in self._space.searched}
        frozen = study._storage.get_trial(trial._trial_id)
        with self._lock:
            study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        return frozen, values

    def begin(self, number: int, values: dict[str, Value], made: FrozenTrial | None = None) -> None:
        """Count a trial as under way, so that samplers keep their distance from it.

        Args:
            number: Its number in the study.
            values: Of its recipe.
            made: What `sample` returned with them.
        """
        params = flat(self._space, values, number)
        if params is None:
            return
        attributes = dict(made.system_attrs) if made is not None else dict(_FIRST_GENERATION)
        with self._lock:
            self._open[number] = self._add(self._trial(TrialState.RUNNING, params, attributes))

    def end(self, number: int, ending: Ending | None) -> None:
        """Tell how a trial ended; None for one of which nothing is learned, since it failed for what it ran on."""
        with self._lock:
            begun = self._open.pop(number, None)
            if begun is None:
                return
            self._storage.set_trial_state_values(begun._trial_id, TrialState.FAIL)
            if ending is None or (ending.unfit and not self._complete):
                return
            attributes = {k: v for k, v in begun.system_attrs.items() if not k.startswith("constraints")}
            self._ended.append(self._add(self._finished(begun.params, attributes, ending)))
            if self.history is not None and len(self._ended) > self.history * (1 + _SLACK):
                self._cut(self.history)

    @property
    def _complete(self) -> list[FrozenTrial]:
        return [trial for trial in self._ended if trial.state == TrialState.COMPLETE]

    def _worst(self, attributes: dict[str, Any], params: dict[str, Any]) -> FrozenTrial:
        """Return a trial that is in all as bad as the worst.

        Most samplers see only what has values, and would go where all trials fail, for nothing there is known to be bad.
        """
        values = np.array([trial.values for trial in self._complete])
        highest = [direction == StudyDirection.MINIMIZE for direction in self._directions]
        worst = np.where(highest, values.max(axis=0), values.min(axis=0)).tolist()
        for trial in self._complete:
            for name, excess in trial.constraints.items():
                key = f"constraints:{name}"
                attributes[key] = max(excess, attributes.get(key, excess))
        return self._trial(TrialState.COMPLETE, params, attributes, worst)

    def _finished(self, params: dict[str, Any], attributes: dict[str, Any], ending: Ending) -> FrozenTrial:
        if ending.unfit:
            return self._worst(attributes, params)
        values = None if ending.values is None else _as_seen(ending.values, ending.missed, self._directions)
        # A sampler takes those that were stopped for better than those that break a constraint, unless they break more.
        excesses = ending.excesses if values is not None else (*ending.excesses[:-1], _STOPPED)
        attributes |= {f"constraints:c{i}": _finite(excess) for i, excess in enumerate(excesses)}
        state = TrialState.PRUNED if values is None else TrialState.COMPLETE
        return self._trial(state, params, attributes, values)

    def _trial(
        self, state: TrialState, params: dict[str, Any], attributes: dict[str, Any], values: list[float] | None = None
    ) -> FrozenTrial:
        distributions = self._distributions
        return create_trial(
            state=state, params=params, distributions=distributions, system_attrs=attributes, values=values
        )

    def _begin(self) -> None:
        self._storage = optuna.storages.InMemoryStorage()
        self._identifier = self._storage.create_new_study(self._directions, "mirror")

    def _study_for(self, sampler: BaseSampler) -> optuna.Study:
        with self._lock:
            return optuna.Study(study_name="mirror", storage=self._storage, sampler=sampler)

    def _add(self, trial: FrozenTrial) -> FrozenTrial:
        return self._storage.get_trial(self._storage.create_new_trial(self._identifier, template_trial=trial))

    def _cut(self, length: int) -> None:
        """Keep half of the length for the best trials by non-domination, and fill up with the latest."""
        best = _best([t.values if t.state == TrialState.COMPLETE else None for t in self._ended], self._directions)
        kept = set(best[: length // 2])
        for at in range(len(self._ended) - 1, -1, -1):
            if len(kept) >= length:
                break
            kept.add(at)
        ended, running = [self._ended[at] for at in sorted(kept)], self._open
        self._begin()
        self._ended = [self._add(trial) for trial in ended]
        self._open = {number: self._add(trial) for number, trial in running.items()}


def _best(values: Sequence[Sequence[float] | None], directions: Sequence[StudyDirection]) -> list[int]:
    """Return the positions of the points in the order of their non-domination ranks."""
    import moocore  # noqa: PLC0415 - slow to import

    there = [at for at, point in enumerate(values) if point is not None]
    signs = np.array([-1.0 if d == StudyDirection.MAXIMIZE else 1.0 for d in directions])
    points = np.array([values[at] for at in there], dtype=np.float64) * signs
    ranks = moocore.pareto_rank(points) if there else np.zeros(0)
    return [there[at] for at in np.argsort(ranks, kind="stable")]


def _as_seen(values: Sequence[float], missed: float, directions: Sequence[StudyDirection]) -> list[float]:
    """Return the values of a trial that misses soft constraints, all a little worse, so that it is liked a little less.

    To samplers every constraint is hard: what breaks it is worse than all that does not, which a soft one does not mean.
    """
    share = _PREFERENCE * min(1.0, missed)
    away = [-1.0 if direction == StudyDirection.MAXIMIZE else 1.0 for direction in directions]
    return [value + sign * share * abs(value) for value, sign in zip(values, away, strict=True)]


def _finite(excess: float) -> float:
    return excess if math.isfinite(excess) else _STOPPED
