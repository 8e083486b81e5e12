"""Tables of embeddings that stay packed in memory, also for a layer that has its weights in common with one.

A language model's table is often its largest matrix, and also that of the layer that gives the scores. Widened for that layer
it would take more memory than all the rest.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from paretrim.evaluators.onnx_blocks import is_product, looked_up, multiplied, narrowest, store
from paretrim.evaluators.onnx_marks import graphs_in
from paretrim.evaluators.onnx_narrow import looks_up, replace
from paretrim.evaluators.onnx_weights import OnGrid
from paretrim.evaluators.storage import BLOCK


def keep_packed(proto: Any, name: str, table: OnGrid, held: tuple[int, ...]) -> bool:
    """Let all who read a table read it packed, in place, and tell whether that could be done.

    Args:
        proto: The model.
        name: The table's initializer, shape ``(entries, numbers)``.
        table: What is in it.
        held: Bits that the runtime takes; empty for a runtime without such operators.
    """
    graph = proto.graph
    lookups = [node for node in graph.node if looks_up(node, name)]
    turned = {node.output[0] for node in graph.node if node.op_type == "Transpose" and node.input[0] == name}
    products = [node for node in graph.node if _multiplies(node, name, turned)]
    wanted = len(lookups) + len(products)
    known = table.floats.ndim == 2 and table.floats.shape[1] % BLOCK == 0 and wanted == _readers(graph, name, turned)
    bits = narrowest(table.codes, held) if known and lookups else 0
    # A table of 8 bits that is only looked up in is as small as it was stored before.
    if not bits or (bits == 8 and not products):
        return False
    matrix = store(proto, name, table.codes, table.scales, bits, flat=not products)
    rows = matrix.codes
    if products:
        rows = f"{name}_rows"
        shape = np.array([matrix.rows, matrix.columns * bits // 8], np.int64)
        graph.initializer.append(numpy_helper.from_array(shape, f"{rows}_shape"))
        graph.node.insert(0, helper.make_node("Reshape", [matrix.codes, f"{rows}_shape"], [rows], rows))
    for node in lookups:
        replace(graph, node, [looked_up(node, matrix, rows)])
    for node in products:
        replace(graph, node, list(multiplied(node, matrix)))
    return True


def _multiplies(node: Any, name: str, turned: set[str]) -> bool:
    if not is_product(node):
        return False
    return bool(node.input[1] == name if node.op_type == "Gemm" else node.input[1] in turned)


def _readers(graph: Any, name: str, turned: set[str]) -> int:
    """Return how often a table is read, in the way that it lies or the other way round."""
    names = {name, *turned}
    return sum(
        each in names
        for inner in graphs_in(graph)
        for node in inner.node
        if not turned.intersection(node.output)
        for each in node.input
    )
