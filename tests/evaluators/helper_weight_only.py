"""Nets with embeddings, recurrent layers and transposed convolutions, and how a trial stores them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from paretrim.evaluators.artifact import Artifact
from paretrim.evaluators.onnx_target import OnnxRuntimeCpu
from paretrim.evaluators.openvino_target import OpenVinoCpu
from paretrim.evaluators.signature import Signature
from paretrim.evaluators.splits import Split
from paretrim.evaluators.target import Array, LoweringRequest, TargetSettings
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
