"""What a model's sensitivity says of a recipe beforehand: the sums of what its knobs do alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from paretrim.search.encoding import Encoding
from paretrim.tracking.sensitivity import Effect, Profile

Floats = npt.NDArray[np.float64]

# A knob that ruins the model alone does so by any loss above this.
_RUINED = 3.0
_LEAST_SHARE = 0.01


@dataclass(frozen=True)
class _Curve:
    """What a knob does, by its position between 0 and 1: the increase of the loss, and the share of all bytes it saves."""

    at: Floats
    loss: Floats
    saved: Floats


class Prior:
    """Sums up effects of knobs. Without a profile it knows nothing, and says 0 of all recipes.

    Args:
        profile: The model's sensitivity, or None.
        encoding: Of the searched knobs.
    """

    def __init__(self, profile: Profile | None, encoding: Encoding) -> None:
        self.known = profile is not None
        self._curves: dict[int, _Curve] = {}
        self._families: dict[str, list[int]] = {}
        effects: dict[str, list[Effect]] = {}
        for effect in profile.effects if profile is not None else ():
            effects.setdefault(effect.knob, []).append(effect)
        for place, dimension in enumerate(encoding.dimensions):
            if dimension.name in effects and profile is not None:
                self._curves[place] = _curve(encoding, dimension.name, effects[dimension.name], profile)
                self._families.setdefault(dimension.name.partition(".")[0], []).append(place)

    @property
    def places(self) -> frozenset[int]:
        """The knobs that it knows anything of, by their place."""
        return frozenset(self._curves)

    def measures(self, technique: str) -> bool:
        """Tell whether it knows anything of a technique's knobs."""
        return technique in self._families

    def sums(self, rows: Floats) -> tuple[Floats, Floats]:
        """Return the sum of the losses, and the share of the bytes that would be left, each of shape ``(N,)``.

        Args:
            rows: Recipes' knobs between 0 and 1, shape ``(N, D)``.
        """
        loss, left = np.zeros(len(rows)), np.ones(len(rows))
        for places in self._families.values():
            saved = np.zeros(len(rows))
            for place in places:
                curve = self._curves[place]
                loss += np.interp(rows[:, place], curve.at, curve.loss)
                saved += np.interp(rows[:, place], curve.at, curve.saved)
            # What one technique leaves, the next one makes smaller.
            left *= np.maximum(1.0 - saved, _LEAST_SHARE)
        return loss, np.maximum(left, _LEAST_SHARE)


def _curve(encoding: Encoding, knob: str, effects: list[Effect], profile: Profile) -> _Curve:
    place = next(i for i, d in enumerate(encoding.dimensions) if d.name == knob)
    dimension = encoding.dimensions[place]
    points = {float(encoding.encode({})[place]): (0.0, 0.0)}
    for effect in effects:
        loss = effect.loss_increase
        ruined = effect.failed or loss is None or not math.isfinite(loss)
        points[float(encoding.encode({dimension.name: effect.value})[place])] = (
            _RUINED if ruined or loss is None else float(np.clip(loss, 0.0, _RUINED)),
            effect.bytes_saved / (profile.weight_bytes or 1.0),
        )
    at = np.array(sorted(points))
    return _Curve(at, np.array([points[x][0] for x in at]), np.array([points[x][1] for x in at]))
