"""Embeddings, recurrent layers and transposed convolutions in a file: codes or half floats, and what they answer."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from paretrim.evaluators.artifact import Artifact
from paretrim.evaluators.onnx_target import OnnxRuntimeCpu
from paretrim.evaluators.openvino_target import OpenVinoCpu
from paretrim.evaluators.signature import Signature
from paretrim.evaluators.splits import Split
from paretrim.evaluators.storage import Storage
from paretrim.evaluators.target import Array, LoweringRequest, Optimization, TargetSettings
from paretrim.evaluators.torch_target import TorchCompileCpu
from paretrim.evaluators.weights import Weights
from paretrim.spaces.anatomy import dissect
from paretrim.spaces.dimension import Value
from paretrim.spaces.quantization import QuantizationOptions, WeightQuantization
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.testing import small_schooling

ONNX = OnnxRuntimeCpu(TargetSettings())
OPENVINO = OpenVinoCpu(TargetSettings("openvino"))
TORCH = TorchCompileCpu(TargetSettings("torch-compile"))
Target = OnnxRuntimeCpu | OpenVinoCpu | TorchCompileCpu
VOCABULARY, WIDTH = 400, 32


class Reader(nn.Module):
    """A recurrent layer and a linear one: ``(N, 5, 12)`` to logits ``(N, 7)``."""

    shape, dtype, part = (5, 12), "float32", "memory"

    def __init__(self, kind: Callable[..., nn.RNNBase], hidden: int = 32, **settings: Any) -> None:
        super().__init__()
        self.memory = kind(12, hidden, batch_first=True, **settings)
        self.head = nn.Linear(2 * hidden if settings.get("bidirectional") else hidden, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs, _ = self.memory(x)
        logits: torch.Tensor = self.head(outputs[:, -1])
        return logits


class Table(nn.Module):
    """An embedding, a body and a head that may have the embedding's weights: ids ``(N, 6)`` to scores of all tokens."""

    shape, dtype, part = (6,), "int64", "table"

    def __init__(
        self,
        tied: bool = False,
        whole: bool = False,
        kind: Callable[..., nn.Module] = nn.Embedding,
        width: int = WIDTH,
    ) -> None:
        super().__init__()
        self.table = kind(VOCABULARY, width)
        self.body = nn.Linear(width, width)
        self.head = nn.Linear(width, VOCABULARY, bias=False)
        self.whole, self.bags = whole, kind is nn.EmbeddingBag
        if tied:
            self.head.weight = self.table.weight  # type: ignore[assignment]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = self.table(x)
        scores: torch.Tensor = self.head(torch.relu(self.body(rows if self.whole or self.bags else rows.mean(dim=1))))
        return scores


