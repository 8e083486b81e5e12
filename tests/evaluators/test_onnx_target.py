"""ONNX Runtime as a target: what is in the file, and what it answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional

from paretrim.errors import LoweringError, UsageError
from paretrim.evaluators import target as targets
from paretrim.evaluators.artifact import Artifact
from paretrim.evaluators.onnx_target import OnnxRuntimeCpu
from paretrim.evaluators.signature import Signature
from paretrim.evaluators.splits import Split
from paretrim.evaluators.storage import of_widths
from paretrim.evaluators.target import (
    Activations,
    Array,
    LoweringRequest,
    Optimization,
    TargetAddress,
    TargetSettings,
)
from paretrim.evaluators.testing import ONNX, TargetContract, random_inputs
from paretrim.evaluators.weights import Weights
from paretrim.spaces.anatomy import dissect
from paretrim.spaces.quantization import QuantizationOptions, WeightQuantization
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.testing import small_net, small_schooling

Bits = Mapping[str, int]
TARGET = OnnxRuntimeCpu(TargetSettings())


class TestResidualNet(TargetContract):
    input_shape: ClassVar[tuple[int, ...]] = (3, 8, 8)

    @pytest.fixture
    def address(self) -> TargetAddress:
        return TargetAddress(ONNX.factory, TargetSettings(threads=2, batch_size=4))

    def model(self) -> nn.Module:
        return small_net()


class TestSignedActivations(TargetContract):
    @pytest.fixture
    def address(self) -> TargetAddress:
        return TargetAddress(ONNX.factory, TargetSettings(activations="signed"))


class OverSequences(nn.Module):
    """Linear layers over the last of three dimensions, with and without a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 24)
        self.mix = nn.Linear(24, 32, bias=False)
        self.head = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.mix(functional.relu(self.embed(x))))
        return self.head(y).mean(dim=1)  # type: ignore[no-any-return]


class Shared(nn.Module):
    """A layer that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 32)
        self.again = nn.Linear(32, 32)
        self.head = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.embed(x))
        y = functional.relu(self.again(functional.relu(self.again(y))))
        return self.head(y)  # type: ignore[no-any-return]


class DataDependent(nn.Module):
    """A model whose way depends on its input."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.layer(x)
        return y if y.sum() > 0 else 2 * y


class PerSample(nn.Module):
    """A model that loops over the samples of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.layer(x[i]) for i in range(x.shape[0])])


class TwoOutputs(nn.Module):
    """A model that gives back a pair."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.layer(x), x


def conv_block(inputs: int, outputs: int, groups: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, groups=groups, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def pooled(*layers: nn.Module, channels: int) -> nn.Module:
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5))


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    return nn.Sequential(nn.Linear(8, 32), layer, nn.Linear(32, 5))


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "conv without batch norm": (
        lambda: pooled(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 24, 3, bias=False), channels=24),
        (3, 8, 8),
    ),
    "depthwise and grouped conv": (
        lambda: pooled(conv_block(3, 16), conv_block(16, 16, 16), conv_block(16, 24, 4), channels=24),
        (3, 8, 8),
    ),
    "conv over time": (
        lambda: nn.Sequential(nn.Conv1d(2, 16, 3), nn.BatchNorm1d(16), nn.ReLU(), nn.Flatten(), nn.Linear(96, 5)),
        (2, 8),
    ),
    "perceptron": (lambda: nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 5)), (8,)),
    "perceptron with batch norm": (
        lambda: nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 5)),
        (8,),
    ),
    "linear over sequences": (OverSequences, (5, 8)),
    "transformer": (transformer, (5, 8)),
}


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    """Return a network in evaluation mode whose batch normalization is not the identity."""
    torch.manual_seed(0)
    net = build()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            buffers = dict(module.named_buffers())
            buffers["running_mean"].uniform_(-0.5, 0.5)
            buffers["running_var"].uniform_(0.5, 2.0)
    return net.eval()


def layer_names(net: nn.Module) -> list[str]:
    kinds = (nn.Conv1d, nn.Conv2d, nn.Linear)
    return [name for name, m in net.named_modules() if isinstance(m, kinds) and "self_attn" not in name]


def request_of(shape: tuple[int, ...], bits: Bits) -> LoweringRequest:
    samples = random_inputs(64, shape, seed=1)
    return LoweringRequest(
        Signature.single(shape), of_widths(bits), Split((samples, np.zeros(64, np.int64)), "calibration")
    )


