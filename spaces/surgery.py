"""Cutting channels out of a torch model, with all that depends on them; Torch-Pruning's dependency graph does the work."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


def dependency_graph(model: nn.Module, example: torch.Tensor) -> Any:
    """Return Torch-Pruning's dependency graph of a model, frozen parameters included."""
    import torch_pruning

    # It follows gradients, so that what is frozen would be invisible to it.
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch_pruning.DependencyGraph().build_dependency(model, example_inputs=example, verbose=False)
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def coupled(graph: Any, layer: nn.Module, channels: Sequence[int]) -> Any:
    """Return the group of all that must go with some output channels of a layer."""
    return graph.get_pruning_group(layer, _cutter(layer), list(channels))


def cut(graph: Any, layer: nn.Module, channels: Sequence[int]) -> None:
    """Cut output channels of a layer, in place, with all that depends on them."""
    coupled(graph, layer, channels).prune()


def _cutter(layer: nn.Module) -> Any:
    import torch_pruning

    if isinstance(layer, nn.Linear):
        return torch_pruning.prune_linear_out_channels
    if getattr(layer, "groups", 1) > 1:
        return torch_pruning.prune_depthwise_conv_out_channels
    return torch_pruning.prune_conv_out_channels
