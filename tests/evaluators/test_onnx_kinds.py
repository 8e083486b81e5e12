"""ONNX Runtime as a target, for networks of different kinds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional

from paretrim.evaluators.signature import Signature
from paretrim.evaluators.splits import Split
from paretrim.evaluators.storage import of_widths
from paretrim.evaluators.target import LoweringRequest
from paretrim.spaces.testing import small_net

from .helper_onnx import TARGET, codes, conv_block, layer_names, lowered, pooled, producers, seeded


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
