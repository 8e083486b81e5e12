"""Statistics of times that others can only make slower: the fastest third counts, the rest shows the disturbance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_RESAMPLES = 500


def fastest_third(values: Floats) -> float:
    """Return the mean of the smallest third of samples, shape ``(N,)``; at least one counts."""
    return float(_thirds(values[None])[0])


def third_interval(values: Floats) -> tuple[float, float]:
    """Return the bootstrap's 95% interval of `fastest_third`."""
    return _interval(_thirds(values[_resamples(len(values))]))


def ratio_interval(ours: Floats, theirs: Floats) -> tuple[float, float, float]:
    """Return the ratio of two `fastest_third` and its 95% interval.

    Args:
        ours: Samples, shape ``(N,)``.
        theirs: Samples that were taken beside them, shape ``(N,)``; resampled together with them.
    """
    chosen = _resamples(len(ours))
    ratio = fastest_third(ours) / fastest_third(theirs)
    low, high = _interval(_thirds(ours[chosen]) / _thirds(theirs[chosen]))
    # The fastest of a resample cannot be faster than the fastest there is: keep the value inside its interval.
    return ratio, min(low, ratio), max(high, ratio)


def _thirds(rows: Floats) -> Floats:
    count = max(1, round(rows.shape[1] / 3))
    smallest: Floats = np.sort(rows, axis=1)[:, :count].mean(axis=1)
    return smallest


def _resamples(count: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(0).integers(0, count, (_RESAMPLES, count))


def _interval(values: Floats) -> tuple[float, float]:
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)
