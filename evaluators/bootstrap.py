"""Percentile bootstrap: how sure a metric is, and whether one model beats another on the same samples.

Samples are drawn anew, with the same draws for every model, so that what is easy or hard in a draw is so for all of
them and falls out of a difference (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, islice
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from paretrim.errors import ParetrimError
from paretrim.evaluators.metrics import Metric, shortest
from paretrim.evaluators.statistics import share_interval

Tensor = torch.Tensor
Floats = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]
K = TypeVar("K", bound=Hashable)

_MOST, _LEAST = 1000, 100
# A metric that is computed again for each resample takes milliseconds of overhead alone.
_MOST_AGAIN = 250
# Resamples times samples of a mean, and times numbers of a metric that is computed again: half a second to two.
_MEAN_WORK, _METRIC_WORK = 100_000_000, 5_000_000
# The clock only ends what those estimates got wrong, such as a slow function of a user's; the second is for the least.
_SECONDS, _SECONDS_AT_MOST = 3.0, 10.0


class Interval(NamedTuple):
    """A value and its 95% interval; None where there were too few resamples for one."""

    value: float
    low: float | None
    high: float | None

    @property
    def holds_zero(self) -> bool:
        """Whether zero cannot be ruled out."""
        return self.low is None or self.high is None or self.low <= 0.0 <= self.high


@dataclass(frozen=True)
class Resampled:
    """A metric of some answers, and of resamples of them.

    Attributes:
        value: The metric of all answers.
        values: The metric of each resample, NaN where it is not defined; shape ``(R,)``.
        samples: Number of answers.
        share: Whether the value is a share of the answers or of what is best, so that it lies between 0 and 1.
    """

    value: float
    values: Floats
    samples: int
    share: bool

    def interval(self) -> Interval:
        """Return the value's interval; Wilson's, when all resamples are perfect or all fail."""
        found = _percentiles(self.value, self.values)
        if self.share and found.low == found.high and self.value in (0.0, 1.0):
            return Interval(self.value, *share_interval(self.value, self.samples))
        return found

    def minus(self, other: Resampled) -> Interval:
        """Return the difference to other answers to the same questions, and its interval."""
        common = min(len(self.values), len(other.values))
        return _percentiles(shortest(self.value - other.value), self.values[:common] - other.values[:common])


def resample(metric: Metric, outputs: Tensor, labels: Tensor) -> Resampled:
    """Compute a metric of answers and of resamples of them.

    The draws follow from the number of samples alone, and their number, 100 to 1000, from the cost of the metric.

    Args:
        metric: Scores outputs against labels.
        outputs: Shape ``(N, ...)``.
        labels: Shape ``(N, ...)``.

    Raises:
        ParetrimError: The metric does not fit the answers, or is not finite.
    """
    value, count = metric(outputs, labels), len(labels)
    means = metric.means(outputs, labels)
    if means is not None:
        values = _computed(means.at, count, _MEAN_WORK // count)
        share = means.share
    else:
        affordable = min(_MOST_AGAIN, _METRIC_WORK // outputs.numel())
        values = _computed(lambda index: _score(metric, outputs, labels, index), count, affordable)
        share = metric.at_most_one(outputs, labels)
    return Resampled(value, values, count, share)


def interval(metric: Metric, outputs: Tensor, labels: Tensor) -> Interval:
    """Return a metric of answers with its 95% interval; see `resample`."""
    return resample(metric, outputs, labels).interval()


def difference(metric: Metric, ours: Tensor, theirs: Tensor, labels: Tensor) -> Interval:
    """Return how much a metric of our answers is above that of theirs, with its 95% interval, in pairs.

    Args:
        metric: Scores outputs against labels.
        ours: Outputs, shape ``(N, ...)``.
        theirs: Outputs for the same samples.
        labels: Shape ``(N, ...)``.
    """
    return resample(metric, ours, labels).minus(resample(metric, theirs, labels))


def ties(metric: Metric, answers: Mapping[K, Tensor], labels: Tensor) -> set[frozenset[K]]:
    """Return the pairs of models of which neither is known to be better.

    Args:
        metric: Scores outputs against labels.
        answers: Each model's outputs for the same samples, shape ``(N, ...)``.
        labels: Shape ``(N, ...)``.
    """
    known = {key: resample(metric, outputs, labels) for key, outputs in answers.items()}
    return {frozenset((a, b)) for a, b in combinations(known, 2) if known[a].minus(known[b]).holds_zero}


def _computed(score: Callable[[Index], float], count: int, affordable: int) -> Floats:
    wanted = min(_MOST, max(_LEAST, affordable))
    values: list[float] = []
    started = time.monotonic()
    for index in islice(_draws(count), wanted):
        spent = time.monotonic() - started
        if spent > _SECONDS and (len(values) >= _LEAST or spent * _LEAST > _SECONDS_AT_MOST * len(values)):
            break
        values.append(score(index))
    return np.array(values)


def _draws(count: int) -> Iterator[Index]:
    random = np.random.default_rng(0)
    while True:
        yield random.integers(count, size=count)


def _score(metric: Metric, outputs: Tensor, labels: Tensor, index: Index) -> float:
    """Return a metric of a resample, NaN where it has none: an AUROC of one class, a correlation of one value."""
    chosen = torch.from_numpy(index)
    try:
        return metric(outputs[chosen], labels[chosen])
    except ParetrimError:
        return float("nan")


def _percentiles(value: float, values: Floats) -> Interval:
    known = values[np.isfinite(values)]
    if len(values) < _LEAST or len(known) * 2 < len(values):
        return Interval(value, None, None)
    low, high = np.quantile(known, [0.025, 0.975])
    # A metric such as a maximum is never above its value on a resample.
    return Interval(value, min(float(low), value), max(float(high), value))
