"""ONNX Runtime as a target: what is in the file, and what it answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from torch import nn

from paretrim.evaluators import target as targets
from paretrim.evaluators.onnx_target import OnnxRuntimeCpu
from paretrim.evaluators.signature import Signature
from paretrim.evaluators.target import Activations, LoweringRequest, Optimization, TargetAddress, TargetSettings
from paretrim.evaluators.testing import ONNX, TargetContract, random_inputs
from paretrim.evaluators.weights import Weights
from paretrim.spaces.testing import small_net

from .helper_onnx import (
    TARGET,
    Bits,
    Lowered,
    codes,
    conv_block,
    layer_names,
    lowered,
    pooled,
    producers,
    request_of,
    seeded,
)


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
