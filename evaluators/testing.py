"""What every target and every evaluator keeps to, as tests that the author of one runs on it.

Subclass a contract in a test file of yours and give it one pytest fixture::

    class TestMine(TargetContract):
        @pytest.fixture
        def address(self) -> TargetAddress:
            return TargetAddress("mine.target:MyRuntime", TargetSettings(runtime="mine"))

    class TestMyEvaluator(EvaluatorContract):
        @pytest.fixture
        def evaluator(self) -> Evaluator:
            return MyEvaluator()

This module imports neither pytest nor torch, since a measuring process imports it for `FakeTarget`.
"""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from zipfile import BadZipFile

import numpy as np

from paretrim.errors import ArtifactError, LoweringError
from paretrim.evaluators import evaluator as evaluators
from paretrim.evaluators.artifact import Artifact, pack
from paretrim.evaluators.evaluator import Bench, Evaluator, Specimen
from paretrim.evaluators.lane import Lane
from paretrim.evaluators.measurement import Measurement
from paretrim.evaluators.target import Array, LoweringRequest, Session, TargetAddress, TargetSettings

if TYPE_CHECKING:
    from torch import nn

ONNX = TargetAddress("paretrim.evaluators.onnx_target:OnnxRuntimeCpu", TargetSettings())
INPUT_SHAPE = (6,)


def small_mlp(width: int = 16, seed: int = 0) -> nn.Module:
    """Return a network of three linear layers: ``(N, 6)`` to ``(N, 4)``, in evaluation mode."""
    import torch  # noqa: PLC0415

    layers = torch.nn
    net = layers.Sequential(
        layers.Linear(INPUT_SHAPE[0], width),
        layers.ReLU(),
        layers.Linear(width, width),
        layers.ReLU(),
        layers.Linear(width, 4),
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(0.0, 1.0 / math.sqrt(parameter.shape[-1]), generator=generator)
    return net.eval()


def random_inputs(count: int, shape: tuple[int, ...] = INPUT_SHAPE, seed: int = 0) -> Array:
    """Return float32 inputs, shape ``(count, *shape)``."""
    return np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32)


def specimen(address: TargetAddress, model: nn.Module, shape: tuple[int, ...], folder: Path) -> Specimen:
    """Lower a model into a folder, unpack it there, and return what an evaluator measures."""
    artifact = address.build().lower(model, LoweringRequest(shape, "float32"), folder)
    path = folder / f"{artifact.sha256}.onnx"
    path.write_bytes(artifact.read())
    return Specimen(artifact, path)


def bench(address: TargetAddress, baseline: Specimen, shape: tuple[int, ...], folder: Path) -> Bench:
    """Lay out a bench in a folder, with a lane of its own."""
    samples = random_inputs(8 * address.settings.batch_size, shape)
    return evaluators.set_up(address, baseline.artifact, samples, folder, Lane(folder / "lane"))