@dataclass(frozen=True)
class Lowered:
    """A model with weights on their grids, and its artifact."""

    net: nn.Module
    artifact: Artifact
    shape: tuple[int, ...]

    @property
    def proto(self) -> Any:
        return onnx.load_model_from_string(self.artifact.read())

    def gap(self) -> float:
        """Return how far the outputs are from torch's, relative to their size."""
        inputs = random_inputs(32, self.shape, seed=2)
        with self.artifact.unpacked() as path:
            outputs = TARGET.open(path)(inputs)
        expected = self.net(torch.from_numpy(inputs)).detach().numpy()
        return float(np.abs(outputs - expected).max() / np.abs(expected).max())


def lowered(
    net: nn.Module, bits: Bits, shape: tuple[int, ...], folder: Path, target: OnnxRuntimeCpu | None = None
) -> Lowered:
    """Put the weights on their grids, as a trial does, and lower the model."""
    technique, anatomy = WeightQuantization(QuantizationOptions()), dissect(net, torch.zeros(2, *shape))
    recipe = Recipe.of({f"quantization.bits.{name}": width for name, width in bits.items()})
    technique.attach(net, recipe, anatomy, small_schooling())
    technique.bake(net, recipe, anatomy)
    return Lowered(net, (target or TARGET).lower(net, request_of(shape, bits), folder), shape)


def codes(proto: Any) -> dict[str, Array]:
    """Return the 8-bit weights of a model by name."""
    found = {item.name: numpy_helper.to_array(item) for item in proto.graph.initializer}
    return {name: array for name, array in found.items() if array.dtype == np.int8 and array.ndim > 1}


def producers(proto: Any, node: Any) -> list[str]:
    """Return the operators that give a node its data and its weights."""
    makers = {output: maker.op_type for maker in proto.graph.node for output in maker.output}
    return [makers.get(name, "") for name in node.input[:2]]


class TestWideNet:
    """A network of 115,000 weights, with the spread of trained ones, at all widths and with the whole range of codes."""

    shape = (3, 8, 8)

    @pytest.fixture(scope="class")
    @staticmethod
    def at(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Lowered]:
        """Give a function that returns the network at some width of its middle layers."""
        target = OnnxRuntimeCpu(TargetSettings(reduce_range="never"))
        folder = tmp_path_factory.mktemp("wide")

        def build() -> nn.Module:
            net = pooled(conv_block(3, 60), *(conv_block(60, 60) for _ in range(3)), conv_block(60, 24), channels=24)
            for name in layer_names(net):
                nn.init.kaiming_normal_(net.get_parameter(f"{name}.weight"))
            return net

        @cache
        def made(bits: int) -> Lowered:
            net = seeded(build)
            names = layer_names(net)
            widths = {name: max(bits, 8) if name in (names[0], names[-1]) else bits for name in names}
            return lowered(net, {} if bits == 32 else widths, TestWideNet.shape, folder, target)

        return made

    def test_4_bits_take_about_half_the_bytes_of_8(self, at: Callable[[int], Lowered]) -> None:
        assert sum(p.numel() for p in at(4).net.parameters()) > 100_000
        assert at(4).artifact.size_bytes <= 0.55 * at(8).artifact.size_bytes

    def test_float16_takes_half_the_bytes_of_float32(self, at: Callable[[int], Lowered]) -> None:
        assert 0.45 < at(16).artifact.model_bytes / at(32).artifact.model_bytes < 0.55
        assert 0.40 < at(16).artifact.size_bytes / at(32).artifact.size_bytes < 0.60

    def test_8_bits_take_a_quarter(self, at: Callable[[int], Lowered]) -> None:
        assert at(8).artifact.model_bytes < 0.3 * at(32).artifact.model_bytes
        assert at(8).artifact.size_bytes < 0.3 * at(32).artifact.size_bytes

    def test_4_bit_layers_hold_15_codes(self, at: Callable[[int], Lowered]) -> None:
        counts = [len(np.unique(array)) for array in codes(at(4).proto).values()]
        assert len(counts) == 6
        assert sorted(counts)[:4] == [15] * 4
        assert all(np.abs(array).max() <= 127 for array in codes(at(4).proto).values())

    def test_each_channel_uses_its_whole_grid(self, at: Callable[[int], Lowered]) -> None:
        for array in codes(at(8).proto).values():
            assert (np.abs(array.astype(np.int16)).reshape(len(array), -1).max(axis=1) == 127).all()

    @pytest.mark.parametrize("bits", [4, 8])
    def test_convolutions_run_between_quantize_and_dequantize(self, at: Callable[[int], Lowered], bits: int) -> None:
        proto = at(bits).proto
        convs = [node for node in proto.graph.node if node.op_type == "Conv"]
        assert len(convs) == 5
        assert all(producers(proto, node) == ["DequantizeLinear"] * 2 for node in convs)
        assert sum(node.op_type == "QuantizeLinear" for node in proto.graph.node) >= 5

    @pytest.mark.parametrize(("bits", "most"), [(32, 1e-4), (16, 0.01), (8, 0.08), (4, 0.08)])
    def test_the_file_answers_as_the_baked_model(self, at: Callable[[int], Lowered], bits: int, most: float) -> None:
        assert at(bits).gap() < most

    @pytest.mark.parametrize("bits", [4, 8, 16, 32])
    def test_no_trace_of_the_source_is_in_the_file(self, at: Callable[[int], Lowered], bits: int) -> None:
        content = at(bits).artifact.read()
        traces = (b".py", b"site-packages", b"Traceback", os.fsencode(Path.cwd()), os.fsencode(Path(__file__).parent))
        assert [trace for trace in traces if trace in content] == []
        assert b"QuantizeLinear" in content or bits > 8


