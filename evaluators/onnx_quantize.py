"""From float weights to what ONNX runtimes run as integers.

Layers of 2 to 8 bits become 8-bit integer nodes (quantize/dequantize pairs; weights signed, activations unsigned or
signed: which is faster depends on the runtime and the processor). Weights of fewer than 8 bits keep their grid: their
codes are stored one to a byte, run at the full speed of 8 bits, and shrink to their entropy when the file is packed.
Layers whose weights alone are narrow compute with floats, and so do embeddings and recurrent layers. Layers of 16 bits are
stored as half floats and widened when the model is loaded.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

from paretrim.errors import LoweringError
from paretrim.evaluators.abilities import Abilities
from paretrim.evaluators.lowering import quiet
from paretrim.evaluators.onnx_calibration import METHODS, OPTIONS, Samples, fine_histograms
from paretrim.evaluators.onnx_export import Exported
from paretrim.evaluators.onnx_narrow import drop_unused, halves, has_twin, narrow, share_codes
from paretrim.evaluators.onnx_tables import keep_packed
from paretrim.evaluators.onnx_weights import Weights, on_grid, weights_of
from paretrim.evaluators.onnx_widen import widen
from paretrim.evaluators.storage import HALF, Storage
from paretrim.evaluators.target import Activations, Array, LoweringRequest

if TYPE_CHECKING:
    import torch

_PRODUCTS = ("Conv", "Gemm", "MatMul")
_FLOATS = ("ConvTranspose", "InstanceNormalization", "GroupNormalization", "LayerNormalization", "BatchNormalization")
_ACTIVATIONS = {"unsigned": QuantType.QUInt8, "signed": QuantType.QInt8}


def quantize(
    exported: Exported,
    model: torch.nn.Module,
    request: LoweringRequest,
    activations: Activations,
    abilities: Abilities,
    scratch: Path,
) -> bytes:
    """Return the bytes of the model file with all weights stored as requested.

    Args:
        exported: The model with float weights, those of no layer as initializers of their own; changed in place.
        model: The model that was exported, from which the steps of the weights are known.
        request: How weights are stored, and the samples to calibrate on.
        activations: Sign of the 8-bit activations, unless the request has one.
        abilities: Which weights stay narrow in memory while the runtime computes matrix products with floats, and how large
            the codes of those may be that it computes with as integers.
        scratch: A folder for the quantizer's files.

    Raises:
        LoweringError: The quantizer cannot take the model, or calibration data is missing.
    """
    _check(exported, request)
    if request.activation.sign != "target":
        activations = request.activation.sign
    layers = _layers(exported, model, request)
    grids = {name: each for name, each in layers.items() if each.bits <= 8}
    _own_weights(exported, grids)
    weights = list(weights_of(exported, grids, _trained(model, grids), abilities.peak))
    half_nodes = {node for name in layers.keys() - grids for node in exported.layer_nodes[name]}
    proto = exported.proto
    integers = [each for each in weights if each.stored.integers]
    if integers:
        proto = _to_integers(exported, integers, request, activations, scratch)
    widen(proto, [each for each in weights if not each.stored.integers], abilities.weight_only)
    _to_halves(proto.graph, half_nodes)
    others = {name: request.layers[path] for path, name in exported.weights.items()}
    _narrow_others(proto, others, abilities.weight_only)
    drop_unused(proto.graph)
    serialized: bytes = proto.SerializeToString(deterministic=True)
    return serialized


def _check(exported: Exported, request: LoweringRequest) -> None:
    missing = [name for name in request.layers if name not in exported.layer_nodes and name not in exported.weights]
    if missing:
        raise LoweringError(
            f"the exported graph has no node for the layers {', '.join(missing)}; leave them at 'none' bits"
        )
    odd = {name: each.bits for name, each in request.layers.items() if each.bits != HALF and not 2 <= each.bits <= 8}
    if odd:
        raise LoweringError(f"layers were given bits that cannot be stored: {odd}; allowed: 2 to 8, and 16")


def _layers(exported: Exported, model: torch.nn.Module, request: LoweringRequest) -> dict[str, Storage]:
    """Return how each layer is stored, but for those that compute with floats on the weights of an embedding.

    These are stored as the embedding's are, once for both.
    """
    apart = {id(model.get_parameter(path)) for path in exported.weights}
    return {
        name: each
        for name, each in request.layers.items()
        if name not in exported.weights
        and ((each.integers and each.bits != HALF) or id(model.get_parameter(f"{name}.weight")) not in apart)
    }


def _own_weights(exported: Exported, layers: Collection[str]) -> None:
    """Give layers weights of their own that they have in common with an embedding, the way round that they read them.

    The quantizer would hand its integers to all who read them.
    """
    graph = exported.proto.graph
    nodes = {node.name: node for node in graph.node}
    held = {item.name: item for item in graph.initializer}
    turned = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "Transpose" and n.input[0] in held}
    for node in (nodes[each] for name in layers for each in exported.layer_nodes[name]):
        source = turned.get(node.input[1], node.input[1])
        if source == node.input[1] and source not in exported.weights.values():
            continue
        name = f"{source}_of_{node.name}"
        floats = numpy_helper.to_array(held[source])
        own = floats if source == node.input[1] else np.ascontiguousarray(floats.T)
        graph.initializer.append(numpy_helper.from_array(own, name))
        node.input[1] = name


def _trained(model: torch.nn.Module, layers: Mapping[str, Storage]) -> dict[str, Array]:
    return {name: model.get_parameter(f"{name}.weight").detach().cpu().float().numpy() for name in layers}


def _to_integers(
    exported: Exported, weights: Sequence[Weights], request: LoweringRequest, activations: Activations, scratch: Path
) -> Any:
    if request.calibration is None:
        raise LoweringError("layers of 8 bits or fewer need calibration samples")
    proto = exported.proto
    _own_biases(proto.graph)
    source, result = scratch / "float.onnx", scratch / "int8.onnx"
    onnx.save(proto, str(source))
    names, calibrator = {each.node.name for each in weights}, request.activation.calibrator
    floats = [n.name for n in proto.graph.node if n.op_type in _PRODUCTS and n.name not in names]
    # The quantizer takes a table that is looked up, and gates that are put together, for activations.
    floats += sorted(exported.floats - names)
    # It would take the scales of normalizations for weights, and put weights on grids that no technique has asked for.
    floats += [node.name for node in proto.graph.node if node.op_type in _FLOATS]
    attends = _attends(proto.graph)
    try:
        with quiet(), fine_histograms(calibrator):
            quantize_static(
                str(source),
                str(result),
                Samples(request.calibration, [each.name for each in proto.graph.input], calibrator),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=_ACTIVATIONS[activations],
                weight_type=QuantType.QInt8,
                nodes_to_exclude=floats,
                op_types_to_quantize=list(_PRODUCTS) if attends else None,
                calibrate_method=METHODS[calibrator],
                extra_options={
                    **OPTIONS,
                    "TensorQuantOverrides": {w.node.input[1]: _overrides(w) for w in weights},
                    "OpTypesToExcludeOutputQuantization": list(_PRODUCTS) if attends else [],
                },
            )
    except Exception as error:
        raise LoweringError(f"ONNX Runtime cannot quantize the model: {type(error).__name__}: {error}") from error
    return onnx.load(str(result))


def _attends(graph: Any) -> bool:
    """Tell whether a graph multiplies activations with each other, as attention does.

    There only what layers take is put into 8 bits, and all that is between them stays float: masks, scores, what is added
    up. With one range for each of these, a decoder's perplexity went from 4.5 to 23.
    """
    fixed = {item.name for item in graph.initializer}
    for node in graph.node:  # in order of execution
        if fixed.issuperset(node.input):
            fixed.update(node.output)
    return any(node.op_type == "MatMul" and fixed.isdisjoint(node.input) for node in graph.node)


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


def _overrides(weights: Weights) -> list[dict[str, Any]]:
    """Return the scales of a node's weights as the quantizer takes them: one entry a channel, or one for all."""
    fixed = {"quant_type": QuantType.QInt8, "zero_point": np.array(0, dtype=np.int8)}
    if weights.scales.ndim == 0:
        return [{**fixed, "scale": weights.scales}]
    return [{**fixed, "axis": weights.axis, "scale": np.array(scale, np.float32)} for scale in weights.scales]


def _to_halves(graph: Any, names: Collection[str]) -> None:
    wanted = {node.input[1] for node in graph.node if node.name in names}
    for item in [each for each in graph.initializer if each.name in wanted]:
        narrow(graph, item.name, halves(numpy_helper.to_array(item)))


def _narrow_others(proto: Any, stored: Mapping[str, Storage], held: tuple[int, ...]) -> None:
    """Store the weights of embeddings and recurrent layers, by their initializers."""
    graph = proto.graph
    for name, each in stored.items():
        floats = numpy_helper.to_array(next(item for item in graph.initializer if item.name == name))
        if each.bits == HALF:
            narrow(graph, name, halves(floats))
            continue
        grid = on_grid(floats, each)
        if has_twin(graph, grid.codes) or not keep_packed(proto, name, grid, held):
            narrow(graph, name, grid.narrow)
            share_codes(graph, f"{name}_codes")
