"""A target: where the model will run. It lowers a torch model to an artifact and opens an artifact as something to call.

Targets are found through the entry-point group ``paretrim.targets``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from paretrim.errors import UsageError, nearest

if TYPE_CHECKING:
    import torch

    from paretrim.evaluators.artifact import Artifact
    from paretrim.evaluators.splits import Split

GROUP = "paretrim.targets"
Array = npt.NDArray[Any]
Session = Callable[[Array], Array]
"""``inputs (N, ...) -> outputs (N, ...)``."""


@dataclass(frozen=True)
class TargetSettings:
    """Where and how the model will run.

    Attributes:
        runtime: Name of the target.
        threads: Threads that compute one batch.
        batch_size: Samples per call when latency and memory are measured.
    """

    runtime: str = "onnxruntime"
    threads: int = 1
    batch_size: int = 1


@dataclass(frozen=True)
class LoweringRequest:
    """What to lower a model to.

    Attributes:
        input_shape: Shape of one sample.
        input_dtype: Name of the torch type of an input.
        weight_bits: Bits per weight by layer; a layer that is not named keeps 32-bit floats.
        calibration: Samples from which activation ranges are taken.
    """

    input_shape: tuple[int, ...]
    input_dtype: str
    weight_bits: Mapping[str, int] = field(default_factory=dict)
    calibration: Split | None = None


class Target(Protocol):
    """A runtime on a device with some settings."""

    settings: TargetSettings

    def lower(self, model: torch.nn.Module, request: LoweringRequest, folder: Path) -> Artifact:
        """Write a model as an artifact into a folder.

        Raises:
            LoweringError: The runtime cannot take this model.
        """
        ...

    def open(self, path: Path) -> Session:
        """Load an unpacked model file.

        Raises:
            ArtifactError: The runtime does not load it.
        """
        ...

    def empty(self, input_shape: tuple[int, ...], dtype: str, path: Path) -> None:
        """Write the smallest model that takes such inputs: what the runtime costs without a model."""
        ...

    def version(self) -> str:
        """Return the runtime's name and version."""
        ...


@dataclass(frozen=True)
class TargetAddress:
    """How another process makes the same target without looking through entry points."""

    factory: str
    settings: TargetSettings

    def build(self) -> Target:
        """Make the target."""
        module, _, name = self.factory.partition(":")
        target: Target = getattr(import_module(module), name)(self.settings)
        return target

    def to_plain(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> TargetAddress:
        """Read what `to_plain` wrote."""
        return cls(plain["factory"], TargetSettings(**plain["settings"]))


def find(settings: TargetSettings) -> TargetAddress:
    """Return the target of a runtime's name.

    Raises:
        UsageError: No target has that name.
    """
    known = {point.name: point.value for point in entry_points(group=GROUP)}
    if settings.runtime not in known:
        allowed = sorted(known)
        raise UsageError(
            f"unknown runtime '{settings.runtime}'; allowed: {', '.join(allowed)}{nearest(settings.runtime, allowed)}"
        )
    return TargetAddress(known[settings.runtime], settings)


def as_batch(inputs: Any) -> Array:
    """Return a tensor or array as a contiguous numpy array."""
    return np.ascontiguousarray(inputs.numpy() if hasattr(inputs, "numpy") else inputs)