class TestKindsOfNets:
    @pytest.mark.parametrize("kind", NETS)
    def test_all_layers_become_integers_and_the_answers_stay_near(self, kind: str, tmp_path: Path) -> None:
        build, shape = NETS[kind]
        net = seeded(build)
        result = lowered(net, dict.fromkeys(layer_names(net), 8), shape, tmp_path)
        assert len(codes(result.proto)) == len(layer_names(net))
        assert result.gap() < 0.08

    def test_linear_layers_over_sequences_keep_their_4_bits(self, tmp_path: Path) -> None:
        result = lowered(seeded(OverSequences), {"embed": 8, "mix": 4, "head": 8}, (5, 8), tmp_path)
        assert min(len(np.unique(array)) for array in codes(result.proto).values()) == 15
        assert result.gap() < 0.08
        assert "MatMul" in [node.op_type for node in result.proto.graph.node]

    def test_an_embedding_takes_integers(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Embedding(20, 16), nn.Flatten(), nn.Linear(80, 5)).eval()
        tokens = np.random.default_rng(0).integers(0, 20, (32, 5))
        request = LoweringRequest(
            Signature.single((5,), "int64"), of_widths({"2": 8}), Split((tokens, np.zeros(32)), "calibration")
        )
        with TARGET.lower(net, request, tmp_path).unpacked() as path:
            outputs = TARGET.open(path)(tokens)
        expected = net(torch.from_numpy(tokens)).detach().numpy()
        assert np.abs(outputs - expected).max() < 0.08 * np.abs(expected).max()

    def test_a_layer_that_is_used_twice_answers_as_torch_does(self, tmp_path: Path) -> None:
        result = lowered(seeded(Shared), dict.fromkeys(("embed", "again", "head"), 8), (8,), tmp_path)
        assert result.gap() < 0.08

    def test_layers_of_different_widths_share_a_file(self, tmp_path: Path) -> None:
        result = lowered(small_net(), {"stem": 8, "conv2": 4, "head": 16}, (3, 8, 8), tmp_path)
        convs = [node for node in result.proto.graph.node if node.op_type == "Conv"]
        weights = [producers(result.proto, node)[1] for node in convs]
        assert weights == ["DequantizeLinear", "", "DequantizeLinear"]
        assert [len(np.unique(array)) > 15 for array in codes(result.proto).values()] == [True, False]
        kinds = [numpy_helper.to_array(item).dtype for item in result.proto.graph.initializer if len(item.dims) > 1]
        assert sorted(map(str, kinds)) == ["float16", "float32", "int8", "int8"]
        assert result.gap() < 0.08

    def test_a_channel_without_weights_keeps_its_bias(self, tmp_path: Path) -> None:
        net = seeded(lambda: pooled(nn.Conv2d(3, 8, 3), nn.ReLU(), channels=8))
        with torch.no_grad():
            net.get_parameter("0.weight")[2] = 0.0
            net.get_parameter("0.bias")[2] = 3.0
        assert lowered(net, {"0": 8, "4": 8}, (3, 8, 8), tmp_path).gap() < 0.08

    def test_weights_beyond_the_range_of_half_floats_stay_finite(self, tmp_path: Path) -> None:
        net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 5)).eval()
        with torch.no_grad():
            net.get_parameter("0.weight")[0, 0] = 1e6
        assert np.isfinite(lowered(net, {"0": 16, "2": 16}, (8,), tmp_path).gap())


