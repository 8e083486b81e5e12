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

Fakes that stand in for the real ones are in evaluators/fakes.py.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from unittest import SkipTest

import numpy as np

from paretrim.errors import ArtifactError
from paretrim.evaluators import evaluator as evaluators
from paretrim.evaluators.artifact import Artifact
from paretrim.evaluators.evaluator import Bench, Evaluator, PreviewingEvaluator, Specimen
from paretrim.evaluators.lane import Lane
from paretrim.evaluators.measurement import Measurement
from paretrim.evaluators.signature import INPUT, Signature
from paretrim.evaluators.storage import of_widths
from paretrim.evaluators.target import (
    OPTIONAL,
    Array,
    LoweringRequest,
    Session,
    Target,
    TargetAddress,
    TargetSettings,
)

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
    artifact = address.build().lower(model, LoweringRequest(Signature.single(shape)), folder)
    path = folder / f"{artifact.sha256}.onnx"
    path.write_bytes(artifact.read())
    return Specimen(artifact, path)


def bench(address: TargetAddress, baseline: Specimen, shape: tuple[int, ...], folder: Path) -> Bench:
    """Lay out a bench in a folder, with a lane of its own."""
    samples = {INPUT: random_inputs(8 * address.settings.batch_size, shape)}
    return evaluators.set_up(address, baseline.artifact, samples, folder, Lane(folder / "lane"))


