"""Matrices that stay packed in memory: codes in blocks with a scale each, by which ONNX Runtime multiplies and looks rows up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from paretrim.evaluators.blocks import count, highest, lowest
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
        zeros: That of the stored codes that stand for zero, shape ``(rows, bytes)``; empty where it is the middle one everywhere.
        rows: Output channels of a layer, or entries of a table.
        columns: Inputs of a layer, or numbers of an entry.
        bits: Per code, 4 or 8.
    """

    codes: str
    scales: str
    zeros: str
    rows: int
    columns: int
    bits: int


def narrowest(codes: Array, held: tuple[int, ...]) -> int:
    """Return the fewest bits, of those that the runtime takes, that hold each block of some codes; 0 where there are none.

    Args:
        codes: Shape ``(rows, columns)``.
        held: Bits that it takes.
    """
    widest = int((highest(codes).astype(np.int16) - lowest(codes)).max())
    return next((bits for bits in sorted(held) if _centred(codes, bits) or widest < 2**bits), 0)


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
    centred = _centred(codes, bits)
    zeros = np.full((rows, blocks), 2 ** (bits - 1), np.uint8) if centred else (-lowest(codes)).astype(np.uint8)
    packed = _halved(_raised(codes, zeros), bits).reshape(rows, *(() if flat else (blocks,)), -1)
    held = {"codes": packed, "scales": np.ascontiguousarray(wide, np.float32)}
    held |= {} if centred else {"zeros": _halved(zeros, bits)}
    proto.graph.initializer.extend(numpy_helper.from_array(each, f"{name}_{part}") for part, each in held.items())
    if all(entry.domain != _DOMAIN for entry in proto.opset_import):
        proto.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    return Packed(f"{name}_codes", f"{name}_scales", "" if centred else f"{name}_zeros", rows, columns, bits)


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
        [node.input[0], matrix.codes, matrix.scales, *_given(matrix.zeros)],
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
        [codes, node.input[1], matrix.scales, *_given(matrix.zeros)],
        [node.output[0]],
        node.name,
        domain=_DOMAIN,
        gather_axis=0,
        quantize_axis=1,
        block_size=BLOCK,
        bits=matrix.bits,
    )


def _given(name: str) -> list[str]:
    return [name] if name else []


def _centred(codes: Array, bits: int) -> bool:
    """Tell whether zero can be the middle one of the codes that there are with so many bits."""
    return bool(np.abs(codes.astype(np.int16)).max() < 2 ** (bits - 1))


def _raised(codes: Array, zeros: Array) -> Array:
    """Return codes as they are stored, none of them below zero, and what the last blocks lack as zeros."""
    wide = np.zeros((len(codes), zeros.shape[1] * BLOCK), np.int16)
    wide[:, : codes.shape[1]] = codes
    raised: Array = (wide + np.repeat(zeros, BLOCK, axis=1)).astype(np.uint8)
    return raised


def _halved(values: Array, bits: int) -> Array:
    """Return rows of stored values as bytes: of 4 bits, two to a byte, the low half first."""
    if bits == 8:
        return values
    even = np.pad(values, ((0, 0), (0, values.shape[1] % 2)))
    return np.ascontiguousarray(even[:, 0::2] | (even[:, 1::2] << 4))
