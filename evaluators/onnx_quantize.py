"""From float weights to what ONNX Runtime runs as integers.

Layers of 4 or 8 bits become 8-bit integer nodes (quantize/dequantize pairs; weights signed per channel, activations
unsigned or signed: which is faster depends on the runtime and the processor). Weights of fewer than 8 bits keep their
coarse grid: their codes are stored one to a byte, run at the full speed of 8 bits, and shrink to their entropy when the
file is packed. Layers of 16 bits are stored as half floats and widened when the model is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from paretrim.errors import LoweringError
from paretrim.evaluators.lowering import quiet
from paretrim.evaluators.onnx_export import Exported
from paretrim.evaluators.splits import Split
from paretrim.evaluators.storage import Storage
from paretrim.evaluators.target import Activations, Array, LoweringRequest, as_batch

_CALIBRATION_BATCH = 64
_ACTIVATIONS = {"unsigned": QuantType.QUInt8, "signed": QuantType.QInt8}


def quantize(exported: Exported, request: LoweringRequest, activations: Activations, scratch: Path) -> bytes:
    """Return the bytes of the model file with each layer stored as requested.

    Args:
        exported: The model with float weights; changed in place.
        request: Bits per layer, and the samples to calibrate on.
        activations: Sign of the 8-bit activations.
        scratch: A folder for the quantizer's files.

    Raises:
        LoweringError: The quantizer cannot take the model, or calibration data is missing.
    """
    stored = _known(exported, request)
    chosen = {node: each.bits for name, each in stored.items() for node in exported.layer_nodes[name]}
    halves = {name for name, bits in chosen.items() if bits == 16}
    integers = {name: bits for name, bits in chosen.items() if bits <= 8}
    proto = exported.proto
    if integers:
        proto = _to_integers(proto, integers, request, activations, scratch)
    if halves:
        _to_halves(proto, halves)
    serialized: bytes = proto.SerializeToString(deterministic=True)
    return serialized


def _known(exported: Exported, request: LoweringRequest) -> Mapping[str, Storage]:
    missing = [name for name in request.layers if name not in exported.layer_nodes]
    if missing:
        raise LoweringError(
            f"the exported graph has no node for the layers {', '.join(missing)}; leave them at 'none' bits"
        )
    return request.layers


def _to_integers(
    proto: Any, bits: Mapping[str, int], request: LoweringRequest, activations: Activations, scratch: Path
) -> Any:
    if request.calibration is None:
        raise LoweringError("layers of 8 bits or fewer need calibration samples")
    _own_biases(proto.graph)
    source, result = scratch / "float.onnx", scratch / "int8.onnx"
    onnx.save(proto, str(source))
    weights = {item.name: item for item in proto.graph.initializer}
    layers = {node.name: node for node in proto.graph.node if node.name in bits}
    floats = [n.name for n in proto.graph.node if n.op_type in ("Conv", "Gemm", "MatMul") and n.name not in bits]
    grids = {node.input[1]: _grid(node, weights, bits[node.name]) for node in layers.values()}
    try:
        with quiet():
            quantize_static(
                str(source),
                str(result),
                _Samples(request.calibration, proto.graph.input[0].name),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=_ACTIVATIONS[activations],
                weight_type=QuantType.QInt8,
                nodes_to_exclude=floats,
                extra_options={"TensorQuantOverrides": grids},
            )
    except Exception as error:
        raise LoweringError(f"ONNX Runtime cannot quantize the model: {type(error).__name__}: {error}") from error
    return onnx.load(str(result))


def _own_biases(graph: Any) -> None:
    """Give each node a bias of its own: of one that is shared, the quantizer would scale it for one node only."""
    held = {item.name: item for item in graph.initializer}
    taken: set[str] = set()
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm") or len(node.input) < 3 or node.input[2] not in held:
            continue
        if node.input[2] in taken:
            twin = numpy_helper.from_array(numpy_helper.to_array(held[node.input[2]]), f"{node.input[2]}_{node.name}")
            graph.initializer.append(twin)
            node.input[2] = twin.name
        taken.add(node.input[2])


def _grid(node: Any, weights: Mapping[str, Any], bits: int) -> list[dict[str, Any]]:
    """Return the scale of each output channel of a layer's weights, as overrides for the quantizer."""
    if node.input[1] not in weights:
        raise LoweringError(f"the weights of {node.name} are computed in the graph; leave that layer at 'none' bits")
    weight = numpy_helper.to_array(weights[node.input[1]])
    axis = _channel_axis(node)
    peak = np.abs(np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)).max(axis=1)
    scales = np.maximum(peak, 1e-12) / (2 ** (bits - 1) - 1)
    zero = np.array(0, dtype=np.int8)
    return [
        {"quant_type": QuantType.QInt8, "axis": axis, "scale": np.array(scale, dtype=np.float32), "zero_point": zero}
        for scale in scales
    ]


def _channel_axis(node: Any) -> int:
    if node.op_type == "Conv":
        return 0
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return 0 if node.op_type == "Gemm" and transposed else 1


def _to_halves(proto: Any, names: set[str]) -> None:
    graph = proto.graph
    wanted = {node.input[1] for node in graph.node if node.name in names}
    casts = []
    for item in graph.initializer:
        if item.name in wanted:
            # Beyond the range of half floats a weight would become infinite.
            half = np.clip(numpy_helper.to_array(item), -65504, 65504).astype(np.float16)
            name = item.name
            item.CopyFrom(numpy_helper.from_array(half, f"{name}_half"))
            casts.append(helper.make_node("Cast", [f"{name}_half"], [name], f"{name}_widen", to=TensorProto.FLOAT))
    for cast in reversed(casts):
        graph.node.insert(0, cast)


class _Samples(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, split: Split, name: str) -> None:
        self._batches: Iterator[dict[str, Array]] = (
            {name: as_batch(batch.inputs)} for batch in split.batches(_CALIBRATION_BATCH)
        )

    def get_next(self) -> dict[str, Array] | None:
        return next(self._batches, None)
