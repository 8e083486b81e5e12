"""Marks on weights, by which they are found again in an exported graph, whatever the exporter makes of them.

The weights of a recurrent layer reach its node in another order of gates, several of them put together, and an exporter
computes as much of that as it likes. A node that it does not know stands still: what is behind it is the weight itself.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from paretrim.evaluators.parametrized import owner, put_on

_DOMAIN, _PATH = "paretrim", "path"


class Mark(nn.Module):
    """Passes a weight on, through a node of the graph that names it."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return a tensor of the weight's shape and type. Outside of an export its values mean nothing."""
        return torch.onnx.ops.symbolic(
            f"{_DOMAIN}::Weight", (weight,), {_PATH: self.path}, dtype=weight.dtype, shape=weight.shape, version=1
        )


def marked(model: nn.Module, paths: Collection[str]) -> nn.Module:
    """Return a copy of a model with marks on some weights; the model itself where there are none."""
    if not paths:
        return model
    twin = copy.deepcopy(model).requires_grad_(False)
    for path in paths:
        module, name = owner(twin, path)
        put_on(module, name, Mark(path))
    return twin


def unmark(proto: Any) -> dict[str, str]:
    """Take the marks out of an exported model, and return the name of the initializer behind each, by the weight's path."""
    graph = proto.graph
    marks = [node for node in graph.node if node.domain == _DOMAIN]
    held = {item.name: item for item in graph.initializer}
    found: dict[str, str] = {}
    names: dict[str, str] = {}
    for node in marks:
        path, source = next(each.s.decode() for each in node.attribute if each.name == _PATH), node.input[0]
        # Weights that several modules have in common are one initializer, which has one name.
        found[path] = names.setdefault(source, path if ".parametrizations." in source else source)
    for source, name in names.items():
        held[source].name = name
    renamed = names | {node.output[0]: names[node.input[0]] for node in marks}
    for node in marks:
        graph.node.remove(node)
    _rename(graph, renamed)
    for value in [each for each in graph.value_info if each.name in renamed]:
        graph.value_info.remove(value)
    for entry in [each for each in proto.opset_import if each.domain == _DOMAIN]:
        proto.opset_import.remove(entry)
    return found


def graphs_in(graph: Any) -> Iterator[Any]:
    """Yield a graph, and those within its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    yield from graphs_in(inner)


def _rename(graph: Any, names: Mapping[str, str]) -> None:
    for each in graphs_in(graph):
        for node in each.node:
            for position, name in enumerate(node.input):
                if name in names:
                    node.input[position] = names[name]