class Growing(nn.Module):
    """A transposed convolution with batch normalization, between two others: ``(N, 3, 6, 6)`` to ``(N, 2, 12, 12)``."""

    shape, dtype, part = (3, 6, 6), "float32", "grow"

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3, padding=1)
        self.grow = nn.ConvTranspose2d(24, 16, 2, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.head = nn.Conv2d(16, 2, 1)
        with torch.no_grad():
            self.norm.weight.uniform_(0.5, 2.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(torch.relu(self.norm(self.grow(torch.relu(self.stem(x))))))
        return scores


Net = Reader | Table | Growing
NETS: dict[str, Callable[[], Net]] = {
    "lstm": lambda: Reader(nn.LSTM),
    "deep lstm, both ways": lambda: Reader(nn.LSTM, num_layers=2, bidirectional=True),
    "lstm without biases": lambda: Reader(nn.LSTM, bias=False),
    "gru": lambda: Reader(nn.GRU, num_layers=2),
    "rnn": lambda: Reader(nn.RNN),
    "embedding": Table,
    "embedding of sequences": lambda: Table(whole=True),
    "bags": lambda: Table(kind=nn.EmbeddingBag),
    "transposed convolution": Growing,
}


def net_of(name: str) -> Net:
    torch.manual_seed(0)
    net: Net = NETS[name]()
    return net.eval()


def inputs_of(net: Net, count: int = 16, seed: int = 0) -> Array:
    source = np.random.default_rng(seed)
    if net.dtype == "int64":
        return source.integers(0, VOCABULARY, (count, *net.shape))
    return source.standard_normal((count, *net.shape)).astype(np.float32)


def request_of(net: Net, widths: Mapping[str, int], **settings: Value) -> LoweringRequest:
    """Put weights on their grids, as a trial does, and return the request to lower the network."""
    technique = WeightQuantization(QuantizationOptions())
    anatomy = dissect(net, torch.from_numpy(inputs_of(net, 2)), ONNX.abilities())
    recipe = Recipe.of(
        {f"quantization.bits.{name}": width for name, width in widths.items()}
        | {f"quantization.{name}": value for name, value in settings.items()}
    )
    technique.attach(net, recipe, anatomy, small_schooling())
    technique.bake(net, recipe, anatomy)
    samples = Split((inputs_of(net, 64, seed=1), np.zeros(64, np.int64)), "calibration")
    return LoweringRequest(Signature.single(net.shape, net.dtype), technique.storage(net, recipe, anatomy), samples)


def gap(artifact: Artifact, net: Net, target: Target) -> float:
    """Return the largest difference to torch's answers, as a share of these."""
    inputs = inputs_of(net, 8, seed=2)
    expected = net(torch.from_numpy(inputs)).detach().numpy()
    with artifact.unpacked() as path:
        answers = target.open(path)(inputs)
    return float(np.abs(answers - expected).max() / np.abs(expected).max())


def weighed(artifact: Artifact, target: Target) -> Weights:
    with artifact.unpacked() as path:
        return target.weigh(path)


def graph_of(artifact: Artifact) -> Any:
    return onnx.load_model_from_string(artifact.read()).graph


@pytest.mark.parametrize("bits", [8, 4, 16])
@pytest.mark.parametrize("name", NETS)
def test_the_file_answers_as_torch_does_on_the_grid(name: str, bits: int, tmp_path: Path) -> None:
    net = net_of(name)
    artifact = ONNX.lower(net, request_of(net, {net.part: bits}), tmp_path)
    assert gap(artifact, net, ONNX) < (1e-4 if bits < 16 else 2e-3)
    weights = [t for t in weighed(artifact, ONNX).tensors if t.name.startswith(f"{net.part}.weight")]
    kinds = {t.dtype for t in weights if not t.name.endswith("_scales")}
    packed = bits == 4 and isinstance(net, Table)
    assert kinds == {"float16" if bits == 16 else "uint8" if packed else "int8"}


@pytest.mark.slow
@pytest.mark.parametrize("family", ["uniform", "lsq", "power_of_two", "codebook", "noise"])
@pytest.mark.parametrize("granularity", ["channel", "tensor", "block"])
def test_grids_of_all_families_come_through(family: str, granularity: str, tmp_path: Path) -> None:
    for net in (net_of("embedding"), net_of("lstm"), Table(width=72).eval(), Reader(nn.GRU, hidden=40).eval()):
        request = request_of(net, {net.part: 3}, family=family, granularity=granularity)
        for target in (ONNX, OPENVINO, TORCH):
            if target is TORCH and isinstance(net, Reader):
                continue  # compiled at each call
            # Steps of blocks are stored as half floats.
            assert gap(target.lower(net, request, tmp_path), net, target) < (2e-3 if granularity == "block" else 1e-4)


class TestTables:
    """Rows are looked up before they are widened."""

    def test_nothing_widens_the_whole_table(self, tmp_path: Path) -> None:
        for bits, factor in ((16, 2), (8, 4)):
            net = net_of("embedding of sequences")
            artifact = ONNX.lower(net, request_of(net, {"table": bits}), tmp_path)
            kind = "half" if bits == 16 else "codes"
            readers = [n.op_type for n in graph_of(artifact).node if f"table.weight_{kind}" in n.input]
            assert readers == ["Gather"]
            saved = (1 - 1 / factor) * 4 * VOCABULARY * WIDTH - (4 * VOCABULARY if bits == 8 else 0)
            floats = ONNX.lower(net, LoweringRequest(Signature.single(net.shape, net.dtype)), tmp_path)
            # The runtime holds what is stored.
            assert weighed(floats, ONNX).held_bytes - weighed(artifact, ONNX).held_bytes == saved

    def test_eight_bits_make_a_file_of_a_quarter_and_four_of_half_of_that(self, tmp_path: Path) -> None:
        sizes = {}
        for bits in (32, 8, 4):
            torch.manual_seed(0)
            net = nn.Sequential(nn.Embedding(4000, 64), nn.Flatten(), nn.Linear(128, 4)).eval()
            with torch.no_grad():
                net.get_parameter("0.weight").copy_(torch.rand(4000, 64))
            stored = {} if bits == 32 else {"0.weight": Storage(bits, integers=False)}
            sizes[bits] = ONNX.lower(net, LoweringRequest(Signature.single((2,), "int64"), stored), tmp_path).size_bytes
        assert 0.2 < sizes[8] / sizes[32] < 0.32
        assert sizes[4] < 0.6 * sizes[8]

    def test_a_layer_of_integers_beside_it_leaves_it_alone(self, tmp_path: Path) -> None:
        net = net_of("embedding")
        artifact = ONNX.lower(net, request_of(net, {"body": 8, "head": 8}), tmp_path)
        (table,) = [t for t in weighed(artifact, ONNX).tensors if t.name == "table.weight"]
        assert table.dtype == "float32"
        assert gap(artifact, net, ONNX) < 0.05

    def test_one_knob_changes_one_tensor(self, tmp_path: Path) -> None:
        files = {}
        for bits in (8, 4):
            net = net_of("embedding")
            artifact = ONNX.lower(net, request_of(net, {"table": bits, "body": 8}, activations="none"), tmp_path)
            files[bits] = {item.name: item.SerializeToString() for item in graph_of(artifact).initializer}
        changed = {name for name in files[8] if files[8][name] != files[4].get(name)}
        assert changed == {"table.weight_codes", "table.weight_scales"}


class TestRecurrentLayers:
    """Their weights are widened once, when the file is loaded."""

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["lstm", "deep lstm, both ways", "gru"])
    def test_the_runtime_computes_with_the_very_graph_of_floats(self, name: str, tmp_path: Path) -> None:
        kinds = {}
        for bits in (0, 8, 16):
            net = net_of(name)
            request = request_of(net, {"memory": bits} if bits else {})
            with ONNX.lower(net, request, tmp_path).unpacked() as path:
                options = ONNX._options()
                options.optimized_model_filepath = str(tmp_path / f"{bits}.onnx")
                ONNX._load(path, options)
            graph = onnx.load(str(tmp_path / f"{bits}.onnx")).graph
            kinds[bits] = (
                sorted(node.op_type for node in graph.node),
                sorted(tuple(i.dims) for i in graph.initializer),
            )
        assert kinds[8] == kinds[16] == kinds[0]

    def test_what_is_held_is_told(self, tmp_path: Path) -> None:
        net = net_of("deep lstm, both ways")
        floats = weighed(ONNX.lower(net, LoweringRequest(Signature.single(net.shape, net.dtype)), tmp_path), ONNX)
        narrow = weighed(ONNX.lower(net, request_of(net, {"memory": 8}), tmp_path), ONNX)
        assert narrow.stored_bytes < 0.35 * floats.stored_bytes
        assert narrow.held_bytes == floats.held_bytes

    @pytest.mark.parametrize("name", ["deep lstm, both ways", "gru", "rnn"])
    @pytest.mark.parametrize("bits", [0, 8])
    def test_integers_stay_out_of_them(self, name: str, bits: int, tmp_path: Path) -> None:
        net = net_of(name)
        request = request_of(net, {"head": 8} | ({"memory": bits} if bits else {}))
        artifact = ONNX.lower(net, request, tmp_path)
        graph = graph_of(artifact)
        held = {item.name for item in graph.initializer}
        quantized = {n.input[0] for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] in held}
        assert quantized
        assert all(name.startswith("head.") for name in quantized)
        # What goes into the head and what comes out of it: no step of the sequence.
        assert sum(node.op_type == "QuantizeLinear" for node in graph.node) <= 3
        assert gap(artifact, net, ONNX) < 0.05


