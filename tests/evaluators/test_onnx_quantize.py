"""What is lowered lies on the trained grid; layers whose weights alone are narrow; ranges and signs of activations."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from paretrim.errors import LoweringError
from paretrim.evaluators import onnx_calibration
from paretrim.evaluators.artifact import Artifact
from paretrim.evaluators.onnx_target import OnnxRuntimeCpu
from paretrim.evaluators.openvino_target import OpenVinoCpu
from paretrim.evaluators.signature import Signature
from paretrim.evaluators.splits import Split
from paretrim.evaluators.storage import Activation, Calibrator, Sign, Storage, of_widths
from paretrim.evaluators.target import Array, LoweringRequest, TargetSettings
from paretrim.evaluators.testing import random_inputs
from paretrim.evaluators.torch_export import Codes
from paretrim.spaces.testing import small_net

from .helper_quantize import answers, graph_of, request_of, samples

TARGET = OnnxRuntimeCpu(TargetSettings())
WHOLE = OnnxRuntimeCpu(TargetSettings(reduce_range="never"))
OPENVINO = OpenVinoCpu(TargetSettings("openvino"))
SHAPE = (3, 8, 8)
LAYERS = {"stem": "norm", "conv1": "norm1", "conv2": "norm2", "head": ""}
EIGHT = of_widths(dict.fromkeys(LAYERS, 8))


def gap(artifact: Artifact, net: nn.Module, shape: tuple[int, ...]) -> float:
    inputs = random_inputs(32, shape, seed=2)
    expected = net(torch.from_numpy(inputs)).detach().numpy()
    return float(np.abs(answers(artifact, TARGET, inputs) - expected).max() / np.abs(expected).max())


def dequantized(graph: Any) -> dict[str, tuple[Array, Array]]:
    """Return (codes, what they stand for) of each layer's weights in a file, by the layer's name."""
    held = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    found = {}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and ".weight" in node.input[0]:
            codes, scale = held[node.input[0]].astype(np.int64), held[node.input[1]].astype(np.float64)
            axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
            shape = [-1 if i == axis and scale.ndim else 1 for i in range(codes.ndim)]
            found[node.input[0].partition(".weight")[0]] = (codes, codes * scale.reshape(shape))
    return found


def folded(net: nn.Module, name: str) -> Array:
    """Return a layer's weights times the factors of the batch normalization behind it, in 64 bits."""
    weight = net.get_parameter(f"{name}.weight").detach().double().numpy()
    if LAYERS[name]:
        norm = net.get_submodule(LAYERS[name])
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_var is not None
        factor = (norm.weight / torch.sqrt(norm.running_var + norm.eps)).detach().double().numpy()
        weight = weight * factor.reshape(-1, 1, 1, 1)
    return np.asarray(weight)


class TestGridsInTheFile:
    @pytest.mark.parametrize("family", ["uniform", "asymmetric", "lsq", "power_of_two", "codebook", "noise"])
    def test_the_files_weights_are_the_trained_ones_times_what_is_folded_in(self, family: str, tmp_path: Path) -> None:
        net = small_net()
        with torch.no_grad():
            net.norm1.weight[::2] *= -1.0
            net.conv1.weight[3] = 0.0
        request = request_of(net, SHAPE, 3, family=family)
        found = dequantized(graph_of(WHOLE.lower(net, request, tmp_path)))
        assert found.keys() == LAYERS.keys()
        for name, (codes, weights) in found.items():
            wanted = folded(net, name)
            np.testing.assert_allclose(weights, wanted, rtol=2e-6, atol=2e-7 * np.abs(wanted).max())
            assert 0 < np.abs(codes).max() <= 127
        assert not found["conv1"][0][3].any()

    @pytest.mark.parametrize("bits", range(2, 9))
    def test_uniform_codes_keep_within_their_bits(self, bits: int, tmp_path: Path) -> None:
        net = small_net()
        request = request_of(net, SHAPE, bits)
        whole = dequantized(graph_of(WHOLE.lower(net, request, tmp_path)))
        assert [np.abs(codes).max() for codes, _ in whole.values()] == [2 ** (bits - 1) - 1] * 4
        assert gap(TARGET.lower(net, request, tmp_path), net, SHAPE) < 0.08

    def test_the_outermost_code_need_not_be_used(self, tmp_path: Path) -> None:
        net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)).eval()
        with torch.no_grad():
            net.get_parameter("0.weight").copy_(torch.tensor([[1.0, -2.0, 0.0, 1.0]]).repeat(4, 1) * 0.25)
        stored = {"0": Storage(4, steps=(0.25,) * 4), "2": Storage(8)}
        artifact = TARGET.lower(net, LoweringRequest(Signature.single((4,)), stored, samples((4,))), tmp_path)
        codes = dequantized(graph_of(artifact))["0"][0]
        assert codes.tolist() == [[1, -2, 0, 1]] * 4

    def test_one_step_for_all_channels_stays_one_unless_normalization_follows(self, tmp_path: Path) -> None:
        net = small_net()
        request = request_of(net, SHAPE, 8, granularity="tensor")
        assert {name: each.per_channel for name, each in request.layers.items()} == {
            "stem": True,
            "conv1": True,
            "conv2": True,
            "head": False,
        }
        graph = graph_of(WHOLE.lower(net, request, tmp_path))
        scales = {item.name: list(item.dims) for item in graph.initializer if item.name.endswith("weight_scale")}
        assert scales == {
            "stem.weight_scale": [16],
            "conv1.weight_scale": [24],
            "conv2.weight_scale": [16],
            "head.weight_scale": [],
        }
        assert np.allclose(dequantized(graph)["head"][1], folded(net, "head"), rtol=2e-6)

    def test_a_common_step_behind_which_normalization_is_folded_becomes_one_for_each_channel(
        self, tmp_path: Path
    ) -> None:
        net = small_net()
        with torch.no_grad():
            net.conv1.weight.copy_(torch.round(net.conv1.weight / 0.01).clamp(-127, 127) * 0.01)
        stored = EIGHT | {"conv1": Storage(8, per_channel=False, steps=(0.01,))}
        artifact = WHOLE.lower(net, LoweringRequest(Signature.single(SHAPE), stored, samples(SHAPE)), tmp_path)
        np.testing.assert_allclose(dequantized(graph_of(artifact))["conv1"][1], folded(net, "conv1"), atol=1e-6)

    def test_4_bits_take_at_most_55_percent_of_8_in_the_classic_perceptron(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        plain = nn.Sequential(nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))
        for position in (0, 2, 4):
            nn.init.kaiming_normal_(plain.get_parameter(f"{position}.weight"))
        sizes = {}
        for bits in (4, 8):
            net = copy.deepcopy(plain).eval()
            sizes[bits] = WHOLE.lower(net, request_of(net, (784,), bits), tmp_path).size_bytes
        assert sizes[4] <= 0.55 * sizes[8]

    @pytest.mark.parametrize("bits", [1, 9, 32])
    def test_bits_that_cannot_be_stored_are_refused(self, bits: int, tmp_path: Path) -> None:
        request = LoweringRequest(Signature.single(SHAPE), {"stem": Storage(bits)}, samples(SHAPE))
        with pytest.raises(LoweringError, match=f"'stem': {bits}.*allowed: 2 to 8, and 16"):
            TARGET.lower(small_net(), request, tmp_path)