@pytest.mark.parametrize(("activations", "dtype"), [("unsigned", "uint8"), ("signed", "int8")])
def test_activations_are_of_the_wanted_sign(activations: Activations, dtype: str, tmp_path: Path) -> None:
    net = small_net()
    request = request_of((3, 8, 8), dict.fromkeys(layer_names(net), 8))
    artifact = OnnxRuntimeCpu(TargetSettings(activations=activations)).lower(net, request, tmp_path)
    graph = onnx.load_model_from_string(artifact.read()).graph
    found = {item.name: numpy_helper.to_array(item).dtype.name for item in graph.initializer}
    assert {found[node.input[2]] for node in graph.node if node.op_type == "QuantizeLinear"} == {dtype}


def test_all_levels_of_optimization_answer_alike(tmp_path: Path) -> None:
    net, inputs = small_net(), random_inputs(5, (3, 8, 8))
    levels: tuple[Optimization, ...] = ("off", "basic", "extended", "all")
    with TARGET.lower(net, request_of((3, 8, 8), {"conv1": 8, "conv2": 16}), tmp_path).unpacked() as path:
        answers = [OnnxRuntimeCpu(TargetSettings(optimization=level)).open(path)(inputs) for level in levels]
    assert all(np.abs(answer - answers[0]).max() < 0.01 * np.abs(answers[0]).max() for answer in answers)


class TestWeights:
    """What is stored of a network of 7,400 weights, and what the runtime holds of it."""

    @pytest.fixture(scope="class")
    @staticmethod
    def weigh(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, Optimization], Weights]:
        folder = tmp_path_factory.mktemp("weights")

        def weigh(bits: int, optimization: Optimization) -> Weights:
            net, target = small_net(), OnnxRuntimeCpu(TargetSettings(optimization=optimization))
            request = request_of((3, 8, 8), {} if bits == 32 else dict.fromkeys(layer_names(net), bits))
            with target.lower(net, request, folder).unpacked() as path:
                return target.weigh(path)

        return weigh

    @pytest.mark.parametrize(
        ("bits", "dtype", "size"), [(32, "float32", 13824), (16, "float16", 6912), (8, "int8", 3456)]
    )
    def test_tensors_are_told_as_they_are_stored(
        self, weigh: Callable[[int, Optimization], Weights], bits: int, dtype: str, size: int
    ) -> None:
        tensor = next(t for t in weigh(bits, "all").tensors if t.shape == (24, 16, 3, 3))
        assert tensor.name.startswith("conv1.weight")
        assert (tensor.dtype, tensor.bytes) == (dtype, size)

    def test_floats_are_held_as_they_are_stored(self, weigh: Callable[[int, Optimization], Weights]) -> None:
        assert weigh(32, "basic").held_bytes == weigh(32, "basic").stored_bytes

    def test_half_floats_are_widened_when_they_are_loaded(self, weigh: Callable[[int, Optimization], Weights]) -> None:
        assert weigh(16, "basic").stored_bytes < 0.6 * weigh(32, "basic").stored_bytes
        assert weigh(16, "basic").held_bytes == weigh(32, "basic").held_bytes

    def test_half_floats_stay_in_a_graph_that_is_left_alone(
        self, weigh: Callable[[int, Optimization], Weights]
    ) -> None:
        assert weigh(16, "off").held_bytes == weigh(16, "off").stored_bytes

    @pytest.mark.parametrize("bits", [4, 8])
    def test_integers_are_held_as_integers(self, weigh: Callable[[int, Optimization], Weights], bits: int) -> None:
        assert weigh(bits, "all").held_bytes <= weigh(bits, "all").stored_bytes < 0.3 * weigh(32, "basic").stored_bytes