class TestTiedWeights:
    """An embedding and the layer that gives the scores have one matrix."""

    @pytest.mark.parametrize("whole", [False, True])
    @pytest.mark.parametrize(("bits", "activations"), [(8, "target"), (4, "target"), (8, "none"), (16, "target")])
    def test_they_are_stored_once_and_answer_alike(
        self, bits: int, activations: str, whole: bool, tmp_path: Path
    ) -> None:
        torch.manual_seed(0)
        net = Table(tied=True, whole=whole).eval()
        request = request_of(net, {"head": bits}, activations=activations)
        assert request.layers["head"].bits == request.layers["table.weight"].bits == bits
        assert request.layers["head"].steps == request.layers["table.weight"].steps
        assert net.head.weight is net.table.weight
        artifact = ONNX.lower(net, request, tmp_path)
        large = [t for t in weighed(artifact, ONNX).tensors if t.bytes >= VOCABULARY * WIDTH]
        assert [t.dtype for t in large] == ["float16" if bits == 16 else "uint8" if activations == "none" else "int8"]
        # Activations of 8 bits round more than the weights do; a product with narrow weights rounds its inputs too.
        assert gap(artifact, net, ONNX) < (0.02 if activations == "none" else 2e-3 if bits == 16 else 0.1)

    @pytest.mark.parametrize("granularity", ["channel", "tensor", "block"])
    @pytest.mark.parametrize("whole", [False, True])
    @pytest.mark.parametrize("bits", [4, 8])
    def test_a_layer_of_floats_multiplies_by_the_packed_table(
        self, bits: int, whole: bool, granularity: str, tmp_path: Path
    ) -> None:
        torch.manual_seed(0)
        net = Table(tied=True, whole=whole, width=96).eval()
        with torch.no_grad():
            net.get_parameter("table.weight")[:, :32] *= 10  # so that blocks differ
        request = request_of(net, {"head": bits}, activations="none", granularity=granularity)
        artifact = ONNX.lower(net, request, tmp_path)
        graph = graph_of(artifact)
        assert [node.op_type for node in graph.node if "NBits" in node.op_type] == ["MatMulNBits"]
        assert "GatherBlockQuantized" in [node.op_type for node in graph.node]
        matrix = VOCABULARY * 96
        floats = ONNX.lower(net, LoweringRequest(Signature.single(net.shape, net.dtype)), tmp_path)
        # One copy to multiply by and one to look up in, and a scale for each 32 weights.
        most = 2 * matrix * bits // 8 + 4 * matrix // 32
        assert weighed(artifact, ONNX).held_bytes <= weighed(floats, ONNX).held_bytes - 4 * matrix + most + 64
        assert gap(artifact, net, ONNX) < 0.02

    @pytest.mark.parametrize("optimization", ["off", "basic", "extended", "all"])
    def test_it_does_so_at_each_level_of_optimization(self, optimization: Optimization, tmp_path: Path) -> None:
        net = Table(tied=True, whole=True, width=64).eval()
        target = OnnxRuntimeCpu(TargetSettings(optimization=optimization))
        request = request_of(net, {"head": 4, "body": 4}, activations="none", granularity="block")
        assert gap(target.lower(net, request, tmp_path), net, target) < 0.02

    def test_what_else_reads_the_table_reads_codes(self, tmp_path: Path) -> None:
        class Odd(Table):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                scores: torch.Tensor = super().forward(x) + cast("torch.Tensor", self.table.weight).sum(dim=1)
                return scores

        net = Odd(tied=True).eval()
        artifact = ONNX.lower(net, request_of(net, {"head": 4}, activations="none"), tmp_path)
        assert "GatherBlockQuantized" not in [node.op_type for node in graph_of(artifact).node]
        assert gap(artifact, net, ONNX) < 1e-4

    @pytest.mark.parametrize("whole", [False, True])
    def test_the_layer_computes_with_the_tables_integers(self, whole: bool, tmp_path: Path) -> None:
        net = Table(tied=True, whole=whole).eval()
        artifact = ONNX.lower(net, request_of(net, {"head": 8, "body": 8}), tmp_path)
        # Over sequences the runtime holds a second copy, the other way round, and no floats of them in any case.
        assert weighed(artifact, ONNX).held_bytes < (2 if whole else 1) * VOCABULARY * (WIDTH + 12) + 4000

    def test_exported_programs_store_them_once_too(self, tmp_path: Path) -> None:
        net = Table(tied=True).eval()
        artifact = TORCH.lower(net, request_of(net, {"head": 8}), tmp_path)
        large = [t for t in weighed(artifact, TORCH).tensors if t.bytes >= VOCABULARY * WIDTH]
        assert [t.dtype for t in large] == ["int8"]


