"""Initializers of an ONNX graph that are stored narrow, and what widens them.

Whole matrices are widened when a runtime loads the model: it computes once what depends on constants alone. Rows that are
looked up, as an embedding does, are looked up as they are stored and widened after that, so that neither memory nor time is
spent on the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from paretrim.evaluators.onnx_marks import graphs_in
from paretrim.evaluators.storage import BLOCK
from paretrim.evaluators.target import Array

_LEAST_HALF = 2.0**-24


@dataclass(frozen=True)
class Narrow:
    """What stands for a float initializer.

    Attributes:
        kind: ``codes`` or ``half``, which ends its name in the file.
        values: In the shape of the floats.
        scales: What the values are multiplied by once they are floats, as it broadcasts to them; None for half floats.
        blocked: The dimension of a matrix along which `BLOCK` values after one another have a scale in common, and `scales` one
            element for them; None where scales broadcast.
    """

    kind: str
    values: Array
    scales: Array | None = None
    blocked: int | None = None


def halves(floats: Array) -> Narrow:
    """Return half floats. Beyond their range a weight would become infinite."""
    return Narrow("half", np.clip(floats, -65504, 65504).astype(np.float16))


def narrow(graph: Any, name: str, form: Narrow) -> None:
    """Put a narrow form in an initializer's place, and behind it what widens it.

    A DequantizeLinear node in the place of a product would be kept, by runtimes with integer kernels, for these.
    """
    for node in [each for each in graph.node if looks_up(each, name)]:
        replace(graph, node, list(_looked_up(node, name, form)))
    item = next(each for each in graph.initializer if each.name == name)
    item.CopyFrom(numpy_helper.from_array(form.values, f"{name}_{form.kind}"))
    if form.scales is not None:
        scales = form.scales if form.blocked is None else stored_scales(form.scales)
        graph.initializer.append(numpy_helper.from_array(scales, f"{name}_scales"))
    if form.blocked is not None:
        places = np.arange(form.values.shape[form.blocked], dtype=np.int64) // BLOCK
        graph.initializer.append(numpy_helper.from_array(places, f"{name}_places"))
    if name in _used(graph):
        for position, node in enumerate(_widened(name, name, form, name, f"{name}_places")):
            graph.node.insert(position, node)


def drop_unused(graph: Any) -> None:
    """Take out what nothing reads: nodes, then initializers."""
    used = _used(graph)
    while idle := [node for node in graph.node if not used.intersection(node.output)]:
        for node in idle:
            graph.node.remove(node)
        used = _used(graph)
    for item in [each for each in graph.initializer if each.name not in used]:
        graph.initializer.remove(item)


def has_twin(graph: Any, codes: Array) -> bool:
    """Tell whether an integer layer has the same codes, this way round or the other."""
    theirs = [numpy_helper.to_array(each) for each in graph.initializer if each.data_type == TensorProto.INT8]
    return any(np.array_equal(each, codes) or np.array_equal(each, codes.T) for each in theirs)


def share_codes(graph: Any, name: str) -> None:
    """Let integer layers read the codes of an initializer that was put in a narrow form, where theirs are the same.

    A layer that reads them the other way round does so through a transposition, which the runtime does once.
    """
    own = next(each for each in graph.initializer if each.name == name)
    codes = numpy_helper.to_array(own)
    for item in [each for each in graph.initializer if each.data_type == TensorProto.INT8 and each.name != name]:
        theirs = numpy_helper.to_array(item)
        if np.array_equal(theirs, codes):
            made = helper.make_node("Identity", [name], [item.name], f"{item.name}_shared")
        elif np.array_equal(theirs, codes.T):
            made = helper.make_node("Transpose", [name], [item.name], f"{item.name}_shared", perm=[1, 0])
        else:
            continue
        graph.initializer.remove(item)
        graph.node.insert(0, made)


def _used(graph: Any) -> set[str]:
    inner = {name for each in graphs_in(graph) for node in each.node for name in node.input}
    return inner | {value.name for value in graph.output}


def looks_up(node: Any, name: str) -> bool:
    """Tell whether a node looks up rows of an initializer."""
    axis = next((each.i for each in node.attribute if each.name == "axis"), 0)
    return node.op_type == "Gather" and node.input[0] == name and axis == 0


def _looked_up(node: Any, name: str, form: Narrow) -> Iterator[Any]:
    """Yield what gives the rows that a node looks up."""
    base, rows = node.name, node.input[1]
    yield helper.make_node("Gather", [f"{name}_{form.kind}", rows], [f"{base}_{form.kind}"], base, axis=0)
    own_scales = form.scales is not None and form.scales.ndim > 0 and len(form.scales) > 1
    if own_scales:
        yield helper.make_node("Gather", [f"{name}_scales", rows], [f"{base}_scales"], f"{base}_look_up", axis=0)
    yield from _widened(base, node.output[0], form, base if own_scales else name, f"{name}_places")


def _widened(base: str, result: str, form: Narrow, scaled_by: str, places: str) -> Iterator[Any]:
    """Yield what makes floats of narrow values, which have the scales of that name, and of blocks the places of these."""
    if form.scales is None:
        yield helper.make_node("Cast", [f"{base}_{form.kind}"], [result], f"{base}_widen", to=TensorProto.FLOAT)
        return
    floats = f"{base}_float"
    yield helper.make_node("Cast", [f"{base}_{form.kind}"], [floats], f"{base}_cast", to=TensorProto.FLOAT)
    scales = f"{scaled_by}_scales"
    if form.blocked is not None:
        # Of rows that were looked up, the last dimension is that of the blocks, whatever shape they were asked for in.
        axis = form.blocked if base == result else -1
        yield helper.make_node("Gather", [scales, places], [f"{base}_spread"], f"{base}_spread", axis=axis)
        scales = f"{base}_spread"
    yield helper.make_node("Mul", [floats, scales], [result], f"{base}_widen")


def stored_scales(scales: Array) -> Array:
    """Return the scales of blocks rounded to half floats, which pack to half of the bytes: there is one for each `BLOCK` codes.

    What they lose is far less than a code does. They are stored as 32-bit floats, since ONNX Runtime's operators answer wrongly
    where scales are computed in the graph (1.32, without graph optimizations).
    """
    return np.clip(scales, _LEAST_HALF, 65504).astype(np.float16).astype(np.float32)


def replace(graph: Any, node: Any, made: list[Any]) -> None:
    """Put nodes in the place of one."""
    place = next(position for position, each in enumerate(graph.node) if each.name == node.name)
    graph.node.remove(node)
    for position, each in enumerate(made):
        graph.node.insert(place + position, each)