class TestWeightsAlone:
    """Layers that take and give floats."""

    @pytest.mark.parametrize(("bits", "family", "packed"), [(4, "uniform", 4), (8, "uniform", 8), (4, "codebook", 8)])
    def test_linear_layers_become_products_with_narrow_weights(
        self, bits: int, family: str, packed: int, tmp_path: Path
    ) -> None:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(40, 64), nn.ReLU(), nn.Linear(64, 33, bias=False), nn.ReLU(), nn.Linear(33, 5))
        request = request_of(net.eval(), (40,), bits, family=family, activations="none")
        artifact = TARGET.lower(net, request, tmp_path)
        nodes = [node for node in graph_of(artifact).node if node.op_type == "MatMulNBits"]
        assert [a.i for node in nodes for a in node.attribute if a.name == "bits"] == [packed] * 3
        assert gap(artifact, net, (40,)) < 0.03

    def test_they_need_no_calibration(self, tmp_path: Path) -> None:
        net = small_net()
        request = replace(request_of(net, SHAPE, 4, activations="none"), calibration=None)
        artifact = TARGET.lower(net, request, tmp_path)
        assert not [node for node in graph_of(artifact).node if node.op_type == "QuantizeLinear"]
        assert gap(artifact, net, SHAPE) < 1e-3

    def test_convolutions_are_stored_as_integers_and_widened_when_the_model_is_loaded(self, tmp_path: Path) -> None:
        net = small_net()
        plain = LoweringRequest(Signature.single(SHAPE))
        with TARGET.lower(net, plain, tmp_path).unpacked() as path:
            floats = TARGET.weigh(path)
        request = request_of(net, SHAPE, 8, activations="none")
        with TARGET.lower(net, request, tmp_path).unpacked() as path:
            narrow = TARGET.weigh(path)
        assert narrow.stored_bytes < 0.35 * floats.stored_bytes
        assert narrow.held_bytes == pytest.approx(floats.held_bytes, rel=0.02)
        kinds = {t.name: t.dtype for t in narrow.tensors if len(t.shape) == 4 and t.bytes > 200}
        assert kinds == {f"{name}.weight_codes": "int8" for name in ("stem", "conv1", "conv2")}

    def test_short_rows_are_left_to_plain_products(self, tmp_path: Path) -> None:
        net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 5)).eval()
        artifact = TARGET.lower(net, request_of(net, (8,), 4, activations="none"), tmp_path)
        assert {node.op_type for node in graph_of(artifact).node} == {"Cast", "Mul", "Gemm", "Relu"}
        assert gap(artifact, net, (8,)) < 1e-5

    def test_linear_layers_over_sequences(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(32, 48), nn.ReLU(), nn.Linear(48, 6)).eval()
        artifact = TARGET.lower(net, request_of(net, (5, 32), 4, activations="none"), tmp_path)
        assert [n.op_type for n in graph_of(artifact).node].count("MatMulNBits") == 2
        assert gap(artifact, net, (5, 32)) < 0.03

    def test_a_layer_that_is_used_twice_is_widened_once(self, tmp_path: Path) -> None:
        net = Twice().eval()
        artifact = TARGET.lower(net, request_of(net, (8,), 8, activations="none"), tmp_path)
        assert [n.op_type for n in graph_of(artifact).node].count("Cast") == 2
        assert gap(artifact, net, (8,)) < 1e-5

    def test_they_stand_beside_integer_layers(self, tmp_path: Path) -> None:
        net = small_net()
        stored = EIGHT | {"conv1": Storage(8, integers=False), "stem": Storage(16)}
        artifact = TARGET.lower(net, LoweringRequest(Signature.single(SHAPE), stored, samples(SHAPE)), tmp_path)
        makers = {name: node.op_type for node in graph_of(artifact).node for name in node.output}
        convs = [node for node in graph_of(artifact).node if node.op_type == "Conv"]
        assert [makers[node.input[1]] for node in convs] == ["Cast", "Mul", "DequantizeLinear"]
        assert gap(artifact, net, SHAPE) < 0.08


