"""The codes and scales of layers' weights in an ONNX graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import numpy_helper

from paretrim.errors import LoweringError
from paretrim.evaluators.blocks import peaks as peaks_of_blocks
from paretrim.evaluators.blocks import spread
from paretrim.evaluators.onnx_export import Exported
from paretrim.evaluators.onnx_narrow import Narrow
from paretrim.evaluators.storage import PEAK, Storage
from paretrim.evaluators.target import Array

_NOTHING = 1e-12


@dataclass(frozen=True)
class OnGrid:
    """Weights of the graph that lie on a grid.

    Attributes:
        floats: The weights as the graph has them, batch normalization folded in.
        axis: Their dimension of output channels.
        scales: Distance between neighbouring codes of each output channel, shape ``(C,)``, of each block of each channel of a
            matrix, ``(C, blocks)``, or ``()`` for one for all.
    """

    floats: Array
    axis: int
    scales: Array

    @property
    def codes(self) -> Array:
        """The codes, in the shape of the weights."""
        rows = np.moveaxis(self.floats, self.axis, 0)
        rows = np.round(rows / self._wide(rows.shape)).clip(-PEAK, PEAK)
        codes: Array = np.ascontiguousarray(np.moveaxis(rows, 0, self.axis).astype(np.int8))
        return codes

    @property
    def narrow(self) -> Narrow:
        """What is stored in their place."""
        if self.scales.ndim == 2:
            scales = np.ascontiguousarray(np.moveaxis(self.scales, 0, self.axis))
            return Narrow("codes", self.codes, scales, 1 - self.axis)
        shape = [-1 if each == self.axis else 1 for each in range(self.floats.ndim)] if self.scales.ndim else []
        return Narrow("codes", self.codes, self.scales.reshape(shape))

    def _wide(self, shape: tuple[int, ...]) -> Array:
        """Return the scales as they broadcast to rows of a shape ``(C, ...)``."""
        return (
            spread(self.scales, shape[1]) if self.scales.ndim == 2 else self.scales.reshape(-1, *[1] * (len(shape) - 1))
        )


@dataclass(frozen=True)
class Weights(OnGrid):
    """The weights of one node of the graph.

    Attributes:
        node: A Conv, Gemm or MatMul.
        stored: How its layer is stored.
    """

    node: Any
    stored: Storage


def on_grid(floats: Array, stored: Storage) -> OnGrid:
    """Return the grid of weights that are as the torch model has them, shape ``(C, ...)``."""
    return OnGrid(floats, 0, _scales(floats, 0, stored, floats))


def weights_of(
    exported: Exported, layers: Mapping[str, Storage], trained: Mapping[str, Array], peak: int
) -> Iterator[Weights]:
    """Yield the weights of each node that computes one of some layers.

    Args:
        exported: The model with float weights.
        layers: How each layer of 8 bits or fewer is stored.
        trained: The weights of each of them in the torch model, shape ``(C, ...)``.
        peak: The largest code of those that are computed with as integers: grids with larger ones are widened.

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
            scales = _scales(floats, axis, stored, trained[name])
            if stored.integers and peak < PEAK:
                scales = _widened(scales, _peaks(np.moveaxis(floats, axis, 0)), peak)
            yield Weights(floats, axis, scales, node, stored)


def _widened(scales: Array, peaks: Array, most: int) -> Array:
    """Return scales with which no code of channels with such peaks is larger than is allowed."""
    least = peaks / most if scales.ndim else peaks.max() / most
    # Peaks that were trained to lie on the largest code stay on it.
    return np.where(least > scales * (1 + 1e-3), least, scales).astype(np.float32)


def _scales(floats: Array, axis: int, stored: Storage, trained: Array) -> Array:
    """Return the steps of the trained weights, times the factor by which folding changed each channel."""
    rows = np.moveaxis(floats, axis, 0)
    peak = _peaks(rows)
    if stored.steps is None:
        peak = peaks_of_blocks(rows) if stored.in_blocks else peak
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
    if stored.in_blocks:
        return np.asarray(steps.reshape(len(peak), -1) * factor[:, None], np.float32)
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
