"""Cutting channels out of a torch model, with all that depends on them; Torch-Pruning's dependency graph does the work."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from paretrim.evaluators.inputs import Inputs
from paretrim.spaces.gates import GatesTakenApart
from paretrim.spaces.recurrent import opaque, pruners


def dependency_graph(model: nn.Module, example: Inputs) -> Any:
    """Return Torch-Pruning's dependency graph of a model, frozen parameters included."""
    import torch_pruning

    # It follows gradients, so that what is frozen would be invisible to it.
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        with warnings.catch_warnings(), opaque(model), GatesTakenApart():
            warnings.simplefilter("ignore")
            # In a tuple or a mapping: of a bare tensor it would first try each sample as an argument of its own.
            given = example.arguments()
            return torch_pruning.DependencyGraph().build_dependency(
                model, example_inputs=given, customized_pruners=pruners(model), verbose=False
            )
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def coupled(graph: Any, layer: nn.Module, channels: Sequence[int]) -> Any:
    """Return the group of all that must go with some output channels of a layer."""
    return graph.get_pruning_group(layer, _cutter(layer), list(channels))


def choices(graph: Any, layer: nn.Module) -> int:
    """Return how many output channels of a layer can be chosen: all, or half where its halves are multiplied.

    Of a layer whose outputs are split into equal parts that come together again, as those of a gated linear unit do, the
    channels of the first part are chosen, and those of the others go with them.
    """
    import torch_pruning

    channels = int(graph.get_out_channels(layer))
    whole = coupled(graph, layer, range(channels))
    if not any(item.dep.target.type == torch_pruning.ops.OPTYPE.SPLIT for item in whole):
        return channels
    found = channels // len(coupled(graph, layer, [0])[0].idxs)
    reached = coupled(graph, layer, range(found))[0].idxs
    return found if sorted(reached) == list(range(channels)) else channels


def cut(graph: Any, layer: nn.Module, channels: Sequence[int]) -> None:
    """Cut output channels of a layer, in place, with all that depends on them."""
    coupled(graph, layer, channels).prune()


def produced(graph: Any, group: Any) -> Iterator[Any]:
    """Return the items of a group whose output channels are cut."""
    return (item for item in group if graph.is_out_channel_pruning_fn(item.dep.handler))


def read(graph: Any, group: Any) -> Iterator[Any]:
    """Return the items of a group whose input channels are cut, and not their output channels with them."""
    return (item for item in group if not graph.is_out_channel_pruning_fn(item.dep.handler))


def ties(model: nn.Module) -> dict[str, str]:
    """Return, for each module path that shares a parameter with another, the path of another."""
    holders: dict[int, list[str]] = {}
    for path, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            holders.setdefault(id(parameter), []).append(path)
    shared = [paths for paths in holders.values() if len(paths) > 1]
    return {path: next(each for each in paths if each != path) for paths in shared for path in paths}


def _cutter(layer: nn.Module) -> Any:
    import torch_pruning

    if isinstance(layer, nn.Linear):
        return torch_pruning.prune_linear_out_channels
    if getattr(layer, "groups", 1) > 1:
        return torch_pruning.prune_depthwise_conv_out_channels
    return torch_pruning.prune_conv_out_channels
