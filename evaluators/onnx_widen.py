"""Layers of an ONNX graph whose weights alone are narrow: they are stored as integers, and take and give floats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from paretrim.evaluators.blocks import count
from paretrim.evaluators.onnx_narrow import narrow, stored_scales
from paretrim.evaluators.onnx_weights import Weights, transposed
from paretrim.evaluators.storage import BLOCK
from paretrim.evaluators.target import Array

_DOMAIN = "com.microsoft"
# Inside the node, each block of 32 inputs is rounded to 8 bits by its own range. With floats instead, products with
# 8-bit weights take 20 times as long as they do with 32-bit weights, and those with 4-bit weights longer than these.
_AS_INTEGERS = 4


def widen(proto: Any, weights: Sequence[Weights], held: tuple[int, ...]) -> None:
    """Store some layers as integers, in place.

    A linear layer becomes a MatMulNBits node (4 bits where its codes fit, else 8) if the runtime has it, and keeps its
    weights narrow in memory. All others are widened when the model is loaded.

    Args:
        proto: The model.
        weights: Of the layers.
        held: Bits that the runtime's MatMulNBits takes; empty for a runtime without it.
    """
    nodes = {node.name: node for node in proto.graph.node}
    done: set[str] = set()
    for each in weights:
        node = nodes[each.node.name]
        bits = _bits(each, node, held)
        if bits:
            _to_blocks(proto, node, each, bits)
        elif node.input[1] not in done:
            done.add(node.input[1])
            narrow(proto.graph, node.input[1], each.narrow)


def _bits(weights: Weights, node: Any, held: tuple[int, ...]) -> int:
    """Return the bits of the narrowest MatMulNBits node that can take a layer, or 0."""
    plain = node.op_type == "MatMul" or (
        node.op_type == "Gemm"
        and transposed(node)
        and not any(a.name in ("alpha", "beta") and a.f != 1.0 for a in node.attribute)
        and not any(a.name == "transA" and a.i for a in node.attribute)
    )
    inputs = weights.floats.shape[1 - weights.axis] if weights.floats.ndim == 2 else 0
    if not plain or inputs < BLOCK:
        return 0
    peak = int(np.abs(weights.codes.astype(np.int16)).max())
    return next((bits for bits in sorted(held) if peak <= 2 ** (bits - 1) - 1), 0)


def _to_blocks(proto: Any, node: Any, weights: Weights, bits: int) -> None:
    graph = proto.graph
    codes = np.moveaxis(weights.codes, weights.axis, 0)
    outputs, inputs = codes.shape
    blocks = count(inputs)
    base = f"{node.name}_{bits}bit"
    graph.initializer.append(numpy_helper.from_array(_packed(codes, blocks, bits), f"{base}_codes"))
    made = [_scales(graph, weights.scales, (outputs, blocks), f"{base}_scales")]
    biased = node.op_type == "Gemm" and len(node.input) > 2 and bool(node.input[2])
    result = f"{base}_product" if biased else node.output[0]
    product = helper.make_node(
        "MatMulNBits",
        [node.input[0], f"{base}_codes", f"{base}_scales"],
        [result],
        node.name,
        domain=_DOMAIN,
        K=inputs,
        N=outputs,
        bits=bits,
        block_size=BLOCK,
        accuracy_level=_AS_INTEGERS,
    )
    made = [*filter(None, made), product]
    if biased:
        made.append(helper.make_node("Add", [result, node.input[2]], [node.output[0]], f"{node.name}_bias"))
    place = next(i for i, other in enumerate(graph.node) if other.name == node.name)
    graph.node.remove(node)
    for position, each in enumerate(made):
        graph.node.insert(place + position, each)
    if all(entry.domain != _DOMAIN for entry in proto.opset_import):
        proto.opset_import.append(helper.make_opsetid(_DOMAIN, 1))


def _scales(graph: Any, scales: Array, shape: tuple[int, int], name: str) -> Any | None:
    """Store scales under a name; return what widens them when the model is loaded, where that is needed."""
    if scales.ndim == 2:
        graph.initializer.append(numpy_helper.from_array(stored_scales(scales), f"{name}_half"))
        return helper.make_node("Cast", [f"{name}_half"], [name], f"{name}_cast", to=TensorProto.FLOAT)
    floats = np.broadcast_to(scales.reshape(-1, 1), shape).astype(np.float32)
    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(floats), name))
    return None


def _packed(codes: Array, blocks: int, bits: int) -> Array:
    """Return codes ``(N, K)`` as the operator takes them, ``(N, blocks, bytes)``: above zero, low half first."""
    padded = np.zeros((len(codes), blocks * BLOCK), np.int16)
    padded[:, : codes.shape[1]] = codes
    raised = (padded + 2 ** (bits - 1)).astype(np.uint8).reshape(len(codes), blocks, BLOCK)
    return raised if bits == 8 else np.ascontiguousarray(raised[..., 0::2] | (raised[..., 1::2] << 4))
