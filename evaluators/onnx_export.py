"""From a torch model to a plain ONNX model."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from ast import literal_eval
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from paretrim.errors import LoweringError

_SCOPES = "pkg.torch.onnx.name_scopes"


@dataclass(frozen=True)
class Exported:
    """An ONNX model with float weights.

    Attributes:
        proto: The model, without the exporter's notes.
        layer_nodes: The nodes that compute each layer, by the layer's module path; several when it is called again.
    """

    proto: Any
    layer_nodes: dict[str, list[str]]


def export(model: nn.Module, input_shape: tuple[int, ...], input_dtype: str) -> Exported:
    """Export a model with a free batch dimension; batch normalization is folded into the weights.

    Args:
        model: In evaluation mode, on the CPU, with one input and one output.
        input_shape: Shape of one sample.
        input_dtype: Name of the torch type of the input, such as ``float32``.

    Raises:
        LoweringError: The exporter does not take the model; the message has its reason.
    """
    example = torch.zeros((2, *input_shape), dtype=getattr(torch, input_dtype))
    try:
        with _quiet():
            program = torch.onnx.export(
                model.eval(),
                (example,),
                dynamo=True,
                input_names=["input"],
                output_names=["output"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                external_data=False,
                verbose=False,
            )
    except Exception as error:
        raise LoweringError(f"the model does not export to ONNX: {_reason(error)}") from error
    if program is None:
        raise LoweringError("the model does not export to ONNX: the exporter gave nothing back")
    proto = program.model_proto
    if len(proto.graph.output) != 1:
        raise LoweringError(f"the model has {len(proto.graph.output)} outputs; models with one output are supported")
    if not all(_free_batch(value) for value in (*proto.graph.input, *proto.graph.output)):
        raise LoweringError(
            "the model exports with a fixed number of samples only: somewhere it uses the batch size as a number, in a "
            "loop or a reshape; compute over dimension 0 instead"
        )
    nodes = _layer_nodes(proto.graph)
    _strip(proto)
    return Exported(proto, nodes)


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
        scopes = [s for entry in node.metadata_props if entry.key == _SCOPES for s in _parse(entry.value)]
        named = [node.input[1].removesuffix(".weight")] if node.input[1].endswith(".weight") else []
        for path in dict.fromkeys([*scopes, *named]):
            found.setdefault(path, []).append(node.name)
    return found


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


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # The exporter logs, warns and prints about things that a user of paretrim cannot change.
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)


def _reason(error: Exception) -> str:
    """Return the innermost cause in one line, since the exporter wraps it in pages of advice."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = [line for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[0] if lines else ''}"
