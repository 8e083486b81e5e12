"""Samplers by name, and which of them suits a search as it goes.

A sampler decides which recipe to try next. They are found through the entry-point group ``paretrim.samplers``: a
callable that takes a `SamplerRequest` and returns a sampler of Optuna's. What it sees is described in search/mirror.py.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from statistics import median
from typing import TYPE_CHECKING, Protocol

from paretrim.errors import UsageError, nearest

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

GROUP = "paretrim.samplers"
AUTO, TPE, GP = "auto", "tpe", "gp"

# Below this a Gaussian process gains less than its processor time takes from the trials that run beside it.
_LEAST_TRIAL_S = 10.0
# Its cost grows with the cube of the trials that it has seen.
_MOST_FOR_GP = 250
# What its first ask is reckoned to cost, before one is measured.
_GP_ASK_S, _TPE_ASK_S = 4.0, 0.05
_RECENT = 5
# An ask that takes no more than this share of the time between two trials is not worth asking ahead: it knows less.
_WORTH_WAITING = 0.01


@dataclass(frozen=True)
class SamplerRequest:
    """What a sampler is made for.

    Attributes:
        seed: Of its random numbers.
        objectives: How many there are.
        startup: Trials to make at random before it models anything.
        trials: The budget.
    """

    seed: int
    objectives: int
    startup: int
    trials: int


class SamplerFactory(Protocol):
    """What an entry point of the group loads to."""

    def __call__(self, request: SamplerRequest) -> BaseSampler:
        """Return a sampler."""
        ...


def names() -> list[str]:
    """Return the names that a job may give."""
    return [AUTO, *sorted(point.name for point in entry_points(group=GROUP))]


def make(name: str, request: SamplerRequest) -> BaseSampler:
    """Return a sampler by its name.

    Raises:
        UsageError: No sampler has that name.
    """
    found = {point.name: point for point in entry_points(group=GROUP)}
    if name not in found:
        raise UsageError(f"unknown sampler '{name}'; allowed: {', '.join(names())}{nearest(name, names())}")
    factory: SamplerFactory = found[name].load()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some of Optuna's options are marked as experimental
        return factory(request)


def history(name: str) -> int | None:
    """Return how many trials a sampler is shown at most, or None for all: what it costs grows with them."""
    return {TPE: 600, GP: _MOST_FOR_GP}.get(name)


@dataclass(frozen=True)
class Pace:
    """How a search goes, from its records.

    Attributes:
        completed: Trials that ended with all measurements.
        trial_s: Mean seconds of the last trials; None before one has ended.
        asks_s: Seconds of the last asks, by sampler.
        parallel: Trials at the same time.
    """

    completed: int
    trial_s: float | None
    asks_s: Mapping[str, Sequence[float]]
    parallel: int

    @property
    def between_s(self) -> float:
        """Seconds from one trial's end to the next one's, over all workers."""
        return (self.trial_s or 0.0) / self.parallel

    def chosen(self) -> str:
        """Return the sampler that suits: the Gaussian process where workers need not wait for it, else TPE."""
        long = (self.trial_s or 0.0) >= _LEAST_TRIAL_S
        fast = self.asking_s(GP) <= self.between_s
        return GP if long and fast and self.completed <= _MOST_FOR_GP else TPE

    def depth(self, name: str) -> int:
        """Return how many trials to ask for ahead: none where asking is quick, since what is asked later knows more."""
        asking = self.asking_s(name)
        if asking <= _WORTH_WAITING * self.between_s:
            return 0
        return 1 if 2 * asking <= self.between_s else self.parallel

    def asking_s(self, name: str) -> float:
        """Return how many seconds an ask of a sampler takes."""
        seconds = self.asks_s.get(name, ())
        return median(seconds[-_RECENT:]) if seconds else (_GP_ASK_S if name == GP else _TPE_ASK_S)


def tpe(request: SamplerRequest) -> BaseSampler:
    """Multivariate TPE: one density over all knobs (Falkner et al., "BOHB", 2018; Ozaki et al., 2022).

    Several times quicker to ask than one that models each knob for itself.
    """
    from optuna.samplers import TPESampler  # noqa: PLC0415 - slow to import, and job files are checked without it

    return TPESampler(seed=request.seed, n_startup_trials=request.startup, multivariate=True, constant_liar=True)


def gp(request: SamplerRequest) -> BaseSampler:
    """Gaussian processes with the expected hypervolume improvement (Daulton et al., 2020); torch computes them."""
    from optuna.samplers import GPSampler  # noqa: PLC0415 - as above

    return GPSampler(seed=request.seed, n_startup_trials=request.startup, warn_independent_sampling=False)


def nsga2(request: SamplerRequest) -> BaseSampler:
    """NSGA-II (Deb et al., 2002)."""
    from optuna.samplers import NSGAIISampler  # noqa: PLC0415 - as above

    return NSGAIISampler(seed=request.seed, population_size=_population(request))


def nsga3(request: SamplerRequest) -> BaseSampler:
    """NSGA-III (Deb and Jain, 2014)."""
    from optuna.samplers import NSGAIIISampler  # noqa: PLC0415 - as above

    return NSGAIIISampler(seed=request.seed, population_size=_population(request))


def random(request: SamplerRequest) -> BaseSampler:
    """Draw every knob by itself."""
    from optuna.samplers import RandomSampler  # noqa: PLC0415 - as above

    return RandomSampler(seed=request.seed)


def _population(request: SamplerRequest) -> int:
    # Several generations should fit into the budget.
    return max(8, min(50, request.trials // 6))