class Twice(nn.Module):
    """A layer that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.again = nn.Linear(8, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.again(torch.relu(self.again(x)))))  # type: ignore[no-any-return]


def zero_points(artifact: Artifact) -> set[str]:
    graph = graph_of(artifact)
    held = {item.name: numpy_helper.to_array(item).dtype.name for item in graph.initializer}
    return {held[node.input[2]] for node in graph.node if node.op_type == "QuantizeLinear"}


class TestActivations:
    @pytest.fixture
    def lower(self, tmp_path: Path) -> Callable[[Sign, Calibrator], Artifact]:
        inputs = random_inputs(600, SHAPE, seed=3)
        inputs[0] *= 20.0  # one wild sample
        split = Split((inputs, np.zeros(600, np.int64)), "calibration")

        def lower(sign: Sign, calibrator: Calibrator) -> Artifact:
            request = LoweringRequest(Signature.single(SHAPE), EIGHT, split, Activation(sign, calibrator))
            return TARGET.lower(small_net(), request, tmp_path)

        return lower

    def test_the_requests_sign_goes_before_the_targets(self, lower: Callable[[Sign, Calibrator], Artifact]) -> None:
        assert zero_points(lower("target", "minmax")) == {"uint8"}
        assert zero_points(lower("signed", "minmax")) == {"int8"}
        assert zero_points(lower("unsigned", "minmax")) == {"uint8"}

    @pytest.mark.parametrize("calibrator", ["percentile", "entropy"])
    def test_other_calibrators_give_other_ranges_and_the_same_file_again(
        self, calibrator: Calibrator, lower: Callable[[Sign, Calibrator], Artifact]
    ) -> None:
        first = lower("target", calibrator)
        assert first.sha256 == lower("target", calibrator).sha256
        assert first.sha256 != lower("target", "minmax").sha256
        assert gap(first, small_net(), SHAPE) < 0.3

    def test_histograms_are_made_of_a_few_samples_spread_over_the_split(self) -> None:
        split = Split((np.arange(1000, dtype=np.float32), np.zeros(1000)))
        chosen = onnx_calibration.surveyed(split, "entropy")
        values = chosen.first(len(chosen)).inputs.only
        assert len(chosen) == 256
        assert (float(values[0]), float(values[-1])) == (0.0, 999.0)
        assert float(values.diff().max()) <= 4.0
        assert onnx_calibration.surveyed(split, "minmax") is split


@pytest.mark.parametrize("family", ["lsq", "codebook"])
@pytest.mark.parametrize("activations", ["target", "none"])
def test_openvino_runs_them(family: str, activations: str, tmp_path: Path) -> None:
    net, inputs = small_net(), random_inputs(32, SHAPE, seed=2)
    artifact = OPENVINO.lower(net, request_of(net, SHAPE, 4, family=family, activations=activations), tmp_path)
    domains = {entry.domain for entry in onnx.load_model_from_string(artifact.read()).opset_import}
    assert "com.microsoft" not in domains or activations != "none"
    theirs, ours = answers(artifact, OPENVINO, inputs), net(torch.from_numpy(inputs)).detach().numpy()
    assert np.abs(theirs - ours).max() < 0.08 * np.abs(ours).max()


def test_exported_programs_store_the_trained_steps() -> None:
    weight = torch.tensor([[0.25, -0.5], [0.1, 0.3]])
    codes, scale = Codes(Storage(4, steps=(0.25, 0.1))).right_inverse(weight)
    assert codes.tolist() == [[1, -2], [1, 3]]
    assert scale.flatten().tolist() == pytest.approx([0.25, 0.1])
    codes, scale = Codes(Storage(8, per_channel=False)).right_inverse(weight)
    assert scale.shape == (1, 1)
    torch.testing.assert_close(codes * scale, weight, atol=0.002, rtol=0)
