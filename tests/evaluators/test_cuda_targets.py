"""The targets on NVIDIA GPUs: their contracts where there is one, and what can be tried of them without."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnxruntime
import pytest
import torch

from paretrim.errors import ArtifactError
from paretrim.evaluators import cuda_driver, torch_cuda
from paretrim.evaluators.onnx_cuda_target import OnnxRuntimeCuda
from paretrim.evaluators.onnx_resident import OnnxResident
from paretrim.evaluators.signature import Signature
from paretrim.evaluators.target import DeviceTarget, LoweringRequest, TargetAddress, TargetSettings
from paretrim.evaluators.testing import INPUT_SHAPE, TargetContract, random_inputs, small_mlp
from paretrim.evaluators.torch_target import TorchCompileCuda

ONNX = TargetSettings("onnxruntime-cuda")
TORCH = TargetSettings("torch-compile-cuda")


class TestOnnxRuntimeCuda(TargetContract):
    @pytest.fixture
    def address(self) -> TargetAddress:
        return TargetAddress("paretrim.evaluators.onnx_cuda_target:OnnxRuntimeCuda", ONNX)


class TestTorchCompileCuda(TargetContract):
    @pytest.fixture
    def address(self) -> TargetAddress:
        return TargetAddress("paretrim.evaluators.torch_target:TorchCompileCuda", TORCH)


class Ticking:
    """A stream of a device whose clock moves by a millisecond from mark to mark."""

    address = 0

    def __init__(self) -> None:
        self.marks = 0

    def mark(self) -> Tick:
        self.marks += 1
        return Tick(self.marks)

    def wait(self) -> None:
        pass


class Tick:
    def __init__(self, number: int) -> None:
        self.number = number

    def seconds_to(self, end: Tick) -> float:
        return (end.number - self.number) * 1e-3


class Elsewhere(OnnxRuntimeCuda):
    """The target with a device that it is told of; everything else is its own."""

    device: ClassVar[str] = "cpu"
    used: ClassVar[list[int]] = []
    asked: ClassVar[list[dict[str, str]]] = []

    def unavailable(self) -> str:
        return ""

    def _used_bytes(self) -> int:
        return self.used.pop(0)

    def _stream(self) -> Any:
        return Ticking()

    def _load(self, path: Path, options: Any, settings: Mapping[str, str] | None = None) -> Any:
        # What the CPU's provider has no notion of is noted.
        self.asked.append(dict(settings or {}))
        return super()._load(path, options)


class Nowhere(Elsewhere):
    # No build has it, so each falls back, with a device or without.
    provider: ClassVar[str] = "NowhereExecutionProvider"


class OnTheCpu(Elsewhere):
    provider: ClassVar[str] = "CPUExecutionProvider"


def a_file(target: OnnxRuntimeCuda, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(target.lower(small_mlp(), LoweringRequest(Signature.single(INPUT_SHAPE)), folder).read())
    return path


def test_the_driver_is_named_when_it_is_missing() -> None:
    trouble = cuda_driver.trouble()
    assert "libcuda.so.1" in trouble if trouble else cuda_driver.used_bytes() > 0


class TestBuildWithoutCuda:
    @pytest.fixture(autouse=True)
    def _providers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # As the CPU's build answers, also where another one is installed.
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])

    def test_what_to_install_is_told(self) -> None:
        assert "pip install 'onnxruntime-gpu[cuda,cudnn]" in OnnxRuntimeCuda(ONNX).unavailable()

    def test_a_file_is_not_opened(self, tmp_path: Path) -> None:
        target = OnnxRuntimeCuda(ONNX)
        with pytest.raises(ArtifactError, match="has no CUDAExecutionProvider"):
            target.open(a_file(target, tmp_path))


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_falling_back_to_the_cpu_is_refused(tmp_path: Path) -> None:
    target = Nowhere(ONNX)
    with pytest.raises(ArtifactError, match="fell back from NowhereExecutionProvider to CPUExecutionProvider"):
        target.weigh(a_file(target, tmp_path))


def test_layers_on_the_cpu_are_refused(tmp_path: Path) -> None:
    target = OnTheCpu(ONNX)
    with pytest.raises(ArtifactError, match=r"would run layers \(Gemm\) on the CPU"):
        target.weigh(a_file(target, tmp_path))


def test_the_peak_is_what_was_taken_since_the_first_session(tmp_path: Path) -> None:
    target = OnTheCpu(ONNX)
    target.used[:] = [1000, 1700, 2500]
    target.empty(Signature.single(INPUT_SHAPE), tmp_path / "empty")
    assert target.device_peak() == (0, 0)
    inputs = random_inputs(3)
    assert np.array_equal(target.open(tmp_path / "empty")(inputs), inputs)
    target.open(tmp_path / "empty")
    assert [target.device_peak(), target.device_peak()] == [(700, 700), (1500, 1500)]


def test_pytorch_without_a_device_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # as it is here, unless there is one
    assert "CUDA" in TorchCompileCuda(TORCH).unavailable()


class OnTheCpuAfterAll(OnTheCpu):
    """Lets layers run on the CPU, whose provider this is."""

    def _load(self, path: Path, options: Any, settings: Mapping[str, str] | None = None) -> Any:
        self.asked.append(dict(settings or {}))
        return onnxruntime.InferenceSession(str(path), options, providers=[self.provider])


class Uncapturable(OnTheCpuAfterAll):
    def _load(self, path: Path, options: Any, settings: Mapping[str, str] | None = None) -> Any:
        if (settings or {})["enable_cuda_graph"] == "1":
            raise ArtifactError("the model has control flow nodes")
        return super()._load(path, options, settings)


class TestTimingOnnxRuntime:
    """Real sessions with bound inputs and outputs, on the CPU; the clock is a fake."""

    settings = TargetSettings("onnxruntime-cuda", batch_size=3)

    @pytest.fixture(autouse=True)
    def _nothing_asked(self) -> None:
        Elsewhere.asked.clear()

    def test_a_session_is_bound_and_answers_as_torch_does(self, tmp_path: Path) -> None:
        target = OnTheCpuAfterAll(self.settings)
        session = target.open_timed(a_file(target, tmp_path))
        first, second = random_inputs(3), random_inputs(3, seed=1)
        answer = session(first)
        assert np.allclose(answer, small_mlp()(torch.from_numpy(first)).detach(), atol=1e-5)
        assert not np.allclose(session(second), answer)
        assert "as a CUDA graph" in session.how
        assert target.asked == [{"user_compute_stream": "0", "enable_cuda_graph": "1"}]

    def test_calls_are_timed_between_marks_on_its_stream(self, tmp_path: Path) -> None:
        target = OnTheCpuAfterAll(self.settings)
        session = target.open_timed(a_file(target, tmp_path))
        assert session.clock([(random_inputs(3),)] * 4) == pytest.approx([1e-3] * 4)

    def test_without_a_graph_it_says_so(self, tmp_path: Path) -> None:
        target = Uncapturable(self.settings)
        session = target.open_timed(a_file(target, tmp_path))
        assert "could not be captured (the model has control flow nodes)" in session.how
        assert target.asked == [{"user_compute_stream": "0", "enable_cuda_graph": "0"}]
        assert session(random_inputs(3)).shape == (3, 4)

    def test_a_shape_that_is_not_fixed_is_told(self) -> None:
        class Free:
            name, shape, type = "x", ["batch", "length"], "tensor(float)"

        class Asking:
            def get_inputs(self) -> list[Any]:
                return [Free()]

            get_outputs = get_inputs

        with pytest.raises(ArtifactError, match=r"'x' has the shape \['batch', 'length'\]"):
            OnnxResident(Asking(), 3, "cpu", Ticking())


class Here(TorchCompileCuda):
    """The target on the CPU; everything else is its own."""

    device: ClassVar[str] = "cpu"


class TestTimingPyTorch:
    """Really compiled programs, on the CPU; graph and clock are fakes."""

    settings = TargetSettings("torch-compile-cuda", batch_size=3)

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        target = Here(self.settings)
        path = tmp_path / "model.pt2"
        path.write_bytes(target.lower(small_mlp(), LoweringRequest(Signature.single(INPUT_SHAPE)), tmp_path).read())
        return path

    def test_a_graph_answers_as_torch_does_and_is_timed_between_events(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        replayed: list[int] = []
        ticks = Ticking()
        monkeypatch.setattr(torch_cuda, "captured", lambda compute: lambda: replayed.append(compute() or 1))
        monkeypatch.setattr(torch_cuda, "mark", ticks.mark)
        monkeypatch.setattr(torch_cuda, "seconds", Tick.seconds_to)
        session = Here(self.settings).open_timed(path)
        inputs = random_inputs(3)
        assert np.allclose(session(inputs), small_mlp()(torch.from_numpy(inputs)).detach(), atol=1e-5)
        assert "as a CUDA graph" in session.how
        replayed.clear()
        assert session.clock([(inputs,)] * 4) == pytest.approx([1e-3] * 4)
        assert len(replayed) == 4

    @pytest.mark.parametrize(
        ("captured", "why"),
        [
            pytest.param(lambda compute: lambda: None, "answers differ from the model's", id="does nothing"),
            pytest.param(lambda compute: 1 / 0, "division by zero", id="raises"),
        ],
    )
    def test_a_graph_that_does_not_do_is_not_taken(
        self, path: Path, captured: Callable[..., Any], why: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch_cuda, "captured", captured)
        session = Here(self.settings).open_timed(path)
        assert f"could not be captured ({'its ' if 'answers' in why else ''}{why}" in session.how
        inputs = random_inputs(3)
        assert np.allclose(session(inputs), small_mlp()(torch.from_numpy(inputs)).detach(), atol=1e-5)


@pytest.mark.parametrize("target", [OnnxRuntimeCuda(ONNX), TorchCompileCuda(TORCH)], ids=["onnx", "torch"])
def test_a_target_on_a_device_says_how_its_memory_is_told(target: Any) -> None:
    assert isinstance(target, DeviceTarget)
    assert "device" in target.account