class TargetContract:
    """What a target keeps to. A subclass gives the pytest fixture ``address``.

    Attributes:
        input_shape: Shape of one sample of `model`.
    """

    input_shape: ClassVar[tuple[int, ...]] = INPUT_SHAPE

    def model(self) -> nn.Module:
        """Return the network to lower; override it to try the target on another."""
        return small_mlp()

    def test_the_artifact_answers_as_torch_does(self, address: TargetAddress, tmp_path: Path) -> None:
        """Without quantization, only rounding may differ."""
        inputs = random_inputs(5, self.input_shape)
        gap = _gap(_lowered(self, address, tmp_path)(inputs), _answers(self.model(), inputs))
        _require(gap < 1e-4, f"outputs differ from torch's by {gap:.3g} of their size")

    def test_the_batch_size_is_free(self, address: TargetAddress, tmp_path: Path) -> None:
        """Accuracy is scored in large batches, latency in those of the settings."""
        session = _lowered(self, address, tmp_path)
        inputs = random_inputs(7, self.input_shape)
        whole = session(inputs)
        for size in (1, 2, 3):
            part = session(inputs[:size])
            _require(part.shape == (size, *whole.shape[1:]), f"a batch of {size} gives outputs of {part.shape}")
            gap = _gap(part, whole[:size])
            _require(gap < 1e-4, f"a batch of {size} gives other outputs than one of 7, by {gap:.3g}")

    def test_layers_of_8_bits_answer_nearly_as_torch_does(self, address: TargetAddress, tmp_path: Path) -> None:
        """A target may ignore the bits, but it must not answer wrongly because of them."""
        inputs = random_inputs(64, self.input_shape)
        bits = {name: 8 for name, _ in _layers(self.model())}
        gap = _gap(_lowered(self, address, tmp_path, bits)(inputs), _answers(self.model(), inputs))
        _require(gap < 0.1, f"at 8 bits, outputs differ from torch's by {gap:.3g} of their size")

    def test_a_model_can_be_lowered_again(self, address: TargetAddress, tmp_path: Path) -> None:
        """An artifact is known by its hash, and the model is scored and counted after it was lowered."""
        model, inputs = self.model(), random_inputs(5, self.input_shape)
        request, before = LoweringRequest(self.input_shape, "float32"), _answers(model, inputs)
        first, second = (address.build().lower(model, request, tmp_path / name) for name in ("first", "second"))
        _require(first.sha256 == second.sha256, "one model lowered twice gives two different files")
        _require(np.array_equal(before, _answers(model, inputs)), "lowering changes what the model answers")

    def test_the_empty_model_runs(self, address: TargetAddress, tmp_path: Path) -> None:
        """Memory is measured above that of a process with an empty model."""
        target, path = address.build(), tmp_path / "empty"
        target.empty(self.input_shape, "float32", path)
        outputs = target.open(path)(random_inputs(3, self.input_shape))
        _require(len(outputs) == 3, f"the empty model answers a batch of 3 with {len(outputs)}")

    def test_a_damaged_file_raises_artifact_error(self, address: TargetAddress, tmp_path: Path) -> None:
        """What a user sees must say what is wrong."""
        path = tmp_path / "damaged"
        path.write_bytes(b"this is no model")
        try:
            address.build().open(path)
        except ArtifactError as error:
            _require(bool(str(error)), "the error has no message")
        else:
            raise AssertionError("a damaged file opens without an error")

    def test_the_address_goes_through_json(self, address: TargetAddress) -> None:
        """Measuring processes make their target from JSON."""
        read = TargetAddress.from_plain(json.loads(json.dumps(address.to_plain())))
        _require(read == address, f"{address} comes back as {read}")
        built = read.build()
        _require(built.settings == address.settings, "the target's settings are not those of its address")
        _require(bool(built.version()), "version() is empty")


class EvaluatorContract:
    """What an evaluator keeps to. A subclass gives the pytest fixture ``evaluator``."""

    def address(self) -> TargetAddress:
        """Return the target on which the evaluator is tried; override it to try another."""
        return ONNX

    def test_metrics_are_named(self, evaluator: Evaluator) -> None:
        """A search is run on names."""
        names = evaluator.metrics
        _require(len(names) > 0, "metrics is empty")
        _require(len(set(names)) == len(names), f"metrics has a name twice: {names}")

    def test_measurements_are_finite_and_cover_the_metrics(self, evaluator: Evaluator, tmp_path: Path) -> None:
        """Less is better, zero is best, and intervals hold their value."""
        found = _measured(evaluator, self.address(), tmp_path)
        names = [each.name for each in found]
        _require(len(set(names)) == len(names), f"a name is given twice: {names}")
        missing = set(evaluator.metrics) - set(names)
        _require(not missing, f"{sorted(missing)} are declared in metrics, but not measured")
        for each in found:
            _check_numbers(each)

    def test_measuring_again_gives_the_same_names(self, evaluator: Evaluator, tmp_path: Path) -> None:
        """One evaluator measures all trials of a process, and leaves their files alone."""
        address = self.address()
        baseline = specimen(address, small_mlp(), INPUT_SHAPE, tmp_path)
        other = specimen(address, small_mlp(24, seed=1), INPUT_SHAPE, tmp_path)
        place = bench(address, baseline, INPUT_SHAPE, tmp_path)
        first, second = (evaluator.measure(each, place) for each in (baseline, other))
        _require([m.name for m in first] == [m.name for m in second], "names differ from model to model")
        _require(other.model.read_bytes() == other.artifact.read(), "measuring changed the model file")


