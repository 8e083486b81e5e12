"""A model that attends: only what its layers take is put into 8 bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from paretrim.evaluators.onnx_target import OnnxRuntimeCpu
from paretrim.evaluators.openvino_target import OpenVinoCpu
from paretrim.evaluators.target import TargetSettings
from paretrim.evaluators.testing import random_inputs

from .helper_quantize import answers, graph_of, request_of

TARGET = OnnxRuntimeCpu(TargetSettings())
OPENVINO = OpenVinoCpu(TargetSettings("openvino"))


class Attending(nn.Module):
    """A decoder's layer with an outlier in its sums, as trained ones have: shape (N, 8, 32) to (N, 8, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.normal = nn.LayerNorm(32)
        self.query, self.key, self.value, self.out = (nn.Linear(32, 32) for _ in range(4))
        self.head = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normal = self.normal(x)
        scores = self.query(normal) @ self.key(normal).transpose(1, 2) / 6
        behind = torch.full((8, 8), torch.finfo(torch.float32).min).triu(1)
        mixed = torch.softmax(scores + behind, dim=-1) @ self.value(normal)
        outlier = torch.zeros(32)
        outlier[3] = 200.0
        added = x + self.out(mixed) + outlier
        logits: torch.Tensor = self.head(nn.functional.layer_norm(added - outlier, (32,)))
        return logits


class TestAttention:
    @pytest.mark.parametrize("target", [TARGET, OPENVINO], ids=lambda each: each.settings.runtime)
    def test_only_what_layers_take_is_put_into_8_bits(
        self, target: OnnxRuntimeCpu | OpenVinoCpu, tmp_path: Path
    ) -> None:
        torch.manual_seed(0)
        net, shape = Attending().eval(), (8, 32)
        request = request_of(net, shape, 8)
        artifact = target.lower(net, request, tmp_path)
        inputs = random_inputs(32, shape, seed=2)
        expected = net(torch.from_numpy(inputs)).detach().numpy()
        moved = np.abs(answers(artifact, target, inputs) - expected).max()
        assert moved < 0.05 * np.abs(expected).max()
        graph = graph_of(artifact)
        rounded = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
        readers = {node.op_type for node in graph.node if rounded.intersection(node.input)}
        assert readers <= {"MatMul", "Gemm", "Transpose", "Add", "Reshape"}
        codes = {
            item.name for item in graph.initializer if item.data_type == onnx.TensorProto.INT8 and len(item.dims) == 2
        }
        assert len(codes) == 5

    def test_a_product_with_turned_weights_is_no_attention(self, tmp_path: Path) -> None:
        net = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
        artifact = TARGET.lower(net, request_of(net, (16,), 8), tmp_path)
        rounded = [node for node in graph_of(artifact).node if node.op_type == "QuantizeLinear"]
        assert len(rounded) == 3  # of the input, between the layers, and of the output
