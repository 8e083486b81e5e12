"""Matrices that stay packed in memory: codes in blocks with a scale each, by which ONNX Runtime multiplies and looks rows up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from paretrim.evaluators.blocks import count
from paretrim.evaluators.onnx_narrow import stored_scales
from paretrim.evaluators.storage import BLOCK
from paretrim.evaluators.target import Array

_DOMAIN = "com.microsoft"
# Inside the node, each block of 32 inputs is rounded to 8 bits by its own range. With floats instead, products with
# 8-bit weights take 20 times as long as they do with 32-bit weights, and those with 4-bit weights longer than these.
_AS_INTEGERS = 4


@dataclass(frozen=True)
class Packed:
    """A matrix in a graph.

    Attributes:
        codes: Its initializer, shape ``(rows, blocks, bytes)``, or ``(rows, bytes)`` where it is only looked up in.
        scales: That of the scales, shape ``(rows, blocks)``.
        rows: Output channels of a layer, or entries of a table.
        columns: Inputs of a layer, or numbers of an entry.
        bits: Per code, 4 or 8.
    """

    codes: str
    scales: str
    rows: int
    columns: int
    bits: int


def narrowest(codes: Array, held: tuple[int, ...]) -> int:
    """Return the fewest bits, of those that the runtime takes, that hold some codes; 0 where there are none."""
    peak = int(np.abs(codes.astype(np.int16)).max())
    return next((bits for bits in sorted(held) if peak <= 2 ** (bits - 1) - 1), 0)


def store(proto: Any, name: str, codes: Array, scales: Array, bits: int, *, flat: bool = False) -> Packed:
    """Put a matrix into a graph.

    Args:
        proto: The model, changed in place.
        name: What its initializers begin with.
        codes: Shape ``(rows, columns)``.
        scales: Of each row, of each block of each row, or ``()`` for one for all.
        bits: That hold the codes.
        flat: Whether it is only looked up in.
    """
    rows, columns = codes.shape
    blocks = count(columns)
    wide = stored_scales(scales) if scales.ndim == 2 else np.broadcast_to(scales.reshape(-1, 1), (rows, blocks))
    packed = _packed(codes, blocks, bits)
    packed = packed.reshape(rows, -1) if flat else packed
    proto.graph.initializer.append(numpy_helper.from_array(packed, f"{name}_codes"))
    proto.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(wide, np.float32), f"{name}_scales"))
    if all(entry.domain != _DOMAIN for entry in proto.opset_import):
        proto.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    return Packed(f"{name}_codes", f"{name}_scales", rows, columns, bits)


def is_product(node: Any) -> bool:
    """Tell whether a node does nothing but multiply by a matrix, which a Gemm has as torch has it, and add a bias."""
    if node.op_type != "Gemm":
        return bool(node.op_type == "MatMul")
    values = {each.name: each for each in node.attribute}
    scaled = any(name in values and values[name].f != 1.0 for name in ("alpha", "beta"))
    return (
        "transB" in values
        and bool(values["transB"].i)
        and not scaled
        and not ("transA" in values and values["transA"].i)
    )


def multiplied(node: Any, matrix: Packed) -> Iterator[Any]:
    """Yield what takes the place of a node that `is_product`."""
    biased = node.op_type == "Gemm" and len(node.input) > 2 and bool(node.input[2])
    result = f"{node.name}_product" if biased else node.output[0]
    yield helper.make_node(
        "MatMulNBits",
        [node.input[0], matrix.codes, matrix.scales],
        [result],
        node.name,
        domain=_DOMAIN,
        K=matrix.columns,
        N=matrix.rows,
        bits=matrix.bits,
        block_size=BLOCK,
        accuracy_level=_AS_INTEGERS,
    )
    if biased:
        yield helper.make_node("Add", [result, node.input[2]], [node.output[0]], f"{node.name}_bias")


def looked_up(node: Any, matrix: Packed, codes: str) -> Any:
    """Return what takes the place of a Gather of rows; `codes` are the matrix's, of two dimensions."""
    return helper.make_node(
        "GatherBlockQuantized",
        [codes, node.input[1], matrix.scales],
        [node.output[0]],
        node.name,
        domain=_DOMAIN,
        gather_axis=0,
        quantize_axis=1,
        block_size=BLOCK,
        bits=matrix.bits,
    )


def _packed(codes: Array, blocks: int, bits: int) -> Array:
    """Return codes ``(N, K)`` as the operators take them, ``(N, blocks, bytes)``: above zero, low half first."""
    padded = np.zeros((len(codes), blocks * BLOCK), np.int16)
    padded[:, : codes.shape[1]] = codes
    raised = (padded + 2 ** (bits - 1)).astype(np.uint8).reshape(len(codes), blocks, BLOCK)
    return raised if bits == 8 else np.ascontiguousarray(raised[..., 0::2] | (raised[..., 1::2] << 4))