class FakeEvaluator:
    """Compares model files in bytes: an evaluator of a few lines, for tests of what handles evaluators."""

    metrics: ClassVar[tuple[str, ...]] = ("fake_ratio",)

    def measure(self, specimen: Specimen, bench: Bench) -> tuple[Measurement, ...]:
        """Return the size of the model file over that of the baseline."""
        ratio = specimen.model.stat().st_size / bench.baseline.stat().st_size
        return (Measurement("fake_ratio", ratio, how="unpacked model file over the baseline's"),)


class FakeTarget:
    """Runs multilayer perceptrons in numpy: a target that is quick and needs no runtime.

    It takes linear layers with ReLU between them; inputs are flattened. Its file is an npz of
    weights and biases; bits per weight are left to the packer.
    """

    def __init__(self, settings: TargetSettings) -> None:
        self.settings = settings

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
        try:
            with np.load(path) as file:
                arrays = [file[name] for name in file.files]
        except (OSError, ValueError, EOFError, BadZipFile) as error:
            raise ArtifactError(f"the fake target does not load the artifact: {error}") from error
        return lambda inputs: _perceptron(inputs, arrays[::2], arrays[1::2])

    def empty(self, input_shape: tuple[int, ...], dtype: str, path: Path) -> None:  # noqa: ARG002
        """Write a file of no layers, which gives back its input."""
        with path.open("wb") as file:
            np.savez(file)

    def version(self) -> str:
        """Return the runtime's name and version."""
        return f"numpy {np.__version__}"


def _weight_and_bias(layer: nn.Module) -> tuple[Array, Array]:
    named = {name: parameter.detach().numpy() for name, parameter in layer.named_parameters()}
    return named["weight"], named.get("bias", np.zeros(len(named["weight"]), np.float32))


def _perceptron(inputs: Array, weights: list[Array], biases: list[Array]) -> Array:
    outputs = inputs.reshape(len(inputs), -1)
    for position, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        outputs = np.maximum(outputs, 0) if position else outputs
        outputs = outputs @ weight.T + bias
    return outputs


def _layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    kinds = ("Conv1d", "Conv2d", "Conv3d", "Linear")
    return [(name, module) for name, module in model.named_modules() if type(module).__name__ in kinds]


def _lowered(
    subject: TargetContract, address: TargetAddress, folder: Path, bits: dict[str, int] | None = None
) -> Session:
    from paretrim.evaluators.splits import Split  # noqa: PLC0415

    target = address.build()
    samples = random_inputs(64, subject.input_shape)
    request = LoweringRequest(
        subject.input_shape,
        "float32",
        bits or {},
        Split((samples, np.zeros(len(samples), np.int64)), "calibration"),
    )
    with target.lower(subject.model(), request, folder).unpacked() as path:
        return target.open(path)


def _answers(model: nn.Module, inputs: Array) -> Array:
    import torch  # noqa: PLC0415

    answers: Array = model(torch.from_numpy(inputs)).detach().numpy()
    return answers


def _gap(outputs: Array, expected: Array) -> float:
    return float(np.abs(outputs - expected).max() / np.abs(expected).max())


def _measured(evaluator: Evaluator, address: TargetAddress, folder: Path) -> tuple[Measurement, ...]:
    subject = specimen(address, small_mlp(), INPUT_SHAPE, folder)
    return evaluator.measure(subject, bench(address, subject, INPUT_SHAPE, folder))


def _check_numbers(measurement: Measurement) -> None:
    value = measurement.value
    low = value if measurement.low is None else measurement.low
    high = value if measurement.high is None else measurement.high
    _require(all(map(math.isfinite, (value, low, high))), f"{measurement} is not finite")
    _require(value >= 0, f"{measurement} is below zero")
    _require(low <= value <= high, f"{measurement} lies outside its interval")


def _require(kept: bool, otherwise: str) -> None:
    if not kept:
        raise AssertionError(otherwise)
