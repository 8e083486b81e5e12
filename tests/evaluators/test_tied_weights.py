"""An embedding and the layer that gives the scores have one matrix, which is stored once and stays packed."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
import torch

from paretrim.evaluators.onnx_target import OnnxRuntimeCpu
from paretrim.evaluators.signature import Signature
from paretrim.evaluators.target import LoweringRequest, Optimization, TargetSettings

from .helper_weight_only import ONNX, TORCH, VOCABULARY, WIDTH, Table, gap, graph_of, request_of, weighed


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(("bits", "activations"), [(8, "target"), (4, "target"), (8, "none"), (16, "target")])
def test_they_are_stored_once_and_answer_alike(bits: int, activations: str, whole: bool, tmp_path: Path) -> None:
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
    bits: int, whole: bool, granularity: str, tmp_path: Path
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


@pytest.mark.parametrize("family", ["uniform", "asymmetric"])
@pytest.mark.parametrize("optimization", ["off", "basic", "extended", "all"])
def test_it_does_so_at_each_level_of_optimization(optimization: Optimization, family: str, tmp_path: Path) -> None:
    net = Table(tied=True, whole=True, width=64).eval()
    target = OnnxRuntimeCpu(TargetSettings(optimization=optimization))
    request = request_of(net, {"head": 4, "body": 4}, activations="none", granularity="block", family=family)
    assert gap(target.lower(net, request, tmp_path), net, target) < 0.02


@pytest.mark.parametrize("granularity", ["channel", "tensor", "block"])
def test_four_bits_hold_codes_that_are_not_around_zero(granularity: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    zeros, kept = {}, {}
    for family in ("uniform", "asymmetric"):
        net = Table(tied=True, width=96).eval()
        with torch.no_grad():
            net.get_parameter("table.weight").abs_()
            net.get_parameter("body.weight")[:, 32:64].abs_()
        request = request_of(net, {"head": 4, "body": 4}, activations="none", granularity=granularity, family=family)
        artifact = ONNX.lower(net, request, tmp_path)
        graph = graph_of(artifact)
        packed = [node for node in graph.node if node.op_type in ("MatMulNBits", "GatherBlockQuantized")]
        assert len(packed) == 3
        zeros[family] = [bool(node.input[3:]) for node in packed]
        kept[family] = sum(t.bytes for t in weighed(artifact, ONNX).tensors if t.dtype == "uint8")
        assert gap(artifact, net, ONNX) < 0.02
    assert zeros == {"uniform": [False] * 3, "asymmetric": [True] * 3}
    # A code for the zero of each block.
    assert kept["asymmetric"] <= kept["uniform"] * (1 + 1 / 16)


def test_what_else_reads_the_table_reads_codes(tmp_path: Path) -> None:
    class Odd(Table):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scores: torch.Tensor = super().forward(x) + cast("torch.Tensor", self.table.weight).sum(dim=1)
            return scores

    net = Odd(tied=True).eval()
    artifact = ONNX.lower(net, request_of(net, {"head": 4}, activations="none"), tmp_path)
    assert "GatherBlockQuantized" not in [node.op_type for node in graph_of(artifact).node]
    assert gap(artifact, net, ONNX) < 1e-4


@pytest.mark.parametrize("whole", [False, True])
def test_the_layer_computes_with_the_tables_integers(whole: bool, tmp_path: Path) -> None:
    net = Table(tied=True, whole=whole).eval()
    artifact = ONNX.lower(net, request_of(net, {"head": 8, "body": 8}), tmp_path)
    # Over sequences the runtime holds a second copy, the other way round, and no floats of them in any case.
    assert weighed(artifact, ONNX).held_bytes < (2 if whole else 1) * VOCABULARY * (WIDTH + 12) + 4000


def test_exported_programs_store_them_once_too(tmp_path: Path) -> None:
    net = Table(tied=True).eval()
    artifact = TORCH.lower(net, request_of(net, {"head": 8}), tmp_path)
    large = [t for t in weighed(artifact, TORCH).tensors if t.bytes >= VOCABULARY * WIDTH]
    assert [t.dtype for t in large] == ["int8"]
