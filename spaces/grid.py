"""Knobs whose values stand at equal distances."""

from __future__ import annotations

import math

from paretrim.spaces.dimension import Choice, Condition, Range


def stepped(
    name: str, low: float, high: float, step: float, neutral: float, when: tuple[Condition, ...] = ()
) -> Range | Choice:
    """Return the knob of the values low, low + step, and so on, as far as they lie below or at high.

    Args:
        name: The dimension's name.
        low: Smallest value.
        high: Largest value that is allowed.
        step: Distance between neighbouring values.
        neutral: The value that leaves the model as it was.
        when: Any of these must hold for it to exist.
    """
    # A guard against float noise such as 0.30000000000000004 / 0.1.
    steps = math.floor((high - low) / step + 1e-9)
    if steps == 0:
        return Choice(name, (low,), neutral, when)
    top = high if math.isclose(low + steps * step, high) else low + steps * step
    return Range(name, low, top, neutral, step=step, when=when)
