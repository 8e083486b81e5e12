"""The inputs of a model as its exported file has them: names, shapes and types. Free of torch, since what serves a file is."""

from __future__ import annotations

from dataclasses import dataclass

INPUT = "input"
"""What the only input is called, where the model gives it no name."""


@dataclass(frozen=True)
class Part:
    """One input.

    Attributes:
        name: What it is called in the exported file.
        shape: Of one sample.
        dtype: Name of its type, such as ``float32`` or ``int64``.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"


@dataclass(frozen=True)
class Signature:
    """All inputs of a model, in the order in which a session takes them.

    Attributes:
        parts: The inputs.
        named: Whether the torch model takes them by name rather than by position.
    """

    parts: tuple[Part, ...]
    named: bool = False

    @classmethod
    def single(cls, shape: tuple[int, ...], dtype: str = "float32") -> Signature:
        """Return that of a model of one input."""
        return cls((Part(INPUT, tuple(shape), dtype),))

    @staticmethod
    def positions(count: int) -> tuple[str, ...]:
        """Return what inputs are called that the model takes by position."""
        return (INPUT,) if count == 1 else tuple(f"{INPUT}_{i}" for i in range(count))

    @property
    def names(self) -> tuple[str, ...]:
        """What the inputs are called in the exported file."""
        return tuple(part.name for part in self.parts)

    @property
    def image(self) -> bool:
        """Whether the only input is a picture of floats, (channels, height, width)."""
        only = self.parts[0]
        return len(self.parts) == 1 and len(only.shape) == 3 and only.dtype.startswith(("float", "bfloat"))

    def described(self) -> str:
        """Return them in words."""
        words = [f"{part.dtype} of shape {part.shape}" for part in self.parts]
        if len(words) == 1:
            return words[0]
        return "; ".join(f"{part.name}: {word}" for part, word in zip(self.parts, words, strict=True))
