"""What recipes will score and cost, predicted from the sensitivity profile and from what trials have shown so far."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from paretrim.search import gaussian
from paretrim.search.encoding import Encoding, stack
from paretrim.search.gaussian import Process, Scales
from paretrim.search.judge import Terms
from paretrim.search.looks import LOOK
from paretrim.search.prior import Prior
from paretrim.spaces.dimension import Value
from paretrim.tracking.front import Metrics, baseline_metrics, reach
from paretrim.tracking.records import TrialRecord

Floats = npt.NDArray[np.float64]

# Before so many searched trials have ended, guesses from the profile alone stand in for others.
_FEW = 6
_GUESSES = 12
# The latest trials say enough, and a fit takes the cube of their number.
_MOST = 200
# With so many trials, how far knobs reach is known: it is looked into again when they are half as many again.
_SETTLED, _AGAIN = 30, 1.5
_SUM_SCALE = 2.0
# Bytes shrink as the weights do; time and memory do so by less.
_BY_LESS = 0.4
# The profile is of untrained models: recovery mends most of what it shows, and so much of it is taken to be left. To
# expect too much costs one short trial, since harsh recipes train fast; to expect too little costs many long ones.
_LEFT = 0.25
# From so many trials on it is guessed how long others train.
_FEW_TIMES = 3
_TIME = "training time"
# However often what is like a recipe has failed, it may do: so much of its promise is left.
_LEAST_FIT = 0.02


@dataclass(frozen=True)
class Guess:
    """What is expected of recipes, each an array over them.

    Attributes:
        expected: By objective: the score as it is, costs in logarithms.
        error: Standard deviations of these.
    """

    expected: Mapping[str, Floats]
    error: Mapping[str, Floats]


class Surrogate:
    """Predicts the objectives of recipes.

    Args:
        terms: What is predicted.
        encoding: Of the searched knobs.
        prior: What is known without any trial.
        seed: Of what is random.
    """

    def __init__(self, terms: Terms, encoding: Encoding, prior: Prior, seed: int) -> None:
        self._terms, self._encoding, self._prior, self._seed = terms, encoding, prior, seed
        self._processes: dict[str, Process] = {}
        self._pace: Process | None = None
        self._fitness: Process | None = None
        self._chosen_at: dict[str, int] = {}

    def learn(self, records: Sequence[TrialRecord]) -> None:
        """Fit to the trials that ended; those that stopped early say what they cost, and how they did at the time."""
        # Of several searches the last one, whose the others' trials are held against.
        base = baseline_metrics([*reversed(records)])
        gains = _gains(records, self._terms.metric)
        processes: dict[str, Process] = {}
        for objective in self._terms.objectives:
            name = objective.name
            seen = [(r, v) for r in records[-_MOST:] if (v := self._observed(r, name, base, gains)) is not None]
            rows = [self._encoding.encode(r.recipe) for r, _ in seen]
            features = [self._encoding.features(r.recipe) for r, _ in seen]
            values = [v for _, v in seen]
            # Of costs, what was seen is better than what is guessed.
            looked_at = name != self._terms.metric and any(r.kind == LOOK for r, _ in seen)
            if sum(r.kind == "search" for r, _ in seen) < _FEW and not looked_at:
                more = self._guesses(name, base)
                rows, features, values = [*rows, *more[0]], [*features, *more[1]], [*values, *more[2]]
            trend, knobs = self._inputs(stack(rows), stack(features))
            processes[name] = gaussian.fit(trend, knobs, np.array(values), self._scales(name, len(values)))
        self._pace = self._timed(records)
        self._fitness = self._of_fitness(records)
        # At once, since another thread may predict just now.
        self._processes = processes

    def training(self, recipes: Sequence[Mapping[str, Value]]) -> Floats:
        """Return how long recipes are expected to train, about 1 in the middle."""
        rows, features = self._encoded(recipes)
        if self._pace is None:
            found: Floats = self._prior.sums(rows)[1] ** _BY_LESS
            return found
        expected, _ = self._pace.predict(*self._inputs(rows, features))
        return np.exp(expected - self._pace.mean)

    def fitness(self, recipes: Sequence[Mapping[str, Value]]) -> Floats:
        """Return how likely recipes are to come out at all, where some have failed for what they make.

        By least squares on what did and did not ("Gaussian Processes", section 6.5), which is crude and does.
        """
        if self._fitness is None:
            return np.ones(len(recipes))
        rows, features = self._encoded(recipes)
        return np.clip(self._fitness.predict(*self._inputs(rows, features))[0], _LEAST_FIT, 1.0)

    def _of_fitness(self, records: Sequence[TrialRecord]) -> Process | None:
        seen = [r for r in records[-_MOST:] if r.unfit or (r.state != "failed" and r.kind != LOOK)]
        if not any(r.unfit for r in seen):
            return None
        rows, features = self._encoded([r.recipe for r in seen])
        came_out = np.array([0.0 if r.unfit else 1.0 for r in seen])
        return gaussian.fit(*self._inputs(rows, features), came_out)

    def _encoded(self, recipes: Sequence[Mapping[str, Value]]) -> tuple[Floats, Floats]:
        return (
            stack([self._encoding.encode(each) for each in recipes]),
            stack([self._encoding.features(each) for each in recipes]),
        )

    def _timed(self, records: Sequence[TrialRecord]) -> Process | None:
        """Return the process of the logarithm of an epoch's seconds, of trials that shared no epoch with another."""
        seen = [
            (r, r.seconds["recover"] / len(r.epochs))
            for r in records[-_MOST:]
            if r.kind == "search" and r.epochs and not any(e.inherited for e in r.epochs) and r.seconds.get("recover")
        ]
        if len(seen) < _FEW_TIMES:
            return None
        rows, features = self._encoded([r.recipe for r, _ in seen])
        return gaussian.fit(
            *self._inputs(rows, features),
            np.log(np.array([seconds for _, seconds in seen])),
            self._scales(_TIME, len(seen)),
        )

    def _scales(self, name: str, count: int) -> Scales | None:
        """Return the scales to keep for a fit to so many trials; None to choose them anew."""
        last = self._chosen_at.get(name, 0)
        known = self._pace if name == _TIME else self._processes.get(name)
        if count >= _SETTLED and count < last * _AGAIN and known is not None:
            return known.scales
        self._chosen_at[name] = count
        return None

    @property
    def ready(self) -> bool:
        """Whether it has learned anything yet."""
        return bool(self._processes)

    def noise(self, name: str) -> float:
        """Return the standard deviation of an objective's measurements about what is expected, however much is known."""
        return self._processes[name].noise

    def predict(self, recipes: Sequence[Mapping[str, Value]]) -> Guess:
        """Return what is expected of recipes."""
        trend, knobs = self._inputs(*self._encoded(recipes))
        found = {name: process.predict(trend, knobs) for name, process in self._processes.items()}
        return Guess({n: expected for n, (expected, _) in found.items()}, {n: error for n, (_, error) in found.items()})

    def _inputs(self, rows: Floats, features: Floats) -> tuple[Floats, Floats]:
        loss, left = self._prior.sums(rows)
        sums = np.stack([np.sqrt(loss), np.log(left) / _SUM_SCALE], axis=1)
        # A little of a trend over each knob too: what they do to time and memory mostly adds up.
        return np.concatenate([sums, 0.5 * features], axis=1), features

    def _observed(self, record: TrialRecord, name: str, base: Metrics, gains: Mapping[int, float]) -> float | None:
        if name != self._terms.metric:
            value = record.metrics.get(name)
            if value is None and record.preview is not None:
                value = record.preview.metrics.get(name)
            return math.log(max(value, 1e-12)) if value is not None else None
        if record.complete:
            return self._bounded(record.metrics[name], base)
        last = record.epochs[-1].score if record.epochs else None
        if last is None or record.state == "failed" or not math.isfinite(last):
            return None
        return self._bounded(last + gains.get(len(record.epochs), 0.0), base)

    def _bounded(self, score: float, base: Metrics) -> float:
        """Return a score, no worse than what the hypervolume's box tells from ruin: how far beyond does not matter."""
        objective = next(o for o in self._terms.objectives if o.name == self._terms.metric)
        reference = base.get(objective.name, score)
        far = 1.5 * reach(objective, reference)
        return max(score, reference - far) if objective.maximize else min(score, reference + far)

    def _guesses(self, name: str, base: Metrics) -> tuple[list[Floats], list[Floats], list[float]]:
        """Return made-up trials: random recipes with what the profile suggests of them."""
        if not base or not self._prior.known:
            return [], [], []
        generator = np.random.default_rng(self._seed)
        recipes = [self._encoding.decode(generator.random(len(self._encoding.dimensions))) for _ in range(_GUESSES)]
        rows = [self._encoding.encode(each) for each in recipes]
        loss, left = self._prior.sums(stack(rows))
        objective = next(o for o in self._terms.objectives if o.name == name)
        if name == self._terms.metric:
            worse = reach(objective, base[name]) * (-1.0 if objective.maximize else 1.0)
            values = base[name] + _LEFT * worse * np.minimum(1.0, np.sqrt(loss) / (np.sqrt(loss).max() or 1.0))
        else:
            values = math.log(base[name]) + np.log(left) * (1.0 if name == "size_bytes" else _BY_LESS)
        return rows, [self._encoding.features(each) for each in recipes], [float(v) for v in values]


def _gains(records: Sequence[TrialRecord], metric: str) -> dict[int, float]:
    """Return by how much scores rose from each epoch to the end, in the middle of the trials that came to theirs."""
    found: dict[int, list[float]] = {}
    for record in records:
        if record.complete and record.preview is not None:
            for count, epoch in enumerate(record.epochs, 1):
                if epoch.score is not None:
                    found.setdefault(count, []).append(record.metrics[metric] - epoch.score)
    return {count: float(np.median(gains)) for count, gains in found.items()}
