"""OpenVINO as a target: the same files as ONNX Runtime's, the same answers."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from torch import nn

from paretrim.errors import ArtifactError
from paretrim.evaluators.onnx_target import OnnxRuntimeCpu
from paretrim.evaluators.openvino_target import OpenVinoCpu
from paretrim.evaluators.signature import Signature
from paretrim.evaluators.splits import Split
from paretrim.evaluators.storage import of_widths
from paretrim.evaluators.target import Activations, LoweringRequest, TargetAddress, TargetSettings
from paretrim.evaluators.testing import TargetContract, random_inputs
from paretrim.spaces.testing import small_net

FACTORY = "paretrim.evaluators.openvino_target:OpenVinoCpu"
SHAPE = (3, 8, 8)


def request_of(bits: int) -> LoweringRequest:
    samples = random_inputs(64, SHAPE, seed=1)
    widths = {} if bits == 32 else dict.fromkeys(("stem", "conv1", "conv2", "head"), bits)
    return LoweringRequest(
        Signature.single(SHAPE), of_widths(widths), Split((samples, np.zeros(64, np.int64)), "calibration")
    )


class TestResidualNet(TargetContract):
    input_shape: ClassVar[tuple[int, ...]] = SHAPE

    @pytest.fixture
    def address(self) -> TargetAddress:
        return TargetAddress(FACTORY, TargetSettings("openvino", threads=2, batch_size=4, activations="signed"))

    def model(self) -> nn.Module:
        return small_net()


@pytest.mark.parametrize("activations", ["unsigned", "signed"])
@pytest.mark.parametrize("bits", [32, 16, 8, 4])
def test_it_runs_the_very_file_of_onnxruntime(bits: int, activations: Activations, tmp_path: Path) -> None:
    ours = OpenVinoCpu(TargetSettings("openvino", activations=activations))
    theirs = OnnxRuntimeCpu(TargetSettings(activations=activations))
    artifact = ours.lower(small_net(), request_of(bits), tmp_path)
    assert artifact == theirs.lower(small_net(), request_of(bits), tmp_path)
    inputs = random_inputs(32, SHAPE, seed=2)
    with artifact.unpacked() as path:
        expected = theirs.open(path)(inputs)
        assert np.abs(ours.open(path)(inputs) - expected).max() < 0.01 * np.abs(expected).max()


def test_half_floats_are_widened_and_integers_are_not(tmp_path: Path) -> None:
    target, weights = OpenVinoCpu(TargetSettings("openvino")), {}
    for bits in (32, 16, 8):
        with target.lower(small_net(), request_of(bits), tmp_path).unpacked() as path:
            weights[bits] = target.weigh(path)
    assert weights[16].held_bytes == weights[32].held_bytes > 1.9 * weights[16].stored_bytes
    assert weights[8].held_bytes <= weights[8].stored_bytes < 0.3 * weights[32].held_bytes


def test_a_model_of_integer_inputs_runs(tmp_path: Path) -> None:
    target, tokens = OpenVinoCpu(TargetSettings("openvino")), np.arange(10).reshape(2, 5)
    net = nn.Sequential(nn.Embedding(20, 16), nn.Flatten(), nn.Linear(80, 5)).eval()
    with target.lower(net, LoweringRequest(Signature.single((5,), "int64")), tmp_path).unpacked() as path:
        assert target.open(path)(tokens).shape == (2, 5)


def test_a_file_cut_short_raises_artifact_error_in_one_line(tmp_path: Path) -> None:
    target, cut = OpenVinoCpu(TargetSettings("openvino")), tmp_path / "cut.onnx"
    cut.write_bytes(target.lower(small_net(), request_of(32), tmp_path).read()[:-2000])
    with pytest.raises(ArtifactError, match="OpenVINO does not load the artifact: ") as caught:
        target.open(cut)
    assert "\n" not in str(caught.value)
