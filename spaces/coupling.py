"""Which channels of a model are coupled, and which of them can really be cut."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from paretrim.evaluators.inputs import Inputs
from paretrim.spaces.attention import Heads, close, find_heads, probe
from paretrim.spaces.recurrent import KEPT, HiddenUnitsError
from paretrim.spaces.rewriting import rewrite
from paretrim.spaces.surgery import choices, coupled, dependency_graph, read, ties

LAYER_TYPES: tuple[type[nn.Module], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


@dataclass(frozen=True)
class Group:
    """Layers whose output channels are coupled, through additions for one, and so are cut together.

    Attributes:
        name: The name of its first layer in order of execution.
        layers: The layers whose output channels belong to it.
        channels: How many output channels its first layer has; half of them where that layer's halves gate one another.
        multiple: Of how many channels parts can go: group normalization wants as many in each of its groups.
    """

    name: str
    layers: tuple[str, ...]
    channels: int
    multiple: int = 1

    @property
    def half(self) -> int:
        """About half of its channels, as many as can go; all where fewer cannot."""
        return max(1, self.channels // 2 // self.multiple) * self.multiple


@dataclass(frozen=True)
class Cuttable:
    """What pruning can cut from a model.

    Attributes:
        groups: Groups of layers.
        left_out: (layer, reason) of the layers that stay as they are.
        heads: Attentions whose heads can be cut.
        whole_attentions: (attention, reason) of those that keep them all.
    """

    groups: tuple[Group, ...]
    left_out: tuple[tuple[str, str], ...]
    heads: tuple[Heads, ...] = ()
    whole_attentions: tuple[tuple[str, str], ...] = ()


def find_cuttable(model: nn.Module, example: Inputs, names: list[str]) -> Cuttable:
    """Find what can be cut, by cutting it.

    Args:
        model: In evaluation mode; it is not changed.
        example: Some samples.
        names: The paths of its layers, in order of execution.
    """
    left_out = {names[-1]: "gives the model's output"}
    twin = copy.deepcopy(model)
    try:
        rewrite(twin, example)
        heads, whole, others = find_heads(twin, example)
        found = _coupled_layers(twin, example, names)
        with torch.no_grad():
            before = probe(example).through(twin)
    except Exception as error:  # noqa: BLE001 - a model that the tracer cannot follow is still worth quantizing
        reason = f"its structure could not be traced ({type(error).__name__}: {first_line(error)})"
        return Cuttable((), tuple((name, reason) for name in names))
    attending = {layer for each in heads for layer in each.sources}
    left_out |= {layer: f"gives heads: {whole[path]}" for path, layers in others for layer in layers if layer in names}
    groups = []
    for group in found:
        if attending & set(group.layers):
            continue
        reason = _obstacle(twin, example, group, before) if not left_out.keys() & set(group.layers) else ""
        if reason:
            left_out |= dict.fromkeys(group.layers, reason)
        elif not left_out.keys() & set(group.layers):
            groups.append(group)
    held = attending | {name for group in groups for name in group.layers}
    left_out |= {
        n: "its channels are those of the model's output" for n in names if n not in held and n not in left_out
    }
    return Cuttable(tuple(groups), tuple(left_out.items()), heads, tuple(whole.items()))


def _coupled_layers(model: nn.Module, example: Inputs, names: list[str]) -> list[Group]:
    twin = copy.deepcopy(model).requires_grad_(True)
    modules = dict(twin.named_modules())
    path = {module: name for name, module in modules.items()}
    graph = dependency_graph(twin, example)
    groups = []
    for group in graph.get_all_groups(ignored_layers=[modules[names[-1]]], root_module_types=list(LAYER_TYPES)):
        members = sorted({path[m] for m in _cut_layers(graph, group)} & set(names), key=names.index)
        if members and names[-1] not in members:
            channels = choices(graph, modules[members[0]])
            groups.append(Group(members[0], tuple(members), channels, _multiple(group)))
    return sorted(groups, key=lambda group: names.index(group.name))


def _multiple(group: Any) -> int:
    """Return of how many channels parts of a group can go."""
    norms = (item.dep.target.module for item in group)
    return math.lcm(*(norm.num_groups for norm in norms if isinstance(norm, nn.GroupNorm)))


def _cut_layers(graph: Any, group: Any) -> Iterator[nn.Module]:
    for dependency, _ in group:
        if graph.is_out_channel_pruning_fn(dependency.handler) and isinstance(dependency.target.module, LAYER_TYPES):
            yield dependency.target.module


def _obstacle(model: nn.Module, example: Inputs, group: Group, before: torch.Tensor) -> str:
    """Return why a group cannot be cut, or nothing: either half of its channels is really cut, and the model run."""
    layers = dict(model.named_modules())
    if any(getattr(layers[n], "groups", 1) not in (1, getattr(layers[n], "in_channels", 1)) for n in group.layers):
        return "has grouped channels, which are cut only whole groups at a time"
    half = group.half
    if half >= group.channels or group.channels % group.multiple:
        return f"its {group.channels} channels are normalized in {group.multiple} groups"
    for channels in (range(half), range(half, group.channels)):
        try:
            reason = _tried(copy.deepcopy(model).requires_grad_(True), example, group, channels, before)
        except HiddenUnitsError:
            return KEPT
        except Exception as error:  # noqa: BLE001 - whatever a structure does to the cut, the group is left whole
            return f"the model does not run without some of its channels ({type(error).__name__}: {first_line(error)})"
        if reason:
            return reason
    return ""


def _tried(twin: nn.Module, example: Inputs, group: Group, channels: range, before: torch.Tensor) -> str:
    """Cut channels of a group, and return what is wrong with the model then, or nothing."""
    names = {module: name for name, module in twin.named_modules()}
    shared = ties(twin)
    inputs = probe(example)
    graph = dependency_graph(twin, example)
    root = twin.get_submodule(group.name)
    concerned = coupled(graph, root, channels)
    for item in concerned:
        path = names.get(item.dep.target.module, "")
        if path in shared:
            return f"{path} shares its weights with {shared[path]}, and cut apart they would not be shared any more"
    attends = _attends(concerned)
    with torch.no_grad():
        expected = inputs.through(_blinded(twin, graph, concerned)) if attends else before
        concerned.prune()
        after = inputs.through(twin)
    if after.shape != before.shape:
        return "the model's output changes its shape without some of its channels"
    return "" if not attends or close(expected, after) else "its channels belong to heads of an attention"


def _attends(group: Any) -> bool:
    """Tell whether what flows between the layers of a group passes through an attention."""
    kinds = {str(getattr(item.dep.target.module, "_grad_fn", "")) for item in group}
    return any(part in kind for kind in kinds for part in ("ScaledDotProduct", "Softmax", "Bmm"))


def _blinded(model: nn.Module, graph: Any, group: Any) -> nn.Module:
    """Return a copy of a model in which nothing reads the channels of a group any more."""
    twin = copy.deepcopy(model)
    modules = dict(twin.named_modules())
    names = {module: name for name, module in model.named_modules()}
    for item in read(graph, group):
        layer = modules.get(names.get(item.dep.target.module, ""))
        if isinstance(layer, LAYER_TYPES) and isinstance(layer.weight, torch.Tensor):
            layer.weight[:, item.idxs] = 0.0
    return twin


def first_line(error: Exception) -> str:
    """Return the first line of an error's message that says something."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")
