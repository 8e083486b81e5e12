"""Putting a program together: which step becomes which layer, and under which path."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from paretrim.search.sources.pt2_graph import Listing
from paretrim.search.sources.pt2_layers import Made, made
from paretrim.search.sources.pt2_network import Network
from paretrim.search.sources.pt2_steps import Held, Step, names_in, replaced

Tensor = torch.Tensor
_OWN = "torch.nn.modules."
_COUNTED = "num_batches_tracked"


def assemble(listing: Listing, tensors: Mapping[str, Tensor], *, layers: bool = True) -> Network:
    """Return a program as a module in evaluation mode.

    Args:
        listing: What it does.
        tensors: What it holds, by the names that it had in the model.
        layers: Whether operators become layers; without, each runs as it stands in the program.
    """
    plan = _Plan(tensors)
    steps = tuple(plan.place(step) if layers else step for step in listing.steps)
    steps = tuple(replace(step, arguments=plan.moved(step)) for step in steps)
    network = Network(steps, {entry.name: entry.result for entry in listing.entries}, listing.outputs)
    for path, each in plan.layers.items():
        _put(network, path, each.module)
    for path, each in plan.layers.items():
        _fill(network.get_submodule(path), each, tensors)
    for name in dict.fromkeys(name for step in steps for name in names_in([a.value for a in step.arguments], Held)):
        if not _has(network, name):
            _hold(network, name, tensors[name])
    _thaw(network)
    return network.eval()


@dataclass
class _Plan:
    """Which layers there are, under which paths.

    Attributes:
        tensors: What the program holds.
        layers: By path.
        homes: Where a layer's tensors are to be found, for steps that use them too.
    """

    tensors: Mapping[str, Tensor]
    layers: dict[str, Made] = field(default_factory=dict)
    homes: dict[Held, Held] = field(default_factory=dict)
    _known: dict[Any, str] = field(default_factory=dict)

    def place(self, step: Step) -> Step:
        """Return a step that calls a layer in the place of one that calls an operator, where there is such a layer."""
        layer = made(step, self.tensors)
        if layer is None:
            return step
        # The same weights and settings are one module that is called again; so is one activation of a module's own.
        what = (repr(layer.module), tuple(layer.held.items()), "" if layer.held else _cell(step))
        path = self._known.get(what)
        if path is None:
            path = self._known[what] = next(path for path in _paths(step, layer) if self._free(path))
            self.layers[path] = layer
            for name, held in layer.held.items():
                self.homes.setdefault(held, Held(f"{path}.{name}"))
        return replace(step, target=path, arguments=layer.inputs, layer=True)

    def moved(self, step: Step) -> tuple[Any, ...]:
        """Return a step's arguments with all tensors where they are now."""
        return tuple(replace(each, value=replaced(each.value, self.homes)) for each in step.arguments)

    def _free(self, path: str) -> bool:
        """Tell whether no layer stands there, within it or around it."""
        parts = path.split(".")
        if not all(part.isidentifier() or part.isdigit() for part in parts):
            return False
        return not any(f"{path}.".startswith(f"{other}.") or other.startswith(f"{path}.") for other in self.layers)


def _cell(step: Step) -> str:
    """Return what tells one activation from another: the module that it was, or the very step."""
    return step.scope if step.kind.startswith(_OWN) else f"{step.scope}.{step.results}"


def _paths(step: Step, layer: Made) -> Iterator[str]:
    """Yield paths for a layer, the best first: that of its weights, that of its module, then made-up ones."""
    weight = layer.held.get("weight") or layer.held.get("running_mean")
    own = step.scope if step.kind.startswith(_OWN) else ""
    if weight is None:
        made_up = f"{step.scope}.{step.name.rstrip('_')}".lstrip(".")
        found = [own, made_up]
    else:
        named = weight.name.removesuffix("running_mean").removesuffix("weight").rstrip("._") or "layer"
        made_up = named.replace(".", "_")
        # Weights that two layers share have the name of one of them.
        found = [named, own, made_up] if weight.name.startswith(f"{own}.") else [own, named, made_up]
    yield from filter(None, found)
    yield from (f"{made_up}_{count}" for count in itertools.count(1))


def _put(network: nn.Module, path: str, module: nn.Module) -> None:
    owner, _, name = path.rpartition(".")
    _container(network, owner).add_module(name, module)


def _container(network: nn.Module, path: str) -> nn.Module:
    """Return the module at a path; those that are missing on the way are made."""
    found = network
    for part in filter(None, path.split(".")):
        if part not in found._modules:
            found.add_module(part, nn.Module())
        found = found.get_submodule(part)
    return found


def _fill(module: nn.Module, layer: Made, tensors: Mapping[str, Tensor]) -> None:
    for name, held in layer.held.items():
        setattr(module, name, tensors[held.name])
    if hasattr(module, _COUNTED):
        counted = layer.held["running_mean"].name.removesuffix("running_mean") + _COUNTED
        setattr(module, _COUNTED, tensors.get(counted, torch.tensor(0)))


def _has(network: nn.Module, name: str) -> bool:
    owner, _, last = name.rpartition(".")
    try:
        return isinstance(getattr(network.get_submodule(owner), last), Tensor)
    except AttributeError:
        return False


def _hold(network: nn.Module, name: str, tensor: Tensor) -> None:
    owner, _, last = name.rpartition(".")
    module = _container(network, owner)
    if isinstance(tensor, nn.Parameter):
        module.register_parameter(last, tensor)
    else:
        module.register_buffer(last, tensor)


def _thaw(network: nn.Module) -> None:
    """Let all parameters learn where none does, as in programs that were exported for inference."""
    if not any(each.requires_grad for each in network.parameters()):
        for parameter in network.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
