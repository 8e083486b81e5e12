"""What all workers of a search take from Ray's store, opened where it is needed and not before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import ray

T = TypeVar("T")


@dataclass(frozen=True)
class Sealed(Generic[T]):
    """A value in Ray's store. Ray leaves it there until `opened` is asked for; a user's model may not load in a worker.

    Attributes:
        reference: Ray's reference to it.
    """

    reference: Any

    def opened(self) -> T:
        """Return the value."""
        found: T = ray.get(self.reference)
        return found


def sealed(value: T) -> Sealed[T]:
    """Put a value into Ray's store."""
    return Sealed(ray.put(value))
