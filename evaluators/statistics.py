"""The few statistics that measurements need."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt


def median_interval(values: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the median of samples and its 95% interval.

    The interval is between order statistics (the sign test), so it assumes nothing of the distribution.

    Args:
        values: Samples, shape ``(N,)``.
    """
    ordered = np.sort(values)
    count = len(ordered)
    reach = 0.98 * math.sqrt(count)  # 1.96 standard deviations of a binomial of one half
    low = max(0, math.floor(count / 2 - reach) - 1)
    high = min(count - 1, math.ceil(count / 2 + reach))
    return float(np.median(ordered)), float(ordered[low]), float(ordered[high])


def share_interval(share: float, count: int) -> tuple[float, float]:
    """Return Wilson's 95% interval of a share, such as an accuracy over `count` samples."""
    z = 1.96
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    reach = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, centre - reach), min(1.0, centre + reach)


def relative_spread(values: npt.NDArray[Any]) -> float:
    """Return (largest - smallest) / median."""
    return float((np.max(values) - np.min(values)) / np.median(values))
