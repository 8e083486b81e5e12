"""Networks for ONNX Runtime as a target, lowered as a trial does, and what is in their files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from paretrim.evaluators.artifact import Artifact
from paretrim.evaluators.onnx_target import OnnxRuntimeCpu
from paretrim.evaluators.signature import Signature
from paretrim.evaluators.splits import Split
from paretrim.evaluators.storage import of_widths
from paretrim.evaluators.target import Array, LoweringRequest, TargetSettings
from paretrim.evaluators.testing import random_inputs
from paretrim.spaces.anatomy import dissect
from paretrim.spaces.quantization import QuantizationOptions, WeightQuantization
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.testing import small_schooling

Bits = Mapping[str, int]
TARGET = OnnxRuntimeCpu(TargetSettings())


def conv_block(inputs: int, outputs: int, groups: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, groups=groups, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def pooled(*layers: nn.Module, channels: int) -> nn.Module:
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5))


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
