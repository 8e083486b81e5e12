"""What an evaluator is: it measures an artifact on a target and gives one or more measurements.

Evaluators are found through the entry-point group ``paretrim.evaluators``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np

from paretrim.evaluators import cores, cuda_driver
from paretrim.evaluators.artifact import Artifact
from paretrim.evaluators.lane import Lane
from paretrim.evaluators.measurement import Measurement
from paretrim.evaluators.signature import Part, Signature
from paretrim.evaluators.target import Array, TargetAddress, on_device

GROUP = "paretrim.evaluators"


@dataclass(frozen=True)
class Bench:
    """Where artifacts are measured.

    Attributes:
        address: The target, also for processes that measure on it.
        baseline: The unpacked baseline model, for measurements that are taken beside it.
        empty: The smallest model that takes the same inputs.
        inputs: A file of different batches: an array for each input, shape ``(K, batch, ...)``.
        lane: Keeps training out while something is timed.
        reference_ms: The baseline's latency when the search began; None while that is not known.
        cores: Cores to measure on.
        throughput_batches: Batch sizes at which to take the throughput.
        on_device: Whether the target computes on a device with memory of its own; the lane is then that device's too.
    """

    address: TargetAddress
    baseline: Path
    empty: Path
    inputs: Path
    lane: Lane
    reference_ms: float | None = None
    cores: tuple[int, ...] = ()
    throughput_batches: tuple[int, ...] = ()
    on_device: bool = False


def set_up(address: TargetAddress, baseline: Artifact, samples: Mapping[str, Array], folder: Path, lane: Lane) -> Bench:
    """Lay out a bench in a folder, on the last cores that this process may use.

    Args:
        address: The target.
        baseline: The uncompressed model's artifact.
        samples: Inputs by their names in the artifact, each of shape ``(N, ...)``; cut into batches of the target's size.
        folder: A folder of this process; made when it is missing.
        lane: The machine's measuring lane.
    """
    folder.mkdir(parents=True, exist_ok=True)
    suffix = Path(baseline.path.stem).suffix
    target = address.build()
    files = (folder / f"baseline{suffix}", folder / f"empty{suffix}", folder / "inputs.npz")
    bench = Bench(address, *files, lane, cores=cores.last(address.settings.threads))
    if on_device(target):
        # Alone on the GPU too: the first that this process sees, as in the processes that measure.
        bench = replace(bench, lane=lane.measuring_on(cuda_driver.visible()[:1]), on_device=True)
    bench.baseline.write_bytes(baseline.read())
    parts = tuple(Part(name, each.shape[1:], str(each.dtype)) for name, each in samples.items())
    target.empty(Signature(parts), bench.empty)
    size = address.settings.batch_size
    batches = max(1, len(next(iter(samples.values()))) // size)
    # By position, as a session takes them.
    np.savez(bench.inputs, *(np.resize(each, (batches, size, *each.shape[1:])) for each in samples.values()))
    return bench


@dataclass(frozen=True)
class Specimen:
    """An artifact that is being measured.

    Attributes:
        artifact: The shipped file.
        model: Its unpacked model file.
    """

    artifact: Artifact
    model: Path


class Evaluator(Protocol):
    """Gives one or more measurements of an artifact.

    Attributes:
        metrics: Names of the numbers that it gives and that a search may be run on; less is better.
    """

    metrics: ClassVar[tuple[str, ...]]

    def measure(self, specimen: Specimen, bench: Bench) -> tuple[Measurement, ...]:
        """Measure an artifact.

        Raises:
            MeasurementError: It could not be measured; says why.
        """
        ...


@runtime_checkable
class OptionalEvaluator(Evaluator, Protocol):
    """An evaluator that some machines do not have what it takes for."""

    def absent(self) -> str:
        """Return why it cannot measure on this machine, or nothing when it can."""
        ...


@runtime_checkable
class PreviewingEvaluator(Evaluator, Protocol):
    """An evaluator that tells something of a candidate before it is trained."""

    def preview(self, specimen: Specimen, bench: Bench) -> tuple[Measurement, ...]:
        """Measure, in less time than `measure` takes, an artifact with weights that are not trained yet.

        Returns:
            Numbers under the names that `measure` gives them: such as hardly depend on the weights, and the size.

        Raises:
            MeasurementError: It could not be measured; says why.
        """
        ...


def installed() -> dict[str, Evaluator]:
    """Return one evaluator of each kind, by name: this package's and those of other packages."""
    return {point.name: point.load()() for point in entry_points(group=GROUP)}


def why_absent(evaluator: Evaluator) -> str:
    """Return why an evaluator cannot measure on this machine, or nothing when it can."""
    return evaluator.absent() if isinstance(evaluator, OptionalEvaluator) else ""
