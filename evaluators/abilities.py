"""What a runtime makes of compressed layers, and so what is worth searching on it."""

from __future__ import annotations

from dataclasses import dataclass

from paretrim.evaluators.storage import PEAK

GRIDS = (2, 3, 4, 5, 6, 7, 8)


@dataclass(frozen=True)
class Abilities:
    """What a target can do with weights that are not 32-bit floats, beyond storing them in a smaller file.

    Attributes:
        channel_multiple: The kernels compute channels in blocks of so many, so other counts waste some.
        integers: Bits per weight with which convolutions and linear layers compute as integers.
        weight_only: Bits per weight that stay narrow in memory while a matrix product computes with floats.
        halves: Formats of 16 bits that are computed with; others are stored only, and widened.
        signs: Whether the sign of 8-bit activations can be chosen.
        peak: The largest code, either way, of weights with which layers compute as integers.
    """

    channel_multiple: int = 8
    integers: tuple[int, ...] = ()
    weight_only: tuple[int, ...] = ()
    halves: tuple[str, ...] = ()
    signs: bool = False
    peak: int = PEAK