SERVE = """
import json, os, sys
sys.modules["torch"] = None
from pathlib import Path
from paretrim.evaluators.target import TargetAddress
from paretrim.evaluators.testing import random_inputs
target = TargetAddress.from_plain(json.loads(sys.argv[1])).build()
print(target.open(Path(sys.argv[2]))(random_inputs(2, (3, 8, 8))).shape)
print("onnx" in sys.modules, "openvino_telemetry" in sys.modules, os.environ["ORT_DISABLE_TELEMETRY"])
print(target.weigh(Path(sys.argv[2])).held_bytes > 0)
"""


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_process_that_serves_a_file_carries_the_runtime_alone(runtime: str, tmp_path: Path) -> None:
    address = targets.find(TargetSettings(runtime))
    with TARGET.lower(small_net(), LoweringRequest(Signature.single((3, 8, 8))), tmp_path).unpacked() as path:
        command = [sys.executable, "-c", SERVE, json.dumps(address.to_plain()), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["(2, 5)", "False False 1", "True"]


class TestRefusals:
    @pytest.mark.parametrize(
        ("build", "reason"),
        [
            (DataDependent, "does not export to ONNX: .*data-dependent"),
            (TwoOutputs, "has 2 outputs; models with one output are supported"),
            (PerSample, "batch"),
        ],
    )
    def test_a_model_that_does_not_export_raises_lowering_error_in_one_line(
        self, build: type[nn.Module], reason: str, tmp_path: Path
    ) -> None:
        with pytest.raises(LoweringError, match=reason) as caught:
            TARGET.lower(build().eval(), LoweringRequest(Signature.single((8,))), tmp_path)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 300
        assert list(tmp_path.iterdir()) == []

    def test_bits_without_calibration_samples_raise_lowering_error(self, tmp_path: Path) -> None:
        net = nn.Sequential(nn.Linear(8, 5)).eval()
        with pytest.raises(LoweringError, match="need calibration samples"):
            TARGET.lower(net, LoweringRequest(Signature.single((8,)), of_widths({"0": 8})), tmp_path)

    def test_a_layer_that_is_not_in_the_graph_raises_lowering_error(self, tmp_path: Path) -> None:
        net = nn.Sequential(nn.Linear(8, 5)).eval()
        with pytest.raises(LoweringError, match="no node for the layers 1, 2; leave them at 'none' bits"):
            TARGET.lower(net, request_of((8,), {"0": 8, "1": 8, "2": 4}), tmp_path)

    def test_an_unknown_runtime_gets_a_suggestion(self) -> None:
        with pytest.raises(UsageError, match=r"unknown runtime 'onnxruntim'; allowed: .*did you mean 'onnxruntime'"):
            targets.find(TargetSettings(runtime="onnxruntim"))

    @pytest.mark.parametrize(
        ("settings", "reason"),
        [
            (TargetSettings("openvino", optimization="basic"), "optimization 'basic' .* 'openvino' .*: onnxruntime"),
            (
                TargetSettings("torch-compile", activations="signed"),
                "activations 'signed' .* 'torch-compile' .*openvino",
            ),
        ],
    )
    def test_a_setting_that_a_runtime_would_ignore_is_refused(self, settings: TargetSettings, reason: str) -> None:
        with pytest.raises(UsageError, match=reason):
            targets.find(settings)

    def test_the_built_in_runtime_is_found(self) -> None:
        settings = replace(ONNX.settings, threads=2)
        assert targets.find(settings) == TargetAddress(ONNX.factory, settings)


LOWER = """
import sys
from pathlib import Path
import numpy as np
from paretrim.evaluators.signature import Signature
from paretrim.evaluators.splits import Split
from paretrim.evaluators.storage import of_widths
from paretrim.evaluators.target import LoweringRequest
from paretrim.evaluators.testing import ONNX, random_inputs
from paretrim.spaces.testing import small_net
split = Split((random_inputs(64, (3, 8, 8), seed=1), np.zeros(64, np.int64)))
request = LoweringRequest(Signature.single((3, 8, 8)), of_widths({"stem": 8, "conv1": 8, "conv2": 8, "head": 16}), split)
print(ONNX.build().lower(small_net(), request, Path(sys.argv[1])).sha256)
"""


def test_another_process_gives_the_same_file(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LOWER, str(tmp_path / "other")]
    done = subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": "1"}, capture_output=True, check=True)
    bits: Bits = {"stem": 8, "conv1": 8, "conv2": 8, "head": 16}
    ours = TARGET.lower(small_net(), request_of((3, 8, 8), bits), tmp_path / "ours")
    assert done.stdout.decode().strip() == ours.sha256


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "uint8"])
def test_the_empty_model_gives_back_inputs_of_any_type(dtype: str, tmp_path: Path) -> None:
    inputs = np.ones((3, 4), dtype)
    TARGET.empty(Signature.single((4,), dtype), tmp_path / "empty.onnx")
    outputs = TARGET.open(tmp_path / "empty.onnx")(inputs)
    assert outputs.dtype == inputs.dtype
    assert np.array_equal(outputs, inputs)
