"""Layers of an ONNX graph whose weights alone are narrow: they are stored as integers, and take and give floats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from paretrim.evaluators.onnx_blocks import is_product, multiplied, narrowest, store
from paretrim.evaluators.onnx_narrow import narrow, replace
from paretrim.evaluators.onnx_weights import Weights
from paretrim.evaluators.storage import BLOCK


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
        wide = each.floats.ndim == 2 and each.floats.shape[1 - each.axis] >= BLOCK
        codes = np.moveaxis(each.codes, each.axis, 0)
        bits = narrowest(codes, held) if wide and is_product(node) else 0
        if bits:
            matrix = store(proto, f"{node.name}_{bits}bit", codes, each.scales, bits)
            replace(proto.graph, node, list(multiplied(node, matrix)))
        elif node.input[1] not in done:
            done.add(node.input[1])
            narrow(proto.graph, node.input[1], each.narrow)