class TargetContract:
    """What a target keeps to. A subclass gives the pytest fixture ``address``.

    Where the target cannot run, the tests are skipped with its own reason.

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
        gap = _gap(_opened(self, address, tmp_path)(inputs), _answers(self.model(), inputs))
        _require(gap < 1e-4, f"outputs differ from torch's by {gap:.3g} of their size")

    def test_the_batch_size_is_free(self, address: TargetAddress, tmp_path: Path) -> None:
        """Accuracy is scored in large batches, latency in those of the settings."""
        session = _opened(self, address, tmp_path)
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
        gap = _gap(_opened(self, address, tmp_path, bits)(inputs), _answers(self.model(), inputs))
        _require(gap < 0.1, f"at 8 bits, outputs differ from torch's by {gap:.3g} of their size")

    def test_a_model_can_be_lowered_again(self, address: TargetAddress, tmp_path: Path) -> None:
        """An artifact is known by its hash, and the model is scored and counted after it was lowered."""
        model, inputs = self.model(), random_inputs(5, self.input_shape)
        request, before = LoweringRequest(Signature.single(self.input_shape)), _answers(model, inputs)
        first, second = (_usable(address).lower(model, request, tmp_path / name) for name in ("first", "second"))
        _require(first.sha256 == second.sha256, "one model lowered twice gives two different files")
        _require(np.array_equal(before, _answers(model, inputs)), "lowering changes what the model answers")

    def test_the_empty_model_runs(self, address: TargetAddress, tmp_path: Path) -> None:
        """Memory is measured above that of a process with an empty model."""
        target, path = _usable(address), tmp_path / "empty"
        target.empty(Signature.single(self.input_shape), path)
        outputs = target.open(path)(random_inputs(3, self.input_shape))
        _require(len(outputs) == 3, f"the empty model answers a batch of 3 with {len(outputs)}")

    def test_a_damaged_file_raises_artifact_error(self, address: TargetAddress, tmp_path: Path) -> None:
        """What a user sees must say what is wrong."""
        target, path = _usable(address), tmp_path / "damaged"
        path.write_bytes(b"this is no model")
        for act in (target.open, target.weigh):
            try:
                act(path)
            except ArtifactError as error:
                _require(bool(str(error)), "the error has no message")
            else:
                raise AssertionError("a damaged file loads without an error")

    def test_an_answer_is_kept_when_the_next_is_computed(self, address: TargetAddress, tmp_path: Path) -> None:
        """Answers are collected before they are scored, and two models are open when one is timed beside the other."""
        first, second = (_opened(self, address, tmp_path) for _ in range(2))
        inputs = random_inputs(6, self.input_shape)
        answer = first(inputs[:3])
        before = answer.copy()
        first(inputs[3:])
        second(inputs[3:])
        _require(np.array_equal(answer, before), "a later call overwrites the answer of an earlier one")
        _require(np.array_equal(first(inputs[:3]), before), "one model gives two answers to the same inputs")

    def test_the_weights_are_told(self, address: TargetAddress, tmp_path: Path) -> None:
        """What is stored fits in the file, and what is held is told in bytes."""
        target = _usable(address)
        with _lowered(self, target, tmp_path).unpacked() as path:
            weights, size = target.weigh(path), path.stat().st_size
        _require(len(weights.tensors) > 0, "no tensor is stored")
        names = [tensor.name for tensor in weights.tensors]
        _require(len(set(names)) == len(names), f"a tensor's name is given twice: {names}")
        _require(0 < weights.stored_bytes <= size, f"{weights.stored_bytes} bytes are stored in a file of {size}")
        _require(weights.held_bytes > 0, "held_bytes is not above zero")
        _require(bool(json.dumps(asdict(weights))), "the weights do not go through JSON")

    def test_the_peak_of_a_device_is_told(self, address: TargetAddress, tmp_path: Path) -> None:
        """None in main memory; else what the process allocated, and the more that it reserved."""
        target = _usable(address)
        target.forget_device_peak()
        with _lowered(self, target, tmp_path).unpacked() as path:
            target.open(path)(random_inputs(3, self.input_shape))
        peak = target.device_peak()
        _require(peak is None or 0 < peak[0] <= peak[1], f"{peak} is no pair of bytes, (allocated, reserved)")

    def test_it_says_whether_this_machine_can_run_it(self, address: TargetAddress) -> None:
        """A search is refused with this before any work."""
        reason = address.build().unavailable()
        _require(isinstance(reason, str), f"unavailable() gives a {type(reason).__name__}")
        _require(len(reason.splitlines()) <= 1, f"the reason takes more than one line: {reason}")

    def test_the_settings_that_it_takes_are_known(self, address: TargetAddress) -> None:
        """A job is refused when it gives another."""
        unknown = set(address.build().takes) - set(OPTIONAL)
        _require(not unknown, f"takes names {sorted(unknown)}; allowed: {', '.join(OPTIONAL)}")

    def test_the_address_goes_through_json(self, address: TargetAddress) -> None:
        """Measuring processes make their target from JSON."""
        read = TargetAddress.from_plain(json.loads(json.dumps(address.to_plain())))
        _require(read == address, f"{address} comes back as {read}")
        built = read.build()
        _require(built.settings == address.settings, "the target's settings are not those of its address")
        _require(bool(_usable(address).version()), "version() is empty")


class EvaluatorContract:
    """What an evaluator keeps to. A subclass gives the pytest fixture ``evaluator``.

    What concerns previews is skipped for an evaluator that gives none.
    """

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

    def test_a_preview_tells_some_of_what_is_measured(self, evaluator: Evaluator, tmp_path: Path) -> None:
        """Candidates that are not trained yet are held against the numbers of the same names."""
        if not isinstance(evaluator, PreviewingEvaluator):
            raise SkipTest("it gives no preview")
        subject = specimen(self.address(), small_mlp(), INPUT_SHAPE, tmp_path)
        place = bench(self.address(), subject, INPUT_SHAPE, tmp_path)
        told = evaluator.preview(subject, place)
        names = [each.name for each in told]
        _require(len(names) > 0, "the preview is empty; leave the method out")
        _require(len(set(names)) == len(names), f"a name is given twice: {names}")
        unknown = set(names) - {each.name for each in evaluator.measure(subject, place)}
        _require(not unknown, f"{sorted(unknown)} are told beforehand, but never measured")
        for each in told:
            _check_numbers(each)
        _require(subject.model.read_bytes() == subject.artifact.read(), "the preview changed the model file")


def _layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    kinds = ("Conv1d", "Conv2d", "Conv3d", "Linear")
    return [(name, module) for name, module in model.named_modules() if type(module).__name__ in kinds]


def _usable(address: TargetAddress) -> Target:
    target = address.build()
    reason = target.unavailable()
    if reason:
        raise SkipTest(reason)
    return target


def _lowered(subject: TargetContract, target: Target, folder: Path, bits: dict[str, int] | None = None) -> Artifact:
    from paretrim.evaluators.splits import Split  # noqa: PLC0415

    samples = random_inputs(64, subject.input_shape)
    calibration = Split((samples, np.zeros(len(samples), np.int64)), "calibration")
    return target.lower(
        subject.model(),
        LoweringRequest(Signature.single(subject.input_shape), of_widths(bits or {}), calibration),
        folder,
    )


def _opened(
    subject: TargetContract, address: TargetAddress, folder: Path, bits: dict[str, int] | None = None
) -> Session:
    target = _usable(address)
    with _lowered(subject, target, folder, bits).unpacked() as path:
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
