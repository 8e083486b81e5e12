"""A target: where the model will run. It lowers a torch model to an artifact and opens an artifact as something to call.

Targets are found through the entry-point group ``paretrim.targets``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy.typing as npt

from paretrim.errors import UsageError, nearest
from paretrim.evaluators.abilities import Abilities
from paretrim.evaluators.signature import Signature
from paretrim.evaluators.storage import Activation, Storage
from paretrim.evaluators.weights import Weights

if TYPE_CHECKING:
    import torch

    from paretrim.evaluators.artifact import Artifact
    from paretrim.evaluators.device_session import TimingSession
    from paretrim.evaluators.splits import Split

GROUP = "paretrim.targets"
Array = npt.NDArray[Any]
Batch = tuple[Array, ...]
"""What a session is called with: each input's array, shape ``(N, ...)``, in the order of the signature."""
Session = Callable[..., Array]
"""``(*inputs, each (N, ...)) -> outputs (N, ...)``; a call is complete when it returns."""
Activations = Literal["unsigned", "signed"]
Optimization = Literal["all", "extended", "basic", "off"]
ReduceRange = Literal["auto", "always", "never"]


@dataclass(frozen=True)
class TargetSettings:
    """Where and how the model will run.

    Attributes:
        runtime: Name of the target.
        threads: Threads that compute one batch.
        batch_size: Samples per call when latency and memory are measured.
        activations: Sign of the 8-bit activations between quantized layers.
        optimization: How far the runtime rewrites the graph when it loads one.
        reduce_range: Whether weights that are computed with as integers keep to 7 bits, so that sums of their products
            do not overflow on x86 processors without VNNI; ``auto`` does so where this machine's would.
    """

    runtime: str = "onnxruntime"
    threads: int = 1
    batch_size: int = 1
    activations: Activations = "unsigned"
    optimization: Optimization = "all"
    reduce_range: ReduceRange = "auto"


OPTIONAL = ("activations", "optimization", "reduce_range")
"""Settings that a target takes only when it says so in `Target.takes`."""


@dataclass(frozen=True)
class LoweringRequest:
    """What to lower a model to.

    Attributes:
        inputs: What one sample's inputs are.
        layers: How weights are stored: those of a layer by its module path, those of an embedding or a recurrent layer
            each by its own, as ``lstm.weight_ih_l0``. What is not named keeps 32-bit floats.
        calibration: Samples from which activation ranges are taken.
        activation: How what flows between integer layers is put into 8 bits.
    """

    inputs: Signature
    layers: Mapping[str, Storage] = field(default_factory=dict)
    calibration: Split | None = None
    activation: Activation = field(default_factory=Activation)


class Target(Protocol):
    """A runtime on a device with some settings.

    Its module is imported to look at the class, so it imports the runtime in the methods that need it.

    Attributes:
        takes: Which of the `OPTIONAL` settings it heeds; a job that gives another one is refused.
    """

    takes: ClassVar[tuple[str, ...]]
    settings: TargetSettings

    def unavailable(self) -> str:
        """Return why this machine cannot run the target and what to do about it, or an empty string when it can."""
        ...

    def abilities(self) -> Abilities:
        """Return what the runtime can do with compressed layers."""
        ...

    def lower(self, model: torch.nn.Module, request: LoweringRequest, folder: Path) -> Artifact:
        """Write a model as an artifact into a folder.

        Raises:
            LoweringError: The runtime cannot take this model.
        """
        ...

    def open(self, path: Path) -> Session:
        """Load an unpacked model file, whatever its name ends in.

        Raises:
            ArtifactError: The runtime does not load it.
        """
        ...

    def weigh(self, path: Path) -> Weights:
        """Return what an unpacked model file stores, and what the runtime holds of it.

        Raises:
            ArtifactError: The runtime does not load it.
        """
        ...

    def forget_device_peak(self) -> None:
        """Begin to look for the peak of `device_peak` anew."""
        ...

    def device_peak(self) -> tuple[int, int] | None:
        """Return the most bytes (allocated, reserved) on the device by this process since `forget_device_peak`.

        None for a target in main memory, where the operating system tells.
        """
        ...

    def empty(self, inputs: Signature, path: Path) -> None:
        """Write the smallest model that takes such inputs: what the runtime costs without a model."""
        ...

    def version(self) -> str:
        """Return the runtime's name and version."""
        ...


@runtime_checkable
class DeviceTarget(Target, Protocol):
    """A target on a device with memory and a clock of its own.

    Attributes:
        account: How `device_peak` is taken, in a few words.
    """

    account: ClassVar[str]

    def open_timed(self, path: Path) -> TimingSession:
        """Load an unpacked model file to be timed by the device's clock, for batches of the settings' size only.

        Raises:
            ArtifactError: The runtime does not load it.
        """
        ...


def on_device(target: Target) -> bool:
    """Tell whether a target computes on a device with memory of its own."""
    return target.device_peak() is not None


class MainMemory:
    """What targets without a device of their own have in common."""

    def forget_device_peak(self) -> None:
        """Forget nothing: there is no device."""

    def device_peak(self) -> tuple[int, int] | None:
        """Return None: there is no device."""
        return None


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
        UsageError: No target has that name, or it does not take a setting that was changed.
    """
    known = {point.name: point for point in entry_points(group=GROUP)}
    if settings.runtime not in known:
        allowed = sorted(known)
        raise UsageError(
            f"unknown runtime '{settings.runtime}'; allowed: {', '.join(allowed)}{nearest(settings.runtime, allowed)}"
        )
    for name in OPTIONAL:
        value = getattr(settings, name)
        if value != getattr(TargetSettings, name) and name not in known[settings.runtime].load().takes:
            takers = sorted(other for other, point in known.items() if name in point.load().takes)
            raise UsageError(
                f"{name} '{value}' was given, and the runtime '{settings.runtime}' does not take this setting; leave it out, "
                f"or choose a runtime that does: {', '.join(takers)}"
            )
    return TargetAddress(known[settings.runtime].value, settings)
