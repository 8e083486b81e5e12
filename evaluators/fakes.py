"""A target, an evaluator and a model on a device that stand in for the real ones, in tests of what uses them.

This module imports neither pytest nor torch, since a measuring process imports it for `FakeTarget`.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from zipfile import BadZipFile

import numpy as np

from paretrim.errors import ArtifactError, LoweringError
from paretrim.evaluators.abilities import Abilities
from paretrim.evaluators.artifact import Artifact, pack
from paretrim.evaluators.evaluator import Bench, Specimen
from paretrim.evaluators.measurement import Measurement
from paretrim.evaluators.signature import Signature
from paretrim.evaluators.target import Array, Batch, LoweringRequest, MainMemory, Session, TargetSettings
from paretrim.evaluators.weights import StoredTensor, Weights

if TYPE_CHECKING:
    from torch import nn


class FakeEvaluator:
    """Compares model files in bytes: an evaluator of a few lines, for tests of what handles evaluators."""

    metrics: ClassVar[tuple[str, ...]] = ("fake_ratio",)

    def measure(self, specimen: Specimen, bench: Bench) -> tuple[Measurement, ...]:
        """Return the size of the model file over that of the baseline."""
        ratio = specimen.model.stat().st_size / bench.baseline.stat().st_size
        return (Measurement("fake_ratio", ratio, how="unpacked model file over the baseline's"),)


class FakeResident:
    """Doubles its input on a device that is not there, whose clock runs while it computes: for tests of what times a device.

    Args:
        shape: Of a batch.
        call_s: Seconds that a call takes by the device's clock.
    """

    def __init__(self, shape: tuple[int, ...], call_s: float = 1e-4) -> None:
        self.example: Batch = (np.random.default_rng(0).standard_normal(shape).astype(np.float32),)
        self._inputs, self._outputs = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self._call_s, self._queued, self._done_s = call_s, 0, 0.0

    def fill(self, *batch: Array) -> None:
        """Copy a batch to where the model reads it."""
        (only,) = batch
        if only.shape != self._inputs.shape:
            raise ValueError(f"a batch of shape {only.shape} does not fit into {self._inputs.shape}")
        self._inputs[...] = only

    def launch(self) -> None:
        """Put a call into the queue."""
        self._queued += 1

    def fetch(self) -> Array:
        """Wait, and return a copy of the outputs."""
        self._wait()
        return self._outputs.copy()

    def mark(self) -> list[float]:
        """Return a mark after what is in the queue."""
        self._wait()
        return [self._done_s]

    def seconds(self, start: list[float], end: list[float]) -> float:
        """Return the time between two marks."""
        return end[0] - start[0]

    def _wait(self) -> None:
        if self._queued:
            self._outputs[...] = 2.0 * self._inputs
        self._done_s += self._queued * self._call_s
        self._queued = 0


class FakeTarget(MainMemory):
    """Runs multilayer perceptrons in numpy: a target that is quick and needs no runtime.

    It takes linear layers with ReLU between them; inputs are flattened. Its file is an npz of
    weights and biases; bits per weight are left to the packer.
    """

    takes: ClassVar[tuple[str, ...]] = ()

    def __init__(self, settings: TargetSettings) -> None:
        self.settings = settings

    def abilities(self) -> Abilities:
        """Return that it computes with 32-bit floats."""
        return Abilities(channel_multiple=1)

    def unavailable(self) -> str:
        """Return an empty string."""
        return ""

    def lower(self, model: nn.Module, request: LoweringRequest, folder: Path) -> Artifact:  # noqa: ARG002
        """Save the weights.

        Raises:
            LoweringError: The model is no multilayer perceptron.
        """
        leaves = [m for m in model.modules() if not list(m.children()) and type(m).__name__ != "Flatten"]
        kinds = [type(m).__name__ for m in leaves]
        if kinds != [*["Linear", "ReLU"] * (len(kinds) // 2), "Linear"]:
            raise LoweringError(f"the fake target takes linear layers with ReLU between them, not {kinds}")
        file = io.BytesIO()
        np.savez(file, *(array for layer in leaves[::2] for array in _weight_and_bias(layer)))
        return pack(file.getvalue(), folder)

    def open(self, path: Path) -> Session:
        """Load the weights.

        Raises:
            ArtifactError: The file is not one of weights.
        """
        arrays = list(_arrays(path).values())
        return lambda inputs: _perceptron(inputs, arrays[::2], arrays[1::2])

    def weigh(self, path: Path) -> Weights:
        """Return the arrays, which are held as they are stored.

        Raises:
            ArtifactError: The file is not one of weights.
        """
        arrays = _arrays(path)
        tensors = tuple(StoredTensor(name, str(a.dtype), a.shape, a.nbytes) for name, a in arrays.items())
        return Weights(tensors, sum(tensor.bytes for tensor in tensors))

    def empty(self, inputs: Signature, path: Path) -> None:  # noqa: ARG002
        """Write a file of no layers, which gives back its input."""
        with path.open("wb") as file:
            np.savez(file)

    def version(self) -> str:
        """Return the runtime's name and version."""
        return f"numpy {np.__version__}"


def _arrays(path: Path) -> dict[str, Array]:
    try:
        with np.load(path) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise ArtifactError(f"the fake target does not load the artifact: {error}") from error


def _weight_and_bias(layer: nn.Module) -> tuple[Array, Array]:
    named = {name: parameter.detach().numpy() for name, parameter in layer.named_parameters()}
    return named["weight"], named.get("bias", np.zeros(len(named["weight"]), np.float32))


def _perceptron(inputs: Array, weights: list[Array], biases: list[Array]) -> Array:
    outputs = inputs.reshape(len(inputs), -1)
    for position, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        outputs = np.maximum(outputs, 0) if position else outputs
        outputs = outputs @ weight.T + bias
    return outputs
