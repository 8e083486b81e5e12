"""A network's weights put on their grids and lowered, as a trial does it, and what the file then holds and answers."""

from __future__ import annotations

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
from paretrim.evaluators.storage import Activation
from paretrim.evaluators.target import Array, LoweringRequest
from paretrim.evaluators.testing import random_inputs
from paretrim.spaces.anatomy import dissect
from paretrim.spaces.dimension import Value
from paretrim.spaces.quantization import QuantizationOptions, WeightQuantization
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.testing import small_schooling


def samples(shape: tuple[int, ...], count: int = 64) -> Split:
    return Split((random_inputs(count, shape, seed=1), np.zeros(count, np.int64)), "calibration")


def request_of(net: nn.Module, shape: tuple[int, ...], bits: int, **settings: Value) -> LoweringRequest:
    """Put a network's weights on their grids, as a trial does, and return the request to lower it."""
    technique, anatomy = WeightQuantization(QuantizationOptions()), dissect(net, torch.zeros(2, *shape))
    widths: dict[str, Value] = {f"quantization.bits.{name}": bits for name, _ in anatomy.layer_groups()}
    recipe = Recipe.of(widths | {f"quantization.{name}": value for name, value in settings.items()})
    technique.attach(net, recipe, anatomy, small_schooling())
    technique.bake(net, recipe, anatomy)
    stored = technique.storage(net, recipe, anatomy)
    activation = technique.activation(recipe) or Activation()
    return LoweringRequest(Signature.single(shape), stored, samples(shape), activation)


def graph_of(artifact: Artifact) -> Any:
    return onnx.load_model_from_string(artifact.read()).graph


def answers(artifact: Artifact, target: OnnxRuntimeCpu | OpenVinoCpu, inputs: Array) -> Array:
    with artifact.unpacked() as path:
        return target.open(path)(inputs)
