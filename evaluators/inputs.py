"""What a model is called with: one tensor, several by position, or several by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from paretrim.errors import DataError
from paretrim.evaluators.signature import Part, Signature
from paretrim.evaluators.target import Array

Tensor = torch.Tensor


@dataclass(frozen=True, eq=False)
class Inputs:
    """Some samples as a model takes them.

    Attributes:
        parts: The tensors, each of shape ``(N, ...)``.
        names: What the model calls them, where it takes them by name; empty where it takes them by position.
    """

    parts: tuple[Tensor, ...]
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, given: Any) -> Inputs:
        """Return a tensor or array, a tuple of some, or a mapping of names to some, as inputs.

        Raises:
            DataError: It is something else, or their first dimensions differ.
        """
        if isinstance(given, Inputs):
            return given
        if isinstance(given, Mapping):
            found = cls(tuple(as_tensor(part) for part in given.values()), tuple(str(name) for name in given))
        elif several(given):
            found = cls(tuple(as_tensor(part) for part in given))
        else:
            found = cls((as_tensor(given),))
        if not found.parts:
            raise DataError("a model's inputs are empty; give one tensor, a tuple, or a mapping of names to tensors")
        lengths = {len(part) if part.dim() else 0 for part in found.parts}
        if len(lengths) > 1:
            raise DataError(f"the inputs are {found.described()}; their first dimensions, the samples, must be equal")
        return found

    def __len__(self) -> int:
        return len(self.parts[0])

    def __getitem__(self, index: Tensor | slice) -> Inputs:
        return self.each(lambda part: part[index])

    def each(self, change: Callable[[Tensor], Tensor]) -> Inputs:
        """Return them with every tensor changed."""
        return Inputs(tuple(change(part) for part in self.parts), self.names)

    def to(self, device: torch.device | str) -> Inputs:
        """Return them on a device; the same where they are there already."""
        there = self.each(lambda part: part.to(device))
        return self if all(a is b for a, b in zip(there.parts, self.parts, strict=True)) else there

    def through(self, model: Callable[..., Any]) -> Any:
        """Return what a model makes of them."""
        return model(**dict(zip(self.names, self.parts, strict=True))) if self.names else model(*self.parts)

    def arguments(self) -> dict[str, Tensor] | tuple[Tensor, ...]:
        """Return them as a mapping where the model takes them by name, else as a tuple."""
        return dict(zip(self.names, self.parts, strict=True)) if self.names else self.parts

    def arrays(self) -> tuple[Array, ...]:
        """Return them as contiguous numpy arrays, as a session takes them."""
        return tuple(np.ascontiguousarray(part.detach().cpu().numpy()) for part in self.parts)

    def samples(self) -> Iterator[Inputs]:
        """Yield each sample alone, without the dimension of samples."""
        return (self.each(lambda part, i=i: part[i]) for i in range(len(self)))  # type: ignore[misc]

    @property
    def only(self) -> Tensor:
        """The tensor of a model that takes one."""
        (part,) = self.parts
        return part

    @property
    def signature(self) -> Signature:
        """What one sample's inputs are."""
        names = self.names or Signature.positions(len(self.parts))
        parts = zip(names, self.parts, strict=True)
        return Signature(
            tuple(Part(name, tuple(part.shape[1:]), str(part.dtype).removeprefix("torch.")) for name, part in parts),
            bool(self.names),
        )

    def described(self) -> str:
        """Return types and shapes in words."""
        words = [f"{part.dtype} of shape {tuple(part.shape)}" for part in self.parts]
        if self.names:
            words = [f"{name}: {word}" for name, word in zip(self.names, words, strict=True)]
        return "; ".join(words)


def joined(parts: Sequence[Inputs]) -> Inputs:
    """Return inputs after one another."""
    columns = zip(*(each.parts for each in parts), strict=True)
    return Inputs(tuple(torch.cat(column) for column in columns), parts[0].names)


def zeros(signature: Signature, count: int) -> Inputs:
    """Return inputs of zeros for so many samples."""
    parts = tuple(torch.zeros((count, *part.shape), dtype=getattr(torch, part.dtype)) for part in signature.parts)
    return Inputs(parts, signature.names if signature.named else ())


def several(given: Any) -> bool:
    """Tell whether something is several arrays rather than one: a tuple or list of arrays or tensors."""
    return (
        isinstance(given, tuple | list)
        and bool(given)
        and all(isinstance(part, Tensor | np.ndarray) and part.ndim > 0 for part in given)
    )


def as_tensor(data: Any) -> Tensor:
    """Return an array or tensor as a tensor; doubles become 32-bit floats."""
    found = data if isinstance(data, Tensor) else torch.as_tensor(np.asarray(data))
    found = found.detach() if found.requires_grad else found
    return found.float() if found.dtype == torch.float64 else found
