"""A small Gaussian process: a linear trend over a few summaries, and what differs from it over all knobs.

With a few dozen trials that cost seconds each, an exact process in numpy is fitted in milliseconds.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Scales = tuple[float, float, float, float]

_TREND, _LOCAL, _LENGTH, _NOISE = (0.3, 1.0, 3.0), (0.1, 0.3, 1.0), (0.3, 1.0, 3.0), (0.03, 0.1, 0.3)
_JITTER = 1e-9


@dataclass(frozen=True)
class Process:
    """A fitted process.

    Attributes:
        trend: Summaries of the trials that it was fitted to, shape ``(N, S)``.
        knobs: Their knobs between 0 and 1, shape ``(N, D)``.
        scales: Of trend, local part, length and noise.
        factor: Cholesky factor of the covariance.
        weights: The covariance's inverse times what was observed.
        mean: Of what was observed.
        spread: Its standard deviation.
    """

    trend: Floats
    knobs: Floats
    scales: Scales
    factor: Floats
    weights: Floats
    mean: float
    spread: float

    @property
    def noise(self) -> float:
        """Standard deviation of what is observed about what is expected, where all is known: noise, and what no knob tells."""
        return self.spread * self.scales[3]

    def predict(self, trend: Floats, knobs: Floats) -> tuple[Floats, Floats]:
        """Return the expected values and their standard deviations, each of shape ``(M,)``.

        Args:
            trend: Summaries, shape ``(M, S)``.
            knobs: Shape ``(M, D)``.
        """
        across = _covariance(trend, knobs, self.trend, self.knobs, self.scales)
        expected = self.mean + self.spread * (across @ self.weights)
        explained = np.linalg.solve(self.factor, across.T)
        own = self.scales[0] ** 2 * (1.0 + (trend**2).sum(axis=1)) + self.scales[1] ** 2
        variance = np.maximum(own - (explained**2).sum(axis=0), _JITTER)
        return expected, self.spread * np.sqrt(variance)


def fit(trend: Floats, knobs: Floats, observed: Floats, scales: Scales | None = None) -> Process:
    """Fit a process by the likelihood of its scales (Rasmussen and Williams, "Gaussian Processes", 2006, section 5.4).

    Args:
        trend: Summaries, shape ``(N, S)``; best near 0 with a spread near 1.
        knobs: Between 0 and 1, shape ``(N, D)``.
        observed: Shape ``(N,)``.
        scales: Those of an earlier fit, to be kept; by default they are chosen.
    """
    mean, spread = float(observed.mean()), float(observed.std()) or 1.0
    target = (observed - mean) / spread
    tried = [scales] if scales is not None else itertools.product(_TREND, _LOCAL, _LENGTH, _NOISE)
    fits = (_fitted(trend, knobs, target, each) for each in tried)
    _, chosen, factor, weights = max(fits, key=lambda found: found[0])
    return Process(trend, knobs, chosen, factor, weights, mean, spread)


def _fitted(trend: Floats, knobs: Floats, target: Floats, scales: Scales) -> tuple[float, Scales, Floats, Floats]:
    """Return the logarithm of the likelihood, the scales, the covariance's factor, and the weights."""
    covariance = _covariance(trend, knobs, trend, knobs, scales)
    covariance[np.diag_indices(len(target))] += scales[3] ** 2 + _JITTER
    factor = np.linalg.cholesky(covariance)
    half = np.linalg.solve(factor, target)
    likelihood = float(-0.5 * half @ half - np.log(np.diag(factor)).sum())
    weights: Floats = np.linalg.solve(factor.T, half)
    return likelihood, scales, np.asarray(factor, np.float64), weights


def _covariance(trend: Floats, knobs: Floats, others: Floats, other_knobs: Floats, scales: Scales) -> Floats:
    linear = scales[0] ** 2 * (1.0 + trend @ others.T)
    squares = (knobs**2).sum(axis=1)[:, None] + (other_knobs**2).sum(axis=1)[None, :] - 2.0 * knobs @ other_knobs.T
    # Distances grow with the number of knobs.
    near = np.exp(-np.maximum(squares, 0.0) / (2.0 * scales[2] ** 2 * max(1, knobs.shape[1]) / 6.0))
    found: Floats = linear + scales[1] ** 2 * near
    return found
