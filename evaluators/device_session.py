"""Timing on a device with a clock of its own: between marks in its queue of work, with one batch that lies there.

A runtime gives a `Resident`: a model on the device, with room for a batch of one size and for its outputs. What is done with
it is the same for all runtimes, and is tested without a device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from paretrim.errors import ArtifactError
from paretrim.evaluators.target import Array, Batch

Floats = npt.NDArray[np.float64]
# A graph replays the same work, but a library may choose another algorithm while one is captured.
_ALIKE = 1e-3


@runtime_checkable
class TimingSession(Protocol):
    """A session that tells by a clock of its own how long its calls took.

    Attributes:
        how: What was timed, in a few words.
    """

    how: str

    def __call__(self, *inputs: Array) -> Array:
        """Answer a batch of the target's batch size, from main memory to main memory."""
        ...

    def clock(self, batches: Sequence[Batch]) -> Floats:
        """Return the seconds of as many calls as there are batches, one after the other without a pause."""
        ...


class Resident(Protocol):
    """A model on a device, with its inputs and outputs there: the few calls that differ between runtimes.

    Attributes:
        example: A batch that it takes.
    """

    example: Batch

    def fill(self, *batch: Array) -> None:
        """Copy a batch to where the model reads it."""
        ...

    def launch(self) -> None:
        """Begin to compute, and return before that is done."""
        ...

    def fetch(self) -> Array:
        """Wait, and return a copy of the outputs."""
        ...

    def mark(self) -> Any:
        """Return a mark after all that was begun so far."""
        ...

    def seconds(self, start: Any, end: Any) -> float:
        """Wait for the later of two marks, and return the time between them."""
        ...


class DeviceSession:
    """A `TimingSession` of a resident model."""

    def __init__(self, resident: Resident, how: str) -> None:
        self._resident, self.how = resident, how

    def __call__(self, *inputs: Array) -> Array:
        """Answer a batch."""
        self._resident.fill(*inputs)
        self._resident.launch()
        return self._resident.fetch()

    def clock(self, batches: Sequence[Batch]) -> Floats:
        """Return the seconds of calls of the first batch: what they compute does not depend on what the numbers are."""
        resident = self._resident
        resident.fill(*batches[0])
        marks = [resident.mark()]
        for _ in batches:
            resident.launch()
            marks.append(resident.mark())
        # The whole first: it waits for the last mark, and with it for all.
        whole = resident.seconds(marks[0], marks[-1])
        parts = np.array([resident.seconds(*pair) for pair in pairwise(marks)])
        # Each part is rounded to the clock's steps; their sum is the whole.
        return parts * (whole / parts.sum()) if parts.sum() > 0 else np.full(len(batches), whole / len(batches))


def opened(plain: Callable[[], Resident], graph: Callable[[], Resident]) -> DeviceSession:
    """Open a model as a captured graph, or without one where that does not do, and say which.

    Args:
        plain: Opens it without a graph.
        graph: Opens it as a graph, or raises.

    Raises:
        Exception: It does not open without a graph either, or does not answer.
    """
    try:
        resident = graph()
        session = DeviceSession(
            resident, "on the device, as a CUDA graph; copies to and from main memory are not in it"
        )
        session(*resident.example)
    except Exception as error:  # noqa: BLE001 - whatever a runtime says of what it cannot capture
        why = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        resident = plain()
        session = DeviceSession(
            resident,
            f"on the device, without a CUDA graph, which could not be captured ({why:.200}); copies are not in it",
        )
        session(*resident.example)
    return session


def check_alike(answer: Array, expected: Array) -> None:
    """Check that a captured graph answers as the model does.

    Raises:
        ArtifactError: It does not.
    """
    gap = float(np.abs(answer.astype(np.float64) - expected).max()) if answer.shape == expected.shape else np.inf
    if not gap <= _ALIKE * max(1.0, float(np.abs(expected).max())):
        raise ArtifactError(f"its answers differ from the model's by {gap:.3g}")


def example_batch(shape: Sequence[int], dtype: Any, seed: int = 0) -> Array:
    """Return a random batch for a model: floats around zero, or small integers."""
    source = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    return (source.standard_normal(shape) if kind.kind == "f" else source.integers(0, 2, shape)).astype(kind)
