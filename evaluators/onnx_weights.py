"""The codes and scales of layers' weights in an ONNX graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import numpy_helper

from paretrim.errors import LoweringError
from paretrim.evaluators.onnx_export import Exported
from paretrim.evaluators.onnx_narrow import Narrow, halves
from paretrim.evaluators.storage import HALF, PEAK, Storage
from paretrim.evaluators.target import Array

_NOTHING = 1e-12


@dataclass(frozen=True)
class OnGrid:
    """Weights of the graph that lie on a grid.

    Attributes:
        floats: The weights as the graph has them, batch normalization folded in.
        axis: Their dimension of output channels.
        scales: Distance between neighbouring codes of each output channel, shape ``(C,)``, or ``()`` for one for all.
    """

    floats: Array
    axis: int
    scales: Array

    @property
    def codes(self) -> Array:
        """The codes, in the shape of the weights."""
        wide = self.scales.reshape(-1, *[1] * (self.floats.ndim - 1))
        rows = np.round(np.moveaxis(self.floats, self.axis, 0) / wide).clip(-PEAK, PEAK)
        codes: Array = np.ascontiguousarray(np.moveaxis(rows, 0, self.axis).astype(np.int8))
        return codes

    @property
    def narrow(self) -> Narrow:
        """What is stored in their place."""
        shape = [-1 if each == self.axis else 1 for each in range(self.floats.ndim)] if self.scales.ndim else []
        return Narrow("codes", self.codes, self.scales.reshape(shape))


@dataclass(frozen=True)
class Weights(OnGrid):
    """The weights of one node of the graph.

    Attributes:
        node: A Conv, Gemm or MatMul.
        stored: How its layer is stored.
    """

    node: Any
    stored: Storage


def narrowed(floats: Array, stored: Storage) -> Narrow:
    """Return what is stored in the place of weights that are as the torch model has them, shape ``(C, ...)``."""
    return halves(floats) if stored.bits == HALF else OnGrid(floats, 0, _scales(floats, 0, stored, floats)).narrow


def weights_of(exported: Exported, layers: Mapping[str, Storage], trained: Mapping[str, Array]) -> Iterator[Weights]:
    """Yield the weights of each node that computes one of some layers.

    Args:
        exported: The model with float weights.
        layers: How each layer of 8 bits or fewer is stored.
        trained: The weights of each of them in the torch model, shape ``(C, ...)``.

    Raises:
        LoweringError: A layer's weights are no constants of the graph.
    """
    nodes = {node.name: node for node in exported.proto.graph.node}
    held = {item.name: item for item in exported.proto.graph.initializer}
    for name, stored in layers.items():
        for node in (nodes[each] for each in exported.layer_nodes[name]):
            if node.input[1] not in held:
                raise LoweringError(
                    f"the weights of {node.name} are computed in the graph; leave the layer {name} at 'none' bits"
                )
            floats = numpy_helper.to_array(held[node.input[1]])
            axis = _channel_axis(node)
            yield Weights(floats, axis, _scales(floats, axis, stored, trained[name]), node, stored)


def _scales(floats: Array, axis: int, stored: Storage, trained: Array) -> Array:
    """Return the steps of the trained weights, times the factor by which folding changed each channel."""
    peak = _peaks(np.moveaxis(floats, axis, 0))
    if stored.steps is None:
        wide = peak if stored.per_channel else peak.max()
        return np.asarray(np.where(wide > _NOTHING, wide, 1.0) / (2 ** (stored.bits - 1) - 1), np.float32)
    before, steps = _peaks(trained), np.asarray(stored.steps, np.float64)
    if len(before) != len(peak):
        raise LoweringError(
            f"a layer of {len(before)} output channels has {len(peak)} in the exported graph; leave it at 'none' bits"
        )
    # A channel of zeros has the code 0 only, and any scale will do.
    empty = (before <= _NOTHING) | (peak <= _NOTHING)
    factor = np.where(empty, 1.0, peak / np.where(empty, 1.0, before))
    if not stored.per_channel and (empty.all() or np.ptp(factor[~empty]) <= 1e-5 * factor[~empty].max()):
        return np.asarray(steps[0] * (1.0 if empty.all() else factor[~empty].mean()), np.float32)
    # What a common step has become where batch normalization was folded in all the same.
    return np.asarray(steps * factor, np.float32)


def _peaks(rows: Array) -> Array:
    peaks: Array = np.abs(rows.reshape(len(rows), -1).astype(np.float64)).max(axis=1)
    return peaks


def _channel_axis(node: Any) -> int:
    if node.op_type == "Conv":
        return 0
    return 0 if node.op_type == "Gemm" and transposed(node) else 1


def transposed(node: Any) -> bool:
    """Tell whether a Gemm has its weights as torch has them, ``(outputs, inputs)``."""
    return any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
