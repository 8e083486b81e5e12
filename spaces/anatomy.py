"""The anatomy of a model: which layers it has, and which of them must be cut together."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from paretrim.errors import UserCodeError

_LAYER_TYPES: tuple[type[nn.Module], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


@dataclass(frozen=True)
class Layer:
    """A layer with weights.

    Attributes:
        name: Its module path in the model.
        weights: Number of weights, biases left out.
        first: Whether it is the first that the input meets.
        last: Whether it gives the model's output.
    """

    name: str
    weights: int
    first: bool
    last: bool


@dataclass(frozen=True)
class Group:
    """Layers whose output channels are coupled, through additions for one, and so are cut together.

    Attributes:
        name: The name of its first layer in order of execution.
        layers: The layers whose output channels belong to it.
        channels: How many output channels they have.
    """

    name: str
    layers: tuple[str, ...]
    channels: int


@dataclass(frozen=True)
class Anatomy:
    """What the techniques need to know of a model.

    Attributes:
        layers: In order of execution.
        groups: Groups of layers that structured pruning can cut.
        left_out: (layer, reason) of what pruning cannot cut.
        input_shape: Shape of one sample, without the batch dimension.
        input_dtype: Type of the input tensor.
    """

    layers: tuple[Layer, ...]
    groups: tuple[Group, ...]
    left_out: tuple[tuple[str, str], ...]
    input_shape: tuple[int, ...]
    input_dtype: torch.dtype

    def example(self, batch: int = 2) -> torch.Tensor:
        """Return an input of zeros, shape ``(batch, *input_shape)``."""
        return torch.zeros((batch, *self.input_shape), dtype=self.input_dtype)

    def layer_groups(self) -> tuple[tuple[str, tuple[Layer, ...]], ...]:
        """Return (name, layers) of groups that share a bit-width; the first and the last layer stand alone."""
        by_name = {layer.name: layer for layer in self.layers}
        ends = [layer for layer in self.layers if layer.first or layer.last]
        grouped: dict[str, tuple[Layer, ...]] = {layer.name: (layer,) for layer in ends}
        seen = {layer.name for layer in ends}
        for group in self.groups:
            members = tuple(by_name[name] for name in group.layers if name not in seen)
            if members:
                grouped[members[0].name] = members
                seen |= {layer.name for layer in members}
        grouped |= {layer.name: (layer,) for layer in self.layers if layer.name not in seen}
        order = {layer.name: position for position, layer in enumerate(self.layers)}
        return tuple(sorted(grouped.items(), key=lambda item: order[item[0]]))


def dissect(model: nn.Module, example: torch.Tensor) -> Anatomy:
    """Find the layers of a model and the groups that must be cut together.

    The dependency graph is that of Torch-Pruning (Fang et al., "DepGraph: Towards Any Structural Pruning", 2023).

    Args:
        model: In evaluation mode; it is not changed.
        example: A batch of inputs, shape ``(N, ...)``.

    Raises:
        UserCodeError: The model has no layer that could be compressed, or does not run on the example.
    """
    names = _execution_order(model, example)
    if not names:
        raise UserCodeError(
            "the model has no convolution or linear layer, so there is nothing to compress; give a model that has some"
        )
    modules = dict(model.named_modules())
    layers = tuple(
        Layer(name, modules[name].weight.numel(), first=i == 0, last=i == len(names) - 1)
        for i, name in enumerate(names)
    )
    groups, left_out = _groups(model, example, names)
    return Anatomy(layers, groups, left_out, tuple(example.shape[1:]), example.dtype)


def dependency_graph(model: nn.Module, example: torch.Tensor) -> Any:
    """Return Torch-Pruning's dependency graph of a model."""
    import torch_pruning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch_pruning.DependencyGraph().build_dependency(model, example_inputs=example, verbose=False)


def _execution_order(model: nn.Module, example: torch.Tensor) -> list[str]:
    order: list[str] = []
    names = {module: name for name, module in model.named_modules() if isinstance(module, _LAYER_TYPES)}

    def note(module: nn.Module, *_: object) -> None:
        if names[module] not in order:
            order.append(names[module])

    handles = [module.register_forward_hook(note) for module in names]
    try:
        with torch.no_grad():
            model(example)
    except Exception as error:
        raise UserCodeError(
            f"the model does not run on an input of shape {tuple(example.shape)}: {type(error).__name__}: {error}; "
            "check that the data fits the model"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return order


def _groups(
    model: nn.Module, example: torch.Tensor, names: list[str]
) -> tuple[tuple[Group, ...], tuple[tuple[str, str], ...]]:
    twin = copy.deepcopy(model).requires_grad_(True)
    modules = dict(twin.named_modules())
    path = {module: name for name, module in modules.items()}
    left_out = [(names[-1], "gives the model's output")]
    try:
        graph = dependency_graph(twin, example)
        found = list(graph.get_all_groups(ignored_layers=[modules[names[-1]]], root_module_types=list(_LAYER_TYPES)))
    except Exception as error:  # noqa: BLE001 - a model that the tracer cannot follow is still worth quantizing
        reason = f"its structure could not be traced ({type(error).__name__}: {error})"
        return (), tuple((name, reason) for name in names)
    groups = []
    for group in found:
        members = sorted({path[m] for m in _cut_layers(graph, group)} & set(names), key=names.index)
        if not members or names[-1] in members:
            continue
        reason = _obstacle([modules[name] for name in members])
        if reason:
            left_out += [(name, reason) for name in members]
        else:
            groups.append(Group(members[0], tuple(members), graph.get_out_channels(modules[members[0]])))
    groups.sort(key=lambda group: names.index(group.name))
    return tuple(groups), tuple(left_out)


def _cut_layers(graph: Any, group: Any) -> Iterator[nn.Module]:
    for dependency, _ in group:
        if graph.is_out_channel_pruning_fn(dependency.handler) and isinstance(dependency.target.module, _LAYER_TYPES):
            yield dependency.target.module


def _obstacle(members: list[nn.Module]) -> str:
    grouped = [m for m in members if getattr(m, "groups", 1) not in (1, getattr(m, "in_channels", 1))]
    return "has grouped channels, which are cut only whole groups at a time" if grouped else ""
