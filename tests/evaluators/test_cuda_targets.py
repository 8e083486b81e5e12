"""The targets on NVIDIA GPUs: their contracts where there is one, and what can be tried of them without."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import onnxruntime
import pytest
import torch

from paretrim.errors import ArtifactError
from paretrim.evaluators import cuda_driver
from paretrim.evaluators.onnx_cuda_target import OnnxRuntimeCuda
from paretrim.evaluators.signature import Signature
from paretrim.evaluators.target import LoweringRequest, TargetAddress, TargetSettings
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


class Elsewhere(OnnxRuntimeCuda):
    """The target with a device that it is told of; everything else is its own."""

    used: ClassVar[list[int]] = []

    def unavailable(self) -> str:
        return ""

    def _used_bytes(self) -> int:
        return self.used.pop(0)


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