class TestOtherTargets:
    @pytest.mark.parametrize("bits", [8, 16])
    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["deep lstm, both ways", "gru", "rnn", "embedding", "embedding of sequences"])
    def test_openvino_takes_the_same_file(self, name: str, bits: int, tmp_path: Path) -> None:
        net = net_of(name)
        artifact = OPENVINO.lower(net, request_of(net, {net.part: bits}), tmp_path)
        assert artifact == ONNX.lower(net, request_of(net, {net.part: bits}), tmp_path)
        # It rounds what narrow matrices are multiplied with, as it does for linear layers.
        assert gap(artifact, net, OPENVINO) < (1e-4 if bits == 8 and name != "rnn" else 5e-3)

    @pytest.mark.parametrize("bits", [8, 16])
    @pytest.mark.parametrize("name", NETS)
    def test_exported_programs_answer_without_paretrim(self, name: str, bits: int, tmp_path: Path) -> None:
        net = net_of(name)
        artifact = TORCH.lower(net, request_of(net, {net.part: bits}), tmp_path)
        module = torch.export.load(io.BytesIO(artifact.read())).module()
        inputs = torch.from_numpy(inputs_of(net, 8, seed=2))
        expected = net(inputs).detach()
        assert float((module(inputs) - expected).abs().max() / expected.abs().max()) < (1e-4 if bits == 8 else 2e-3)

    def test_exported_programs_look_rows_up_first(self, tmp_path: Path) -> None:
        net = net_of("embedding")
        weights = weighed(TORCH.lower(net, request_of(net, {"table": 8}), tmp_path), TORCH)
        floats = weighed(TORCH.lower(net, LoweringRequest(Signature.single(net.shape, net.dtype)), tmp_path), TORCH)
        assert floats.held_bytes - weights.held_bytes == VOCABULARY * (3 * WIDTH - 4)

    def test_lowering_leaves_the_model_as_it_was(self, tmp_path: Path) -> None:
        for name in ("lstm", "embedding"):
            net = net_of(name)
            request, before = request_of(net, {net.part: 8}), copy.deepcopy(net)
            for target in (ONNX, TORCH):
                target.lower(net, request, tmp_path)
            assert [type(a) for a in net.modules()] == [type(b) for b in before.modules()]
            assert all(torch.equal(a, b) for a, b in zip(net.parameters(), before.parameters(), strict=True))
            assert not any(module._forward_pre_hooks for module in net.modules())
