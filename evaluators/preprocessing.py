"""What is done to raw inputs before a model takes them, said in numbers, so that a bundle can carry it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from paretrim.errors import DataError


@dataclass(frozen=True)
class Preprocessing:
    """How raw inputs become what the model takes: ``(raw * scale - mean) / std`` in 32-bit floats.

    In this order: channels are moved to the front, each sample is given its shape, then the numbers are changed.

    Attributes:
        scale: Factor of all values, such as 1 / 255.
        mean: Of each channel, subtracted after that; empty for none. Channels are the first axis of a sample.
        std: Of each channel, divided by; empty for none.
        channels_last: Whether raw samples have their channels last.
        shape: Shape of one sample as the model takes it, where raw samples have another one; empty where not.

    Raises:
        DataError: A number is not finite, a deviation is zero, or means and deviations differ in number.
    """

    scale: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    channels_last: bool = False
    shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Check the numbers, which may come as arrays."""
        object.__setattr__(self, "scale", float(self.scale))
        object.__setattr__(self, "mean", tuple(float(each) for each in self.mean))
        object.__setattr__(self, "std", tuple(float(each) for each in self.std))
        object.__setattr__(self, "shape", tuple(int(each) for each in self.shape))
        if not all(math.isfinite(number) for number in (self.scale, *self.mean, *self.std)):
            raise DataError("preprocessing: scale, mean and std must be finite numbers")
        if any(number == 0.0 for number in (self.scale, *self.std)):
            raise DataError("preprocessing: neither scale nor a std may be zero")
        if self.mean and self.std and len(self.mean) != len(self.std):
            raise DataError(
                f"preprocessing: {len(self.mean)} means and {len(self.std)} standard deviations were given; give one of each "
                "for each channel"
            )
