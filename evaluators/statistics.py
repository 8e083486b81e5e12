"""The few statistics that measurements need."""

from __future__ import annotations

import math


def share_interval(share: float, count: int) -> tuple[float, float]:
    """Return Wilson's 95% interval of a share, such as an accuracy over `count` samples."""
    z = 1.96
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    reach = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    # At the ends, rounding may leave the share just outside.
    return max(0.0, min(share, centre - reach)), min(1.0, max(share, centre + reach))
