"""From a torch model to a plain ONNX model."""

from __future__ import annotations

import json
from ast import literal_eval
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from paretrim.errors import LoweringError
from paretrim.evaluators.lowering import FIXED_BATCH, innermost, quiet, traced
from paretrim.evaluators.onnx_marks import marked, unmark
from paretrim.evaluators.parametrized import WEIGHT_ONLY
from paretrim.evaluators.signature import Signature

_SCOPES = "pkg.torch.onnx.name_scopes"


@dataclass(frozen=True)
class Exported:
    """An ONNX model with float weights.

    Attributes:
        proto: The model, without the exporter's notes.
        layer_nodes: The nodes that compute each layer, by the layer's module path; several when it is called again.
        weights: The initializers of the weights that were asked for, by their paths.
        floats: The nodes of embeddings and recurrent layers, which take and give floats.
    """

    proto: Any
    layer_nodes: dict[str, list[str]]
    weights: dict[str, str] = field(default_factory=dict)
    floats: frozenset[str] = frozenset()


def export(model: nn.Module, inputs: Signature, weights: Collection[str] = ()) -> Exported:
    """Export a model with a free batch dimension; batch normalization is folded into the weights.

    Args:
        model: In evaluation mode, on the CPU, with one output; left as it is.
        inputs: What one sample's inputs are.
        weights: Paths of weights that shall be initializers of their own, as the model has them.

    Raises:
        LoweringError: The exporter does not take the model; the message has its reason.
    """
    try:
        with quiet():
            program = torch.onnx.export(
                marked(model.eval(), weights),
                **traced(inputs),
                dynamo=True,
                input_names=list(inputs.names),
                output_names=["output"],
                external_data=False,
                verbose=False,
            )
    except Exception as error:
        raise LoweringError(f"the model does not export to ONNX: {innermost(error)}") from error
    if program is None:
        raise LoweringError("the model does not export to ONNX: the exporter gave nothing back")
    proto = program.model_proto
    if len(proto.graph.output) != 1:
        raise LoweringError(f"the model has {len(proto.graph.output)} outputs; models with one output are supported")
    if not all(_free_batch(value) for value in (*proto.graph.input, *proto.graph.output)):
        raise LoweringError(FIXED_BATCH)
    nodes = _layer_nodes(proto.graph)
    apart = {name for name, module in model.named_modules() if isinstance(module, WEIGHT_ONLY)}
    floats = frozenset(node.name for node in proto.graph.node if apart.intersection(_scopes(node)))
    found = unmark(proto)
    _strip(proto)
    return Exported(proto, nodes, found, floats)


def _free_batch(value: Any) -> bool:
    dimensions = value.type.tensor_type.shape.dim
    return bool(dimensions) and bool(dimensions[0].dim_param)


def _layer_nodes(graph: Any) -> dict[str, list[str]]:
    """Map module paths to nodes, by the name of the weight, or by the scopes that the exporter notes at each node.

    Folding batch normalization into a convolution drops the node's notes but keeps its weight's name; a linear layer
    over sequences keeps its notes but gets a transposed weight of another name.
    """
    found: dict[str, list[str]] = {}
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul"):
            continue
        named = [node.input[1].removesuffix(".weight")] if node.input[1].endswith(".weight") else []
        for path in dict.fromkeys([*_scopes(node), *named]):
            found.setdefault(path, []).append(node.name)
    return found


def _scopes(node: Any) -> list[str]:
    """Return the paths of the modules within which a node was made."""
    return [scope for entry in node.metadata_props if entry.key == _SCOPES for scope in _parse(entry.value)]


def _parse(scopes: str) -> list[str]:
    try:
        value = literal_eval(scopes)
    except (ValueError, SyntaxError):
        value = json.loads(scopes)
    return [str(item) for item in value if item]


def _strip(proto: Any) -> None:
    # Stack traces and source paths would ship, and would make equal models differ.
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        part.doc_string = ""
        if hasattr(part, "metadata_props"):
            del part.metadata_props[:]
