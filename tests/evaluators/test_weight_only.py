"""Embeddings, recurrent layers and transposed convolutions in a file: codes or half floats, and what they answer."""

from __future__ import annotations

import copy
import io
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from paretrim.evaluators.signature import Signature
from paretrim.evaluators.storage import Storage
from paretrim.evaluators.target import LoweringRequest

from .helper_weight_only import (
    NETS,
    ONNX,
    OPENVINO,
    TORCH,
    VOCABULARY,
    WIDTH,
    Reader,
    Table,
    gap,
    graph_of,
    inputs_of,
    net_of,
    request_of,
    weighed,
)


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
@pytest.mark.parametrize("family", ["uniform", "asymmetric", "lsq", "power_of_two", "codebook", "noise"])
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
